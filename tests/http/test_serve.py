"""`vec serve`, and the gateway that the daemon keeps running: addresses, stops, and processes that are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import Any

import httpx

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.running import alive
from tests.support.waiting import PATIENCE_S, until


def test_a_unix_socket_serves_curl_and_its_file_goes_with_the_gateway(instance: Instance) -> None:
    path = instance.home / "http.sock"
    with Gateway(instance, "--listen", f"unix:{path}") as gateway:
        assert gateway.url == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        command = ["curl", "-sS", "--unix-socket", str(path), "http://localhost/healthz"]
        assert subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout == b'{"status":"ok"}'
        assert gateway.stop() == 0
    assert not path.exists()


def test_an_address_that_is_taken_is_an_error_that_says_so(instance: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = instance.vec("serve", "--listen", address, status=2)
    assert address in refused.stderr
    assert instance.vec("serve", "--listen", "nonsense", status=2).stderr.startswith("vec: --listen: 'nonsense'")


def test_without_a_daemon_answers_are_503_and_then_right_again() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("status")
        with Gateway(own, "--no-spawn") as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
            assert http.get("/v1/libraries").status_code == 200
            own.vec("daemon", "stop")
            answer = http.get("/v1/libraries")
            assert (answer.status_code, answer.json()["code"]) == (503, "no_daemon")
            assert "retry-after" in answer.headers
            own.vec("daemon", "start")
            assert http.get("/v1/libraries").status_code == 200


def test_a_stop_answers_the_request_that_waits_and_ends_a_stream_with_its_summary(instance: Instance) -> None:
    with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        http.post("/v1/libraries", json={"name": "stopped", "embedder": "hash"})
        address = httpx.URL(gateway.url)
        with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as stream:
            stream.sendall(
                b"POST /v1/libraries/stopped/documents/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            piece = b'{"id":"a","text":"x"}\n'
            stream.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            answer = stream.makefile("rb")
            until(lambda: b'"completed"' in answer.readline())
            assert gateway.stop() == 0
            rest = answer.read()
        assert b'"status":"summary"' in rest
        assert b'"code":"shutting_down"' in rest


def _listening(instance: Instance) -> dict[str, Any] | None:
    (status,) = instance.objects("status")
    found = status["http"]
    return found if found is not None and found["listen"] else None


def test_the_daemon_keeps_a_gateway_running_and_takes_it_along() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        (own.home / "config.toml").write_text('[http]\nlisten = "127.0.0.1:0"\n')
        own.vec("daemon", "start")
        first = until(lambda: _listening(own), "the gateway's start")
        assert httpx.get(first["listen"][0] + "/healthz").status_code == 200
        (status,) = own.objects("daemon", "status")
        assert status["http"] == first["listen"]
        os.kill(first["pid"], signal.SIGKILL)
        second = until(lambda: now if (now := _listening(own)) and now["pid"] != first["pid"] else None, "its restart")
        own.vec("daemon", "stop")
        assert not alive(second["pid"])
        own.vec("daemon", "start")
        third = until(lambda: _listening(own), "the gateway's start")
        pid = own.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(third["pid"]), "the end of a gateway whose daemon was killed")


def test_invalid_settings_of_the_gateway_are_reported_at_the_start() -> None:
    with Instance() as own:
        (own.home / "config.toml").write_text('[http]\nlisen = "127.0.0.1:0"\n')
        refused = own.vec("daemon", "start", status=None)
        assert refused.returncode != 0
        assert "http.lisen" in refused.stderr
        assert "did you mean 'listen'?" in refused.stderr
