"""Redis Streams: what a relay's sink writes, and what a source's reader reads, with a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.connectors.direct import LOG, batch, events, open_reader, open_sink, read_until, seqs
from tests.support.brokers import RedisServer, free_ports, fresh_name
from tests.support.certificates import make_certificate
from tests.support.proxy import Proxy
from vecd.delivery import AttemptFailed
from vecd.errors import Code, VecError


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=redis_server.port, protocol=2) as made:
        yield made


@pytest.fixture
def stream() -> str:
    return fresh_name("stream")


def _url(server: RedisServer, stream: str) -> str:
    return f"{server.url}/{stream}"


def _bodies(client: Any, stream: str) -> list[bytes]:
    return [fields[b"body"] for _, fields in client.xrange(stream)]


# --- relay ------------------------------------------------------------------------------------------------------------


def test_an_entry_has_the_seq_as_its_id_and_headers_as_its_fields(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(7, 9)))
    (first, *_, last) = client.xrange(stream)
    assert (first[0], last[0]) == (b"7-0", b"9-0")
    assert first[1] == {
        b"vec-cursor": f"{LOG}:7".encode(),
        b"vec-type": b"document.added",
        b"vec-log": LOG.encode(),
        b"vec-library": b"notes",
        b"vec-id": b"d7",
        b"content-type": b"application/json",
        b"body": events(7, 7)[0].body,
    }


def test_an_event_that_is_sent_again_is_there_once(redis_server: RedisServer, client: Any, stream: str) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 10)))
        sink.deliver(batch(events(1, 10)))
        sink.deliver(batch(events(5, 12)))
    with open_sink(_url(redis_server, stream)) as sink:  # as after a crash
        sink.deliver(batch(events(3, 15)))
    assert seqs(_bodies(client, stream)) == list(range(1, 16))


def test_consumer_groups_read_the_stream_as_usual(redis_server: RedisServer, client: Any, stream: str) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 4)))
    client.xgroup_create(stream, "workers", id="0")
    ((_, entries),) = client.xreadgroup("workers", "one", {stream: ">"}, count=10)
    assert [its_id for its_id, _ in entries] == [b"1-0", b"2-0", b"3-0", b"4-0"]
    assert client.xack(stream, "workers", *(its_id for its_id, _ in entries)) == 4


def test_large_events_of_a_batch_are_added_in_order(redis_server: RedisServer, client: Any, stream: str) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 9, text="x" * 700_000)))  # over the limit of one script
    assert seqs(_bodies(client, stream)) == list(range(1, 10))


def test_the_stream_is_trimmed_to_about_maxlen(redis_server: RedisServer, client: Any, stream: str) -> None:
    with open_sink(_url(redis_server, stream), maxlen=100) as sink:
        for first in range(1, 2001, 500):
            sink.deliver(batch(events(first, first + 499)))
    assert 100 <= client.xlen(stream) <= 300  # the server trims whole nodes
    assert client.xrevrange(stream, count=1)[0][0] == b"2000-0"


def test_an_event_that_was_trimmed_from_the_stream_is_not_added_again(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 5)))
        client.xtrim(stream, maxlen=0)
        sink.deliver(batch(events(4, 6)))
    assert seqs(_bodies(client, stream)) == [6]


def test_a_deleted_stream_begins_again(redis_server: RedisServer, client: Any, stream: str) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 5)))
        client.delete(stream)
        sink.deliver(batch(events(2, 6)))  # as after `vec relay reset`
    assert seqs(_bodies(client, stream)) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("other", [{"name": "other"}, {"log": "f" * 16}], ids=["relay", "log"])
def test_another_relay_or_log_cannot_write_to_the_stream(
    redis_server: RedisServer, client: Any, stream: str, other: dict[str, Any]
) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 5)))
        with (
            pytest.raises(VecError, match="belongs to the relay 'out'") as caught,
            open_sink(_url(redis_server, stream), **other),
        ):
            pass
        assert caught.value.hint is not None
        assert f"DEL {stream} {stream}:vec" in caught.value.hint
        sink.deliver(batch(events(6, 6)))
    assert seqs(_bodies(client, stream)) == [1, 2, 3, 4, 5, 6]
    client.delete(stream, f"{stream}:vec")
    with open_sink(_url(redis_server, stream), **other) as sink:
        sink.deliver(batch(events(3, 3)))


def test_an_entry_of_another_program_is_an_error_and_no_event_is_lost(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    with open_sink(_url(redis_server, stream)) as sink:
        sink.deliver(batch(events(1, 2)))
        client.xadd(stream, {"a": "b"})  # its id is a time, far beyond the seqs
        with pytest.raises(VecError, match="another program writes to the stream"):
            sink.deliver(batch(events(3, 4)))


def test_a_key_of_another_type_is_an_error(redis_server: RedisServer, client: Any, stream: str) -> None:
    client.set(stream, "text")
    with pytest.raises(VecError, match="holds no stream"), open_sink(_url(redis_server, stream)):
        pass


def test_a_batch_that_the_server_cannot_take_whole_is_completed_later(tmp_path: Path) -> None:
    """An entry after one that failed must not be added: the ids of the stream would be beyond the one that failed."""
    if (what := RedisServer.missing()) is not None:
        pytest.skip(f"needs {what}")
    with RedisServer(tmp_path, durable=False) as server, redis.Redis(port=server.port, protocol=2) as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + 3_000_000)
        with open_sink(server.url + "/full") as sink:
            failure: AttemptFailed | None = None
            for first in range(1, 1000, 10):
                try:
                    sink.deliver(batch(events(first, first + 9, text="x" * 50_000)))
                except AttemptFailed as error:
                    failure = error
                    break
            assert failure is not None
            assert failure.unreachable
            there = len(_bodies(client, "full"))
            client.config_set("maxmemory", 0)
            first = there // 10 * 10 + 1
            sink.deliver(batch(events(first, first + 9, text="x" * 50_000)))
        assert seqs(_bodies(client, "full")) == list(range(1, first + 10))


def test_a_killed_server_is_unreachable_and_afterwards_has_each_event_once(own_redis: RedisServer) -> None:
    with open_sink(own_redis.url + "/events") as sink:
        sink.deliver(batch(events(1, 5)))
        own_redis.kill()
        with pytest.raises(AttemptFailed) as caught:
            sink.deliver(batch(events(6, 10)))
        assert caught.value.unreachable
    own_redis.start()
    with open_sink(own_redis.url + "/events") as sink:
        sink.deliver(batch(events(6, 10)))
    with redis.Redis(port=own_redis.port, protocol=2) as client:
        assert seqs(_bodies(client, "events")) == list(range(1, 11))


def test_a_batch_that_a_stopped_server_executes_late_is_there_once(own_redis: RedisServer) -> None:
    with open_sink(own_redis.url + "/events", timeout_s=0.3) as sink:
        sink.deliver(batch(events(1, 5)))
        own_redis.pause()
        with pytest.raises(AttemptFailed, match="took longer than") as caught:
            sink.deliver(batch(events(6, 10)))
        assert caught.value.unreachable
    own_redis.resume()
    with open_sink(own_redis.url + "/events") as sink:
        sink.deliver(batch(events(6, 10)))
        sink.deliver(batch(events(11, 12)))
    with redis.Redis(port=own_redis.port, protocol=2) as client:
        assert seqs(_bodies(client, "events")) == list(range(1, 13))


def test_a_batch_that_the_network_cuts_is_there_once(own_redis: RedisServer) -> None:
    with Proxy(("127.0.0.1", own_redis.port)) as network:
        url = f"redis://{network.address}/events"
        for first, cut_at in ((1, 0), (6, 400), (11, 900), (16, 2_000)):
            with open_sink(url) as sink:
                network.cut_after(cut_at)
                with pytest.raises(AttemptFailed) as caught:
                    sink.deliver(batch(events(first, first + 4)))
                assert caught.value.unreachable
            network.heal()
            with open_sink(url) as sink:
                sink.deliver(batch(events(first, first + 4)))
        with open_sink(url) as sink:  # the server has the batch, and its answer is lost
            network.black_hole("replies")
            threading.Timer(0.3, network.cut).start()
            with pytest.raises(AttemptFailed):
                sink.deliver(batch(events(21, 25)))
        network.heal()
        with open_sink(url) as sink:
            sink.deliver(batch(events(21, 25)))
    with redis.Redis(port=own_redis.port, protocol=2) as client:
        assert seqs(_bodies(client, "events")) == list(range(1, 26))


def test_a_stop_ends_the_wait_for_a_server_that_does_not_answer(own_redis: RedisServer) -> None:
    stop = threading.Event()
    with open_sink(own_redis.url + "/events", stop=stop, timeout_s=60) as sink:
        sink.deliver(batch(events(1, 1)))
        own_redis.pause()
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(AttemptFailed, match="the connector stops"):
            sink.deliver(batch(events(2, 2)))
    assert time.monotonic() - began < 30
    own_redis.resume()


def test_a_batch_counts_when_the_replicas_have_it(tmp_path: Path) -> None:
    if (what := RedisServer.missing()) is not None:
        pytest.skip(f"needs {what}")
    with (
        RedisServer(tmp_path / "primary", more=("--repl-diskless-sync-delay", "0")) as primary,
        RedisServer(tmp_path / "replica", more=("--replicaof", "127.0.0.1", str(primary.port))) as replica,
    ):
        with open_sink(primary.url + "/events", replicas=1, timeout_s=60) as sink:
            sink.deliver(batch(events(1, 5)))
            assert replica.cli("XLEN", "events") == "5"
        with (
            open_sink(primary.url + "/events", replicas=2, timeout_s=2) as sink,
            pytest.raises(AttemptFailed, match="1 of 2 replicas"),
        ):
            sink.deliver(batch(events(6, 6)))


# --- source -----------------------------------------------------------------------------------------------------------


def test_a_reader_begins_with_the_earliest_entry_or_behind_the_latest(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    url = _url(redis_server, stream)
    for number in range(3):
        client.xadd(stream, {"body": str(number)})
    with open_reader(url) as early, open_reader(url, name="late", start="latest") as late:
        assert [message.body for message in read_until(early, 3)] == [b"0", b"1", b"2"]
        assert list(late.read(10, 0.05)) == []
        client.xadd(stream, {"body": "3"})
        assert [message.body for message in read_until(late, 1)] == [b"3"]
        assert [message.body for message in read_until(early, 1)] == [b"3"]


def test_a_reader_continues_behind_the_stored_offset(redis_server: RedisServer, client: Any, stream: str) -> None:
    url = _url(redis_server, stream)
    for number in range(5):
        client.xadd(stream, {"body": str(number)}, id=f"{number + 1}-0")
    with open_reader(url) as reader:
        first, second, *_ = read_until(reader, 3)
        assert (second.partition, second.offset) == (stream, "2-0")
    with open_reader(url, {stream: second.offset}) as reader:
        assert [message.offset for message in read_until(reader, 3)] == ["3-0", "4-0", "5-0"]
    assert first.offset == "1-0"


def test_a_reader_waits_for_a_stream_that_does_not_exist_yet(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    with open_reader(_url(redis_server, stream)) as reader:
        assert list(reader.read(10, 0.05)) == []
        assert reader.lag() == 0
        client.xadd(stream, {"body": "here"})
        assert [message.body for message in read_until(reader, 1)] == [b"here"]
    assert not client.exists(f"{stream}:vec")


def test_a_message_is_a_field_or_all_fields_as_an_object(redis_server: RedisServer, client: Any, stream: str) -> None:
    url = _url(redis_server, stream)
    client.xadd(stream, {"body": "{}", "content-type": "application/json", "key": "k"})
    client.xadd(stream, {"id": "1", "text": "Grüße"})
    with open_reader(url) as reader:
        first, second = read_until(reader, 2)
    assert (first.body, dict(first.headers)) == (b"{}", {"content-type": "application/json", "key": "k"})
    assert json.loads(second.body) == {"id": "1", "text": "Grüße"}
    with open_reader(url, field="text") as reader:
        first, second = read_until(reader, 2)
    assert (first.body, second.body) == (b"", "Grüße".encode())  # without the field, it has no content


def test_the_group_shows_the_position_and_the_lag(redis_server: RedisServer, client: Any, stream: str) -> None:
    url = _url(redis_server, stream)
    for number in range(10):
        client.xadd(stream, {"body": str(number)}, id=f"{number + 1}-0")
    with open_reader(url, group="vecs") as reader:
        assert reader.lag() == 10
        read_until(reader, 6)
        assert reader.lag() == 4
        reader.committed({stream: "3-0"})
        (group,) = client.xinfo_groups(stream)
        assert (group["name"], group["last-delivered-id"], group["lag"]) == (b"vecs", b"3-0", 7)
        reader.committed({stream: "6-0"})
        assert client.xinfo_groups(stream)[0]["lag"] == 4
    with open_reader(url, {stream: "6-0"}, group="vecs") as reader:
        assert reader.lag() == 4
        read_until(reader, 4)
        assert reader.lag() == 0


def test_a_reader_logs_that_entries_were_removed_before_it_read_them(
    redis_server: RedisServer, client: Any, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = _url(redis_server, stream)
    for number in range(10):
        client.xadd(stream, {"body": str(number)}, id=f"{number + 1}-0")
    with open_reader(url) as reader:
        read_until(reader, 3)
        reader.committed({stream: "3-0"})
        assert reader.lag() == 7
    client.xtrim(stream, maxlen=2, approximate=False)
    with open_reader(url, {stream: "3-0"}) as reader:
        (record,) = caplog.records
        assert (record.__dict__["entries"], record.__dict__["next"]) == (5, "9-0")
        assert reader.lag() == 2
        assert [message.offset for message in read_until(reader, 2)] == ["9-0", "10-0"]
        assert reader.lag() == 0
    assert len(caplog.records) == 1


def test_a_group_with_consumers_is_refused(redis_server: RedisServer, client: Any, stream: str) -> None:
    client.xadd(stream, {"body": "1"})
    client.xgroup_create(stream, "theirs", id="0")
    client.xreadgroup("theirs", "somebody", {stream: ">"}, count=1)
    with pytest.raises(VecError, match="has consumers"), open_reader(_url(redis_server, stream), group="theirs"):
        pass
    assert client.xinfo_groups(stream)[0]["pending"] == 1


def test_a_stream_that_ends_before_the_position_is_an_error_until_it_has_grown(
    redis_server: RedisServer, client: Any, stream: str
) -> None:
    url = _url(redis_server, stream)
    for offsets in ({stream: "5-0"},):
        with pytest.raises(VecError, match="ends at 0-0, before the position 5-0") as caught, open_reader(url, offsets):
            pass
        assert caught.value.code == Code.INVALID_CURSOR
        client.xadd(stream, {"body": "x"}, id="6-0")
        with open_reader(url, offsets) as reader:
            assert [message.offset for message in read_until(reader, 1)] == ["6-0"]
            client.delete(stream)
            with pytest.raises(VecError, match="before the position 6-0"):
                reader.lag()


def test_a_reader_notices_a_killed_server_and_a_stop(own_redis: RedisServer) -> None:
    stop = threading.Event()
    with open_reader(own_redis.url + "/events", stop=stop) as reader:
        killer = threading.Timer(0.2, own_redis.kill)
        killer.start()
        with pytest.raises(AttemptFailed) as caught:
            reader.read(10, 30)
        assert caught.value.unreachable
        killer.join()
    own_redis.start()
    with open_reader(own_redis.url + "/events", stop=stop) as reader:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(AttemptFailed, match="the connector stops"):
            reader.read(10, 30)


# --- login and TLS ----------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_an_error_that_names_no_password(tmp_path: Path) -> None:
    if (what := RedisServer.missing()) is not None:
        pytest.skip(f"needs {what}")
    secret = tmp_path / "secret"
    with RedisServer(tmp_path / "data", password="hunter2") as server:
        url = server.url + "/events"
        for text in ("wrong-1", None):
            if text is not None:
                secret.write_text(text + "\n")
            given: dict[str, Any] = {} if text is None else {"password_file": str(secret)}
            with pytest.raises(VecError) as caught, open_sink(url, **given):
                pass
            assert caught.value.code == Code.SETTINGS
            assert "wrong-1" not in json.dumps(caught.value.to_wire())
        secret.write_text("hunter2\n")
        with open_sink(url, password_file=str(secret)) as sink:
            sink.deliver(batch(events(1, 1)))
        assert server.cli("XLEN", "events") == "1"


def test_tls_needs_a_trusted_certificate(tmp_path: Path) -> None:
    if (what := RedisServer.missing()) is not None:
        pytest.skip(f"needs {what}")
    key, certificate = make_certificate(tmp_path)
    (port,) = free_ports(1)
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no")
    with RedisServer(tmp_path / "data", more=tls) as server:
        url = f"rediss://127.0.0.1:{port}/events"
        with pytest.raises(VecError, match=r"certificate of Redis at .* is not trusted"), open_sink(url):
            pass
        with open_sink(url, ca_file=certificate) as sink:
            sink.deliver(batch(events(1, 3)))
        assert server.cli("XLEN", "events") == "3"
        with pytest.raises(VecError, match="ca_file: cannot use"), open_sink(url, ca_file=str(tmp_path / "none")):
            pass
        with pytest.raises((VecError, AttemptFailed)), open_sink(f"rediss://{server.address}/events", timeout_s=0.5):
            pass  # a port without TLS


@pytest.mark.parametrize(
    "url", ["redis://localhost", "redis://localhost/", "redis://a,b/x", "redis://localhost/x?db=1"]
)
def test_a_url_that_names_no_stream_is_refused(url: str) -> None:
    with pytest.raises(VecError) as caught, open_sink(url):
        pass
    assert (caught.value.code, caught.value.details["field"]) == (Code.INVALID_REQUEST, "url")
