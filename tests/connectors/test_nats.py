"""NATS JetStream: sinks, readers and relays with a real server; nats-py as another program reads and writes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest
from nats.js import api

from tests.connectors.direct import LOG, batch, events, open_reader, open_sink, read_until, seqs
from tests.connectors.test_relay import connector_pids, put, relay
from tests.connectors.test_source import source, texts
from tests.support.brokers import NatsServer, fresh_name
from tests.support.certificates import make_certificate
from tests.support.instance import Instance
from tests.support.proxy import Proxy
from tests.support.waiting import until
from vecd.delivery import AttemptFailed, Refused
from vecd.errors import Code, VecError

T = TypeVar("T")


@pytest.fixture
def stream() -> str:
    return fresh_name("stream")


def _with(server: NatsServer, use: Callable[[Any], Awaitable[T]]) -> T:
    """What `use` returns, given JetStream."""

    async def run() -> T:
        client = await nats.connect(server.url)
        try:
            return await use(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


def _messages(server: NatsServer, stream: str) -> list[Any]:
    """All messages of the stream, as another program reads them; none if there is no such stream."""

    async def use(jetstream: Any) -> list[Any]:
        try:
            count = (await jetstream.stream_info(stream)).state.messages
        except nats.js.errors.NotFoundError:
            return []
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.NONE)
        subscription = await jetstream.pull_subscribe(">", stream=stream, config=config)
        found: list[Any] = []
        while len(found) < count:
            found += await subscription.fetch(max(2, count - len(found)), timeout=30)
        return found

    return _with(server, use)


def _seqs(server: NatsServer, stream: str) -> list[int]:
    return seqs([message.data for message in _messages(server, stream)])


# --- relay ------------------------------------------------------------------------------------------------------------


def test_a_message_has_a_subject_of_library_and_type_and_the_cursor_as_its_id(
    nats_server: NatsServer, stream: str
) -> None:
    with open_sink(f"{nats_server.url}/{stream}") as sink:
        sink.deliver(batch(events(7, 9)))
    first, _, last = _messages(nats_server, stream)
    assert first.subject == f"{stream}.notes.document.added"
    assert first.data == events(7, 7)[0].body
    assert dict(first.headers) == {
        "Nats-Msg-Id": f"{LOG}:7", "vec-cursor": f"{LOG}:7", "vec-type": "document.added", "vec-log": LOG,
        "vec-library": "notes", "vec-id": "d7", "content-type": "application/json",
    }  # fmt: skip
    assert last.headers["Nats-Msg-Id"] == f"{LOG}:9"


def test_an_event_that_is_sent_again_within_the_duplicate_window_is_there_once(
    nats_server: NatsServer, stream: str
) -> None:
    url = f"{nats_server.url}/{stream}"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 10)))
        sink.deliver(batch(events(5, 12)))
    with open_sink(url) as sink:  # as after a crash
        sink.deliver(batch(events(3, 15)))
        sink.deliver(batch(events(16, 20)))
    assert _seqs(nats_server, stream) == list(range(1, 21))


def test_after_a_message_that_the_server_cannot_take_none_of_the_batch_is_stored(
    nats_server: NatsServer, stream: str
) -> None:
    """The stream is full for a large message, and not for the small ones behind it."""
    url = f"{nats_server.url}/{stream}"
    limited = {"name": stream, "subjects": [f"{stream}.>"], "discard": api.DiscardPolicy.NEW}
    _with(nats_server, lambda jetstream: jetstream.add_stream(**limited, max_bytes=10_000))
    items = [*events(1, 2), *events(3, 3, text="x" * 20_000), *events(4, 6)]
    for _ in range(2):
        with open_sink(url) as sink:
            with pytest.raises(AttemptFailed) as caught:
                sink.deliver(batch(items))
            assert caught.value.unreachable
        assert _seqs(nats_server, stream) == [1, 2]
    _with(nats_server, lambda jetstream: jetstream.update_stream(**limited, max_bytes=100_000))
    with open_sink(url) as sink:
        sink.deliver(batch(items))
    assert _seqs(nats_server, stream) == [1, 2, 3, 4, 5, 6]


def test_another_program_may_write_to_the_stream(nats_server: NatsServer, stream: str) -> None:
    url = f"{nats_server.url}/{stream}"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 2)))
        _with(nats_server, lambda jetstream: jetstream.publish(f"{stream}.other", b'{"seq": 0}'))
        sink.deliver(batch(events(3, 4)))
    _with(nats_server, lambda jetstream: jetstream.publish(f"{stream}.other", b'{"seq": 0}'))
    with open_sink(url) as sink:
        sink.deliver(batch(events(2, 6)))
    assert _seqs(nats_server, stream) == [1, 2, 0, 3, 4, 0, 5, 6]


def test_a_purged_stream_goes_on(nats_server: NatsServer, stream: str) -> None:
    url = f"{nats_server.url}/{stream}"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 5)))
    _with(nats_server, lambda jetstream: jetstream.purge_stream(stream))
    with open_sink(url) as sink:
        sink.deliver(batch(events(3, 7)))
        sink.deliver(batch(events(8, 9)))
    assert _seqs(nats_server, stream) == [6, 7, 8, 9]


def test_a_message_over_the_servers_limit_is_refused_and_the_others_are_stored(
    nats_server: NatsServer, stream: str
) -> None:
    items = [*events(1, 2), *events(3, 3, text="x" * 1_100_000), *events(4, 5)]
    with open_sink(f"{nats_server.url}/{stream}") as sink:
        with pytest.raises(Refused) as caught:
            sink.deliver(batch(items))
        assert list(caught.value.reasons) == [2]
        assert "the stream takes 1,048,576" in caught.value.reasons[2]
        sink.deliver(batch(events(6, 6)))
        sink.deliver(batch(events(3, 3)))  # as `vec relay retry`, after it was made smaller
    assert _seqs(nats_server, stream) == [1, 2, 4, 5, 6, 3]


def test_headers_have_any_text(nats_server: NatsServer, stream: str) -> None:
    (message,) = events(1, 1)
    odd = message.__class__(
        message.seq, message.cursor, message.type, message.library, "ä\r\nb 100%", message.key, message.body,
        message.content_type, {**message.headers, "vec-id": "ä\r\nb 100%"}, False,
    )  # fmt: skip
    url = f"{nats_server.url}/{stream}"
    with open_sink(url) as sink:
        sink.deliver(batch([odd]))
    (found,) = _messages(nats_server, stream)
    assert found.headers["vec-id"] == "%C3%A4%0D%0Ab%20100%25"
    with open_reader(url) as reader:
        assert read_until(reader, 1)[0].headers["vec-id"] == "ä\r\nb 100%"


def test_without_a_stream_or_with_one_of_other_subjects_the_error_says_what_to_do(
    nats_server: NatsServer, stream: str
) -> None:
    url = f"{nats_server.url}/{stream}"
    with pytest.raises(VecError, match="has no stream"), open_sink(url, create=False):
        pass
    _with(nats_server, lambda jetstream: jetstream.add_stream(name=stream, subjects=[f"{stream}-x.>"]))
    with open_sink(url) as sink, pytest.raises(VecError, match="does not take the subjects") as caught:
        sink.deliver(batch(events(1, 1)))
    assert "-p subject=PREFIX" in (caught.value.hint or "")
    with open_sink(url, subject=f"{stream}-x.vec") as sink:
        sink.deliver(batch(events(1, 1)))
    assert [message.subject for message in _messages(nats_server, stream)] == [f"{stream}-x.vec.notes.document.added"]


def test_a_killed_server_is_unreachable_and_afterwards_has_each_event_once(own_nats: NatsServer) -> None:
    url = f"{own_nats.url}/events"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 5)))
        own_nats.kill()
        with pytest.raises(AttemptFailed) as caught:
            sink.deliver(batch(events(6, 10)))
        assert caught.value.unreachable
    with pytest.raises(AttemptFailed, match="cannot be reached") as caught, open_sink(url):
        pass
    own_nats.start()
    with open_sink(url) as sink:
        sink.deliver(batch(events(6, 10)))
    assert _seqs(own_nats, "events") == list(range(1, 11))


def test_a_batch_that_the_network_cuts_is_there_once(nats_server: NatsServer, stream: str) -> None:
    with Proxy(("127.0.0.1", nats_server.port)) as network:
        url = f"nats://{network.address}/{stream}"
        for first, cut_at in ((1, 0), (6, 700), (11, 1_900)):
            with open_sink(url) as sink:
                network.cut_after(cut_at)
                with pytest.raises(AttemptFailed) as caught:
                    sink.deliver(batch(events(first, first + 4)))
                assert caught.value.unreachable
            network.heal()
            with open_sink(url) as sink:
                sink.deliver(batch(events(first, first + 4)))
        with open_sink(url, timeout_s=0.5) as sink:  # the server has the batch, and its answer is lost
            network.black_hole("replies")
            with pytest.raises(AttemptFailed, match="took longer than"):
                sink.deliver(batch(events(16, 20)))
        network.heal()
        with open_sink(url) as sink:
            sink.deliver(batch(events(16, 20)))
    assert _seqs(nats_server, stream) == list(range(1, 21))


def test_a_login_and_tls_are_checked(tmp_path: Path) -> None:
    if (what := NatsServer.missing()) is not None:
        pytest.skip(f"needs {what}")
    key, certificate = make_certificate(tmp_path)
    secret = tmp_path / "secret"
    more = ("--user", "me", "--pass", "hunter2", "--tlscert", certificate, "--tlskey", key)
    with NatsServer(tmp_path / "data", more=more) as server:
        url = f"tls://me@{server.address}/events"
        secret.write_text("wrong-1\n")
        given: dict[str, Any] = {"ca_file": certificate, "password_file": str(secret)}
        with pytest.raises(VecError, match="refuses the login") as caught, open_sink(url, **given):
            pass
        assert "wrong-1" not in json.dumps(caught.value.to_wire())
        secret.write_text("hunter2\n")
        with pytest.raises(VecError, match="is not trusted"), open_sink(url, password_file=str(secret)):
            pass
        with open_sink(url, **given) as sink:
            sink.deliver(batch(events(1, 3)))
        with open_reader(url, **given) as reader:
            assert seqs([message.body for message in read_until(reader, 3)]) == [1, 2, 3]


# --- source -----------------------------------------------------------------------------------------------------------


def test_a_reader_continues_behind_the_stored_offset(nats_server: NatsServer, stream: str) -> None:
    url = f"{nats_server.url}/{stream}"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 5)))
    with open_reader(url) as reader:
        first, *_ = read_until(reader, 3)
        assert (first.partition, first.offset) == (stream, "1")
        assert first.headers["vec-cursor"] == f"{LOG}:1"
    with open_reader(url, {stream: "3"}) as reader, open_reader(url, start="latest") as late:
        assert reader.lag() == 2
        assert [message.offset for message in read_until(reader, 2)] == ["4", "5"]
        assert (reader.lag(), late.lag()) == (0, 0)
        assert list(late.read(10, 0.05)) == []
        _with(nats_server, lambda jetstream: jetstream.publish(f"{stream}.x", b"6"))
        assert [message.body for message in read_until(reader, 1)] == [b"6"]
        assert [message.body for message in read_until(late, 1)] == [b"6"]


def test_a_stream_that_is_missing_or_ends_before_the_position_is_an_error(nats_server: NatsServer, stream: str) -> None:
    url = f"{nats_server.url}/{stream}"
    with pytest.raises(VecError, match="has no stream"), open_reader(url):
        pass
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 3)))
    with pytest.raises(VecError, match="ends at 3, before the position 9") as caught, open_reader(url, {stream: "9"}):
        pass
    assert caught.value.code == Code.INVALID_CURSOR


def test_a_reader_notices_a_killed_server_and_a_stop(own_nats: NatsServer) -> None:
    url = f"{own_nats.url}/events"
    with open_sink(url) as sink:
        sink.deliver(batch(events(1, 3)))
    with open_reader(url) as reader:
        read_until(reader, 3)
        own_nats.kill()
        with pytest.raises(AttemptFailed) as caught:
            until(lambda: reader.read(10, 0.05) and None, "the end of the connection")
        assert caught.value.unreachable
    own_nats.start()
    stop = threading.Event()
    with open_reader(url, {"events": "1"}, stop=stop) as reader:
        assert [message.offset for message in read_until(reader, 2)] == ["2", "3"]
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(AttemptFailed, match="the connector stops"):
            reader.read(10, 30)


# --- the real door ----------------------------------------------------------------------------------------------------


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def test_a_relay_to_jetstream_keeps_the_order_over_kills_of_either_side(
    instance: Instance, own_nats: NatsServer
) -> None:
    instance.vec("relay", "add", "out", f"{own_nats.url}/events", "--type", "document.added")
    put(instance, "a", "b")
    until(lambda: len(_messages(own_nats, "events")) == 2, "the first messages")
    own_nats.kill()
    put(instance, "c")
    until(lambda: relay(instance)["state"] == "retrying", "the state")
    for pid in connector_pids(instance):
        os.kill(pid, signal.SIGKILL)
    put(instance, "d")
    own_nats.start()
    until(lambda: len(_messages(own_nats, "events")) == 4, "the other messages")
    ids = [json.loads(message.data)["data"]["id"] for message in _messages(own_nats, "events")]
    assert ids == ["a", "b", "c", "d"]
    until(lambda: relay(instance)["state"] == "running", "the state")


def test_a_relay_and_a_source_keep_a_replica_over_a_restart_of_the_server_and_the_process(
    own_nats: NatsServer,
) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as first, Instance({"VEC_EMBEDDER": "hash"}) as second:
        for each in (first, second):
            each.start()
        url = f"{own_nats.url}/replica"
        first.vec("relay", "add", "out", url, "--payload")
        put(first, "a", "b", "c")
        second.vec("source", "add", "in", url, "--library", "default")
        until(lambda: sorted(texts(second)) == ["a", "b", "c"], "the first documents")
        own_nats.restart(killed=True)
        first.vec("delete", "b")
        for pid in connector_pids(second):
            os.kill(pid, signal.SIGKILL)
        put(first, "d")
        until(lambda: "d" in texts(second), "the last document")
        assert texts(second) == texts(first)
        assert sorted(texts(first)) == ["a", "c", "d"]
        shown = until(lambda: (found := source(second))["lag"] == 0 and found, "the lag")
        assert shown["dead_letters"] == 0
