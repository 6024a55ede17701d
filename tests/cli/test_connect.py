"""`vec --connect URL`: the commands over a WebSocket of a gateway, which they reach through TCP or TLS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.running import end_of_input, feed, fresh, running
from tests.support.waiting import until
from vecd.client import Client, connect
from vecd.errors import Code, VecError


class Elsewhere(Instance):
    """Another home, as on another machine: its commands use a gateway."""

    def __init__(self, gateway: Gateway, **environment: str) -> None:
        super().__init__({"VEC_CONNECT": gateway.websocket_url, **environment})


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture(scope="module")
def gateway(instance: Instance) -> Iterator[Gateway]:
    with Gateway(instance) as made:
        yield made


@pytest.fixture(scope="module")
def elsewhere(gateway: Gateway) -> Iterator[Elsewhere]:
    with Elsewhere(gateway) as made:
        yield made


@pytest.fixture
def library(instance: Instance) -> str:
    return fresh(instance)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def lines(count: int, start: int = 0) -> str:
    return "".join(json.dumps({"id": f"d{n}", "text": f"text number {n}"}) + "\n" for n in range(start, start + count))


# --- the same commands ------------------------------------------------------------------------------------------------


def test_the_commands_do_over_a_gateway_what_they_do_on_the_socket(
    instance: Instance, elsewhere: Elsewhere, library: str
) -> None:
    told = elsewhere.objects("ingest", "-l", library, stdin=lines(700))
    assert (told[-1]["added"], told[-1]["failed"]) == (700, 0)
    for command in (
        ["search", "number 7", "-l", library],
        ["get", "d3", "d4", "-l", library],
        ["list", "-l", library],
        ["count", "-l", library],
        ["watch", "-l", library, "--from", "beginning", "--no-follow", "--payload"],
        ["library", "show", library],
        ["jobs", "list"],
    ):
        assert elsewhere.objects(*command) == instance.objects(*command), command
    job = elsewhere.objects("jobs", "submit", "rebuild", "-l", library, "--wait", status=0)[-1]
    assert job["state"] == "completed"
    assert elsewhere.objects("delete", "d3", "-l", library)[0]["deleted"] == 1
    assert elsewhere.vec("get", "nothing", "-l", library, status=4).stdout == instance.vec(
        "get", "nothing", "-l", library, status=4
    ).stdout  # fmt: skip
    assert not elsewhere.settings.socket.exists(), "it started a daemon of its own"


def test_the_option_the_variable_and_the_url_schemes_mean_the_same(gateway: Gateway, library: str) -> None:
    with Instance() as home:
        for url in (gateway.websocket_url, gateway.url, gateway.url + "/", gateway.websocket_url + "/v1/ws"):
            assert home.objects("--connect", url, "count", "-l", library)[0]["documents"] == 0


def test_an_answer_of_many_megabytes_arrives_whole(elsewhere: Elsewhere, instance: Instance, library: str) -> None:
    text = "x" * 90_000
    made = [{"id": f"big{n}", "texts": [text] * 50} for n in range(3)]  # 13 MB
    told = elsewhere.objects("ingest", "-l", library, stdin="".join(json.dumps(each) + "\n" for each in made))
    assert told[-1]["added"] == 3
    (found,) = elsewhere.objects("get", "big1", "-l", library)
    assert [chunk["text"] for chunk in found["chunks"]] == [
        chunk["text"] for chunk in instance.objects("get", "big1", "-l", library)[0]["chunks"]
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["daemon", "stop"], "for the instance of this machine"),
        (["restore", "backup.db"], "for the instance of this machine"),
        (["backup", "copy.db"], "vec jobs submit backup"),
        (["ingest", "--background", "x.ndjson"], "ingest without --background"),
    ],
)
def test_what_a_gateway_cannot_do_is_refused_with_the_remedy(
    elsewhere: Elsewhere, command: list[str], said: str
) -> None:
    error = elsewhere.vec(*command, status=2).stderr
    assert said in error
    assert "VEC_CONNECT" in error


def test_the_help_of_what_is_refused_can_be_read(elsewhere: Elsewhere) -> None:
    assert "Usage: vec daemon stop" in elsewhere.vec("daemon", "stop", "--help").stdout


def test_a_socket_on_the_command_line_overrides_the_variable(instance: Instance, library: str) -> None:
    with Instance({"VEC_CONNECT": "ws://127.0.0.1:1"}) as home:
        assert home.objects("count", "-l", library, "--socket", str(instance.settings.socket))[0]["documents"] == 0


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("ws://127.0.0.1:1", 69, "(no_daemon)"),
        ("ws://nobody.invalid", 69, "the host nobody.invalid is unknown"),
        ("wss://key@host", 2, "VEC_KEY"),
        ("ftp://host", 2, "use wss://HOST"),
        ("host:8000", 2, "use wss://HOST"),
    ],
)
def test_an_address_that_cannot_be_used_says_why(url: str, status: int, said: str) -> None:
    with Instance() as home:
        assert said in home.vec("--connect", url, "count", status=status).stderr


def test_a_tls_address_of_a_server_without_tls_says_so(gateway: Gateway) -> None:
    with Instance() as home:
        error = home.vec("--connect", gateway.url.replace("http", "wss", 1), "count", status=2).stderr
    assert "ws://, not wss://" in error


def test_a_server_that_is_no_gateway_is_named(gateway: Gateway) -> None:
    with Instance() as home:
        error = home.vec("--connect", f"{gateway.websocket_url}/elsewhere", "count", status=None).stderr
    assert "/elsewhere answered 40" in error


def test_a_server_that_never_answers_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecd.limits.HELLO_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        from vecd.client.websocket import Address, WebSocketTransport

        address = Address.of(f"ws://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(VecError) as caught:
            WebSocketTransport(address, 0.2)
    assert caught.value.code == Code.STALLED


# --- keys and certificates --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, str], Path]]:
    """A gateway with TLS and keys; the keys by name, and the certificate."""
    folder = tmp_path_factory.mktemp("tls")
    cert, secret = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made, "-out", str(cert), "-keyout", str(secret)], check=True, capture_output=True)
    tls = {"VEC_HTTP_TLS_CERT": str(cert), "VEC_HTTP_TLS_KEY": str(secret)}
    with Instance({"VEC_EMBEDDER": "hash", **tls}) as instance:
        keys = {}
        for name, *more in (("all", "--scope", "admin"), ("reader",), ("one", "--library", "mine", "--scope", "write")):
            keys[name] = instance.objects("keys", "create", name, *more)[0]["key"]
        instance.vec("library", "create", "mine")
        instance.vec("library", "create", "other")
        with Gateway(instance) as gateway:
            yield gateway, keys, cert


def test_a_key_opens_what_it_is_for_and_nothing_else(secured: tuple[Gateway, dict[str, str], Path]) -> None:
    gateway, keys, cert = secured
    with Elsewhere(gateway, VEC_CA_FILE=str(cert)) as home:

        def vec(name: str | None, *arguments: str, status: int, stdin: str | None = None) -> str:
            home.environment["VEC_KEY"] = keys[name] if name else ""
            return home.vec(*arguments, status=status, stdin=stdin).stderr

        assert "VEC_KEY" in vec(None, "count", "-l", "mine", status=1)
        vec("all", "ingest", "-l", "other", stdin=lines(3), status=0)
        vec("reader", "count", "-l", "other", status=0)
        assert "scope write" in vec("reader", "delete", "d1", "-l", "other", status=1)
        vec("one", "ingest", "-l", "mine", stdin=lines(3), status=0)
        assert "'other'" in vec("one", "count", "-l", "other", status=1)
        assert "name a library" in vec("one", "watch", "--from", "beginning", "--no-follow", status=1)
        vec("one", "watch", "-l", "mine", "--from", "beginning", "--no-follow", status=0)
        assert "scope admin" in vec("one", "jobs", "submit", "backup", "-p", "path=/tmp/x", status=1)


def test_a_key_comes_from_a_file_that_others_cannot_read(
    secured: tuple[Gateway, dict[str, str], Path], tmp_path: Path
) -> None:
    gateway, keys, cert = secured
    file = tmp_path / "key"
    file.write_text(keys["reader"] + "\n")
    file.chmod(0o644)
    with Instance() as home:
        options = ["--connect", gateway.websocket_url, "--ca-file", str(cert), "--key-file", str(file)]
        assert f"chmod 600 {file}" in home.vec(*options, "count", "-l", "mine", status=2).stderr
        file.chmod(0o600)
        home.vec(*options, "count", "-l", "mine")
        assert keys["reader"] not in home.vec(*options, "delete", "x", "-l", "mine", status=1).stderr


def test_a_certificate_that_is_not_trusted_is_refused_before_the_key_is_sent(
    secured: tuple[Gateway, dict[str, str], Path],
) -> None:
    gateway, keys, _ = secured
    with Elsewhere(gateway, VEC_KEY=keys["all"]) as home:
        error = home.vec("count", "-l", "mine", status=1).stderr
    assert "not trusted" in error
    assert "--ca-file" in error


def test_megabytes_pass_through_tls(secured: tuple[Gateway, dict[str, str], Path]) -> None:
    gateway, keys, cert = secured
    with connect(gateway.websocket_url, key=keys["all"], ca_file=cert, timeout_s=60) as vec:
        texts = [f"{n} " + "x" * 80_000 for n in range(60)]
        assert vec.ingest([{"id": "big", "texts": texts}], "other")["added"] == 1
        (found,) = vec.get(["big"], "other")
        assert found is not None
        assert len("".join(chunk["text"] for chunk in found["chunks"])) > 4_000_000


# --- what fails in between --------------------------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("library", "create", "default")
        yield made


def test_a_watch_misses_nothing_when_the_gateway_is_killed_and_when_it_is_stopped(own: Instance) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with (
        Gateway(own, "--listen", listen) as first,
        Elsewhere(first) as home,
        running(home, "watch", "--type", "document.added", "--from", "beginning") as process,
    ):

        def seen() -> str:
            assert process.stdout is not None
            return str(json.loads(process.stdout.readline())["data"]["id"])

        own.vec("ingest", stdin=lines(3))
        assert [seen() for _ in range(3)] == ["d0", "d1", "d2"]
        first.process.kill()
        first.process.wait()
        own.vec("ingest", stdin=lines(3, 3))
        with Gateway(own, "--listen", listen) as second:
            assert [seen() for _ in range(3)] == ["d3", "d4", "d5"]
            assert second.stop() == 0
            own.vec("ingest", stdin=lines(3, 6))
        with Gateway(own, "--listen", listen):
            assert [seen() for _ in range(3)] == ["d6", "d7", "d8"]
            assert process.poll() is None


def test_a_watch_misses_nothing_when_the_daemon_is_killed(own: Instance) -> None:
    with (
        Gateway(own) as gateway,
        Elsewhere(gateway) as home,
        running(home, "watch", "--type", "document.added", "--from", "beginning") as process,
    ):
        assert process.stdout is not None
        own.vec("ingest", stdin=lines(2))
        got = [json.loads(process.stdout.readline())["data"]["id"] for _ in range(2)]
        pid = own.pid()
        assert pid is not None
        os.kill(pid, 9)
        until(lambda: own.pid() != pid, "the end of the daemon")
        home.vec("ingest", stdin=lines(2, 2))  # the gateway starts a daemon for it
        got += [json.loads(process.stdout.readline())["data"]["id"] for _ in range(2)]
    assert got == ["d0", "d1", "d2", "d3"]


@pytest.mark.parametrize("victim", ["daemon", "gateway"])
def test_an_ingest_writes_everything_once_when_a_process_is_killed(own: Instance, victim: str) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with (
        Gateway(own, "--listen", listen) as gateway,
        Elsewhere(gateway) as home,
        running(home, "ingest", "--batch", "50") as process,
    ):
        feed(process, lines(500))
        until(lambda: own.objects("count")[0]["documents"] >= 50)
        if victim == "daemon":
            pid = own.pid()
            assert pid is not None
            os.kill(pid, 9)
            feed(process, lines(500, 500))
            end_of_input(process)
            summary = process.stdout.read() if process.stdout else b""
        else:
            gateway.process.kill()
            gateway.process.wait()
            with Gateway(own, "--listen", listen):
                feed(process, lines(500, 500))
                end_of_input(process)
                summary = process.stdout.read() if process.stdout else b""
        assert process.wait() == 0
    told = json.loads(summary)
    assert told["added"] + told["unchanged"] == 1_000
    assert own.objects("count")[0]["documents"] == 1_000


def test_requests_are_answered_and_streams_told_when_the_gateway_stops(own: Instance) -> None:
    with Gateway(own) as gateway, connect(gateway.websocket_url, timeout_s=60) as vec:
        feed_ = vec.watch("beginning", types=["document.*"])
        pending = vec.submit("ingest", documents=[{"id": f"d{n}", "text": "stop"} for n in range(200)])
        vec.ping()
        assert gateway.stop() == 0
        assert pending.result()["added"] == 200
        with pytest.raises(VecError) as caught:
            for _ in feed_:
                pass
        assert caught.value.code == Code.SHUTTING_DOWN
        with pytest.raises(VecError) as caught:
            vec.ping()
        assert caught.value.code in (Code.SHUTTING_DOWN, Code.CONNECTION_LOST)


def test_a_gateway_that_is_stopped_is_noticed(own: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecd.limits.SILENCE_S", 0.3)
    monkeypatch.setattr("vecd.limits.PROBE_S", 0.3)
    with Gateway(own) as gateway, connect(gateway.websocket_url) as vec:
        os.kill(gateway.process.pid, 19)
        try:
            with pytest.raises(VecError) as caught:
                vec.ping()
        finally:
            os.kill(gateway.process.pid, 18)
    assert caught.value.code == Code.STALLED
    assert gateway.websocket_url in caught.value.message


def test_a_long_answer_of_a_daemon_at_work_is_not_a_stall(own: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecd.limits.SILENCE_S", 0.05)
    with Gateway(own) as gateway, connect(gateway.websocket_url) as vec:
        with vec.watch("now", timeout_s=0.5) as feed_:
            assert list(feed_) == []
        assert (feed_.end or {})["reason"] == "timeout"


def test_the_python_client_is_the_same_class(gateway: Gateway, library: str) -> None:
    with connect(gateway.websocket_url) as vec:
        assert type(vec) is Client
        vec.ingest([{"id": "a", "text": "one"}], library)
        with vec.watch("beginning", libraries=[library], types=["document.added"], follow=False) as feed_:
            assert [event["data"]["id"] for event in feed_] == ["a"]
            assert vec.count(library)["documents"] == 1
