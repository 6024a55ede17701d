"""Peers that break the protocol, stop, or never read: each is ended with a reason, and nobody else notices.

And peers that only do much at once: pipelining, order, back-pressure, cancelling, half-closing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.peer import HELLO, Peer, frame
from vecd import limits
from vecd.client import Client
from vecd.errors import Code
from vecd.jobs.jobs import Jobs
from vecd.jobs.scheduler import Scheduler
from vecd.ops.call import Call
from vecd.ops.service import Service
from vecd.ops.table import OPS, Op
from vecd.server import frame_budget
from vecd.server.listener import Listener
from vecd.server.session import Session
from vecd.wire.frames import encode_frame
from vecd.wire.messages import encode

STALL_S = 1
PATIENCE_S = 60.0  # more than anything here takes; a test that waits so long has failed


class Bystander:
    """Somebody else's client. Whatever another peer does, it is answered, and the daemon stays as large as it was."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._written = 0
        self.works()
        self.before_bytes = self.memory_bytes()

    def memory_bytes(self) -> int:
        return int(self._client.status()["memory_bytes"])

    def works(self) -> None:
        self._client.ping()
        self._written += 1
        wanted = f"bystander-{self._written}"
        done = self._client.ingest([{"id": wanted, "text": f"here stands number {self._written}"}])
        assert done["added"] + done["updated"] + done["unchanged"] == 1
        (found,) = self._client.get([wanted])
        assert found is not None
        hits = list(self._client.search(f"number {self._written}", k=3))
        assert len(hits) == 3 or self._written < 3

    def connections(self) -> int:
        """How many there are, this one included."""
        return int(self._client.status()["connections"])

    def check(self) -> None:
        """It works, and the daemon has not grown by more than one connection may cost."""
        self.works()
        grown = self.memory_bytes() - self.before_bytes
        assert grown < 4 * limits.FRAME_BYTES_MAX, f"the daemon has grown by {grown / limits.MIB:.0f} MiB"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_STALL_S": str(STALL_S), "VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        yield instance


@pytest.fixture
def bystander(instance: Instance) -> Iterator[Bystander]:
    with instance.connect(PATIENCE_S) as client:
        yield Bystander(client)


class LogMark:
    """What has been logged since this was made."""

    def __init__(self, instance: Instance) -> None:
        self._path: Path = instance.settings.log
        self._from = len(self._path.read_bytes())

    def lines(self, *parts: str) -> list[str]:
        """The lines that hold all of these."""
        text = self._path.read_bytes()[self._from :].decode()
        return [line for line in text.splitlines() if all(part in line for part in parts)]


def until(reached: Callable[[], bool], what: str) -> None:
    """Asks again and again; whoever is asked takes a moment to answer."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"


def outlast_the_stall(instance: Instance) -> None:
    """Returns when more than STALL_S have passed for every connection that is there now, by the daemon's own clock."""
    with Peer(instance, greet=False) as silent:
        assert silent.to_the_end()[-1]["error"]["code"] == Code.STALLED


# --- peers that break the protocol -----------------------------------------------------------------------------------

DEEP = b"\x91" * 1_000 + b"\xc0"

BROKEN: dict[str, tuple[bytes, str]] = {
    "a frame over the limit": (HELLO + struct.pack(">I", limits.FRAME_BYTES_MAX + 1), Code.FRAME_TOO_LARGE),
    "the largest length there is": (HELLO + b"\xff\xff\xff\xff" + b"x" * 100_000, Code.FRAME_TOO_LARGE),
    "another protocol": (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", Code.FRAME_TOO_LARGE),
    "a frame over the limit as hello": (struct.pack(">I", limits.FRAME_BYTES_MAX + 1), Code.FRAME_TOO_LARGE),
    "garbage in a frame": (HELLO + encode_frame(b"\xc1\xff\x00garbage"), Code.PROTOCOL_ERROR),
    "garbage as hello": (encode_frame(b"\x93\x01\x02"), Code.PROTOCOL_ERROR),
    "an empty frame": (HELLO + encode_frame(b""), Code.PROTOCOL_ERROR),
    "no map": (HELLO + encode_frame(b"\x90"), Code.PROTOCOL_ERROR),
    "an ext type": (HELLO + encode_frame(b"\x83\xa2op\xa4ping\xa2id\x01\xa1x\xd4\x05a"), Code.PROTOCOL_ERROR),
    "a timestamp": (HELLO + encode_frame(b"\x83\xa2op\xa4ping\xa2id\x01\xa1x\xd6\xff\0\0\0\0"), Code.PROTOCOL_ERROR),
    "too deep": (HELLO + encode_frame(b"\x81\xa1a" + b"\x91" * 100_000), Code.PROTOCOL_ERROR),
    "too many items": (HELLO + encode_frame(b"\x81\xa1a\xdd\xff\xff\xff\xff"), Code.PROTOCOL_ERROR),
    "no hello": (frame("ping", 1), Code.PROTOCOL_ERROR),
    "no op": (HELLO + encode({"id": 1}), Code.PROTOCOL_ERROR),
    "no id": (HELLO + encode({"op": "ping"}), Code.PROTOCOL_ERROR),
    "an id that is no number": (HELLO + encode({"op": "ping", "id": "1"}), Code.PROTOCOL_ERROR),
    "another protocol version": (encode({"op": "hello", "id": 0, "protocol": 99}), Code.VERSION_MISMATCH),
    "no protocol version": (encode({"op": "hello", "id": 0}), Code.VERSION_MISMATCH),
    "a protocol version that is a deep list": (
        encode_frame(b"\x83\xa2op\xa5hello\xa2id\x00\xa8protocol" + DEEP),
        Code.VERSION_MISMATCH,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_peer_that_breaks_the_protocol_is_told_why_and_ended(
    instance: Instance, bystander: Bystander, what: str
) -> None:
    data, code = BROKEN[what]
    mark = LogMark(instance)
    with Peer(instance, greet=False) as peer:
        peer.send(data)
        *before, last = peer.to_the_end()
    assert last["id"] is None
    assert last["error"]["code"] == code
    assert last["error"]["message"]
    if code == Code.FRAME_TOO_LARGE:  # then a hello that came in the same piece may go unanswered
        assert [reply["id"] for reply in before] in ([], [0])
    else:
        assert [reply["id"] for reply in before] == [0] * data.startswith(HELLO)
    assert len(mark.lines("level=warning", "connection ended", f"code={code}")) == 1
    bystander.check()


def test_a_stream_that_ends_inside_a_frame_is_told_of(instance: Instance, bystander: Bystander) -> None:
    for sent in (HELLO[:-1], HELLO + frame("ping", 1)[:-1], HELLO + struct.pack(">I", 1_000)):
        mark = LogMark(instance)
        with Peer(instance, greet=False) as peer:
            peer.send(sent)
            peer.half_close()
            last = peer.to_the_end()[-1]
        assert (last["id"], last["error"]["code"]) == (None, Code.PROTOCOL_ERROR)
        assert mark.lines("connection ended", f"code={Code.PROTOCOL_ERROR}", "ended inside a frame")
    bystander.check()


def test_what_came_before_the_garbage_is_answered(instance: Instance) -> None:
    with Peer(instance) as peer:
        peer.send(frame("ping", 1) + frame("status", 2) + encode_frame(b"garbage"))
        assert [reply["id"] for reply in peer.to_the_end()] == [1, 2, None]


def test_a_peer_that_goes_on_sending_after_its_end_costs_nothing(instance: Instance, bystander: Bystander) -> None:
    with Peer(instance) as peer:
        peer.send(struct.pack(">I", 2**31))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.send(bytes(256 * limits.MIB))
    bystander.check()


def test_an_unknown_op_is_answered_and_the_connection_lives(instance: Instance) -> None:
    with Peer(instance) as peer:
        peer.send(frame("teleport", 1, to="the moon") + frame("hello", 2) + frame("ping", 3))
        assert peer.answer(1)["error"]["code"] == Code.UNSUPPORTED
        assert "'teleport'" in peer.answer(1)["error"]["message"]
        assert peer.answer(2)["error"]["code"] == Code.UNSUPPORTED
        assert peer.answer(3) == {"id": 3, "result": {}}


@pytest.mark.parametrize("before", [True, False], ids=["before the id", "after the id"])
def test_a_map_with_keys_that_are_not_strings_is_answered_and_the_connection_lives(
    instance: Instance, before: bool
) -> None:
    odd, number = {"params": {"a": [{1: "one"}]}}, {"id": 1}
    with Peer(instance) as peer:
        request = {"op": "jobs.submit", "kind": "noop", **(odd if before else number), **(number if before else odd)}
        peer.send(encode(request) + frame("ping", 2))
        assert peer.answer(1)["error"]["code"] == Code.INVALID_REQUEST
        assert "key that is not a string" in peer.answer(1)["error"]["message"]
        assert peer.answer(2) == {"id": 2, "result": {}}


def test_unknown_keys_are_ignored(instance: Instance) -> None:
    with Peer(instance) as peer:
        peer.send(frame("ping", 1, from_the_future={"a": [1, None]}))
        assert peer.answer(1) == {"id": 1, "result": {}}


def test_a_request_number_in_use_is_refused_and_its_first_request_is_answered(instance: Instance) -> None:
    with Peer(instance) as peer:
        ingest = frame("ingest", 5, documents=[{"id": "twice", "text": "the first of two"}])
        peer.send(ingest + frame("ping", 5) + frame("watch", 5) + frame("ping", 6))
        peer.until(lambda: len(peer.answers(5)) == 3 and bool(peer.answers(6)))
        *refused, answered = sorted(peer.answers(5), key=lambda reply: "result" in reply)
        assert [reply["error"]["code"] for reply in refused] == [Code.INVALID_REQUEST] * 2
        assert refused[0]["error"]["field"] == "id"
        assert answered["result"]["failed"] == 0
        peer.send(frame("ping", 5))  # answered, so it is free again
        peer.until(lambda: len(peer.answers(5)) == 4)
        assert peer.answers(5)[-1] == {"id": 5, "result": {}}


@pytest.mark.parametrize(
    ("op", "field"),
    [("get", "ids"), ("ingest", "documents"), ("count", "library"), ("search", "query"), ("search", "k")],
)
@pytest.mark.parametrize("value", [DEEP, b"\x81\xa1a" * 900 + b"\xc0", b"\xc6\x00\x01\x00\x00" + bytes(65_536)])
def test_a_field_of_the_wrong_type_is_named_however_odd_it_is(
    instance: Instance, op: str, field: str, value: bytes
) -> None:
    body = encode({"op": op, "id": 1, "library": "default", "query": "a"})[4:]
    key = encode({field: None})[5:-1]  # without the length, the map's header and the null
    body = bytes([body[0] + 1]) + body[1:] + key + value  # a later key beats an earlier one
    with Peer(instance) as peer:
        peer.send(encode_frame(body) + frame("ping", 2))
        assert peer.answer(2) == {"id": 2, "result": {}}
        error = peer.answer(1).get("error") or peer.answer(1)["result"]["errors"][0]
        assert error["code"] in (Code.INVALID_REQUEST, Code.INVALID_DOCUMENT)
        assert len(error["message"]) < 300


@pytest.mark.parametrize("key", [b"\xa2op", b"\xa2id", b"\xa5title", b"\xa4text", b"\xa5texts", b"\xa8metadata"])
def test_a_document_of_wrong_types_is_refused_alone_however_odd_it_is(instance: Instance, key: bytes) -> None:
    fixed = b"\x83\xa2op\xa6ingest\xa2id\x01\xa9documents\x92"
    good = b"\x82\xa2id\xa4good\xa4text\xa4good"
    with Peer(instance) as peer:
        peer.send(encode_frame(fixed + good + b"\x82\xa4text\xa3bad" + key + DEEP))
        assert "result" in peer.answer(1), peer.answer(1)
        result = peer.answer(1)["result"]
        assert result["failed"] == 1
        assert [(error["index"], error["code"]) for error in result["errors"]] == [(1, Code.INVALID_DOCUMENT)]


# --- peers that stop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "no hello"),
        (HELLO[:3], "no hello"),
        (HELLO[:-1], "no hello"),
        (HELLO + b"\x00", "1 bytes long"),
        (HELLO + frame("ping", 1)[:-1], "bytes long"),
        (HELLO + struct.pack(">I", limits.FRAME_BYTES_MAX) + bytes(100_000), "100004 bytes long"),
    ],
)
def test_a_peer_that_stops_before_it_is_done_is_ended_with_a_reason(
    instance: Instance, bystander: Bystander, sent: bytes, reason: str
) -> None:
    mark = LogMark(instance)
    with Peer(instance, greet=False) as peer:
        peer.send(sent)
        bystander.works()
        last = peer.to_the_end()[-1]
    assert (last["id"], last["error"]["code"]) == (None, Code.STALLED)
    assert reason in last["error"]["message"]
    assert mark.lines("connection ended", f"code={Code.STALLED}", reason)
    bystander.check()


def test_an_idle_peer_is_not_ended(instance: Instance) -> None:
    with Peer(instance) as peer:
        outlast_the_stall(instance)
        peer.send(frame("ping", 1))
        assert peer.answer(1) == {"id": 1, "result": {}}


def test_a_peer_that_hangs_up_without_a_word_is_forgotten(instance: Instance, bystander: Bystander) -> None:
    for _ in range(20):
        with Peer(instance, greet=False) as peer:
            peer.send(HELLO)
    until(lambda: bystander.connections() == 1, "twenty peers to be forgotten")


def test_half_frames_cost_no_more_than_they_are_and_are_given_back(instance: Instance, bystander: Bystander) -> None:
    peers = [Peer(instance) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
            peer.send(struct.pack(">I", limits.FRAME_BYTES_MAX) + bytes(limits.FRAME_BYTES_MAX - 1))
        bystander.works()
        assert bystander.memory_bytes() - bystander.before_bytes < 2 * len(peers) * limits.FRAME_BYTES_MAX
        for peer in peers:
            assert peer.to_the_end()[-1]["error"]["code"] == Code.STALLED
    bystander.check()


# --- peers that do not read -------------------------------------------------------------------------------------------


def test_a_peer_that_sends_and_never_reads_is_ended_and_held_back_until_then(
    instance: Instance, bystander: Bystander
) -> None:
    mark = LogMark(instance)
    pings = b"".join(frame("ping", number) for number in range(1_000))
    deadline = time.monotonic() + PATIENCE_S
    with Peer(instance) as peer:
        peer.socket.setblocking(False)
        sent = held_back = 0
        while True:
            assert time.monotonic() < deadline
            try:
                sent += peer.socket.send(pings)
            except BlockingIOError:
                held_back += 1
                bystander.works()
            except (BrokenPipeError, ConnectionResetError):
                break
    assert held_back
    assert sent < 2 * limits.MIB
    assert mark.lines("connection ended", f"code={Code.STALLED}", "replies have not been read")
    bystander.check()


def test_a_peer_that_is_ended_and_never_reads_is_cut_off(instance: Instance, bystander: Bystander) -> None:
    with Peer(instance) as peer:
        peer.send(frame("?" * 60, 10_000))
        peer.answer(10_000)
        # As many answers as the daemon holds without a thought; the system takes fewer from it.
        count = limits.SEND_BUFFER_BYTES_MAX // len(encode(peer.replies.pop())) - 10
        peer.send(b"".join(frame("?" * 60, 10_000) for _ in range(count)) + encode_frame(b"garbage"))
        until(lambda: bystander.connections() == 1, "the connection to be gone")
        peer.to_the_end()
    assert peer.replies
    bystander.check()


def test_a_peer_that_half_closes_and_never_reads_is_cut_off(instance: Instance, bystander: Bystander) -> None:
    mark = LogMark(instance)
    with instance.connect(PATIENCE_S) as client:
        client.ingest([{"id": f"page-{n}", "text": "a page " * 100} for n in range(100)])
    with Peer(instance) as peer:
        peer.send(b"".join(frame("search", number, query="a page", k=100) for number in range(1, 6)))
        peer.half_close()
        until(lambda: bystander.connections() == 1, "the connection to be gone")
        peer.to_the_end()
    assert mark.lines("connection ended", f"code={Code.STALLED}", "replies have not been read")
    bystander.check()


def test_a_stopped_watcher_is_not_ended_and_gets_everything_when_it_reads_again(
    instance: Instance, bystander: Bystander
) -> None:
    documents, batch = 20_000, 1_000
    with instance.connect(PATIENCE_S) as writer, Peer(instance) as watcher:
        name = "stopped-watcher"
        # No index is built, which would be an event of its own.
        created = writer.request("library.create", library=name, embedder="none", dimension=2, index="flat")
        watcher.send(frame("watch", 1, **{"from": f"{writer.log}:{created['seq']}", "libraries": [name]}))
        for start in range(0, documents, batch):
            writer.ingest([{"id": f"{n:06}", "vector": [n, 1.0]} for n in range(start, start + batch)], name)
        for _ in range(2):
            outlast_the_stall(instance)
            bystander.check()
        watcher.until(lambda: len(watcher.items(1)) >= 2 * documents)
    assert watcher.received_bytes > 8 * limits.SEND_BUFFER_BYTES_MAX  # so it was stuck: nobody could have buffered that
    got = watcher.items(1)
    assert [event["data"]["id"] for event in got if event["type"] == "document.added"] == [
        f"{n:06}" for n in range(documents)
    ]
    first = got[0]["seq"]
    assert [event["seq"] for event in got] == list(range(first, first + 2 * documents))


class SlowTransport(asyncio.Transport):
    """A transport whose peer has read as much as the test says."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.unread_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


@contextlib.contextmanager
def bare_session() -> Iterator[tuple[Listener, Session, SlowTransport]]:
    """A session that has been greeted, without an event loop behind its transport or a store behind its engine."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        jobs = SimpleNamespace(
            engine=SimpleNamespace(
                database=SimpleNamespace(log_id="0"),
                settings=SimpleNamespace(workers=1, heartbeat_s=5.0, create=True, chunk_chars=1_000),
            )
        )
        listener = Listener(Service(cast(Jobs, jobs), cast(Scheduler, None), lambda: None), ours)
        session, transport = Session(listener), SlowTransport(ours)
        session.connection_made(transport)
        session.data_received(HELLO)
        yield listener, session, transport


async def reached(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


def test_a_peer_that_reads_slowly_is_not_one_that_does_not_read() -> None:
    with bare_session() as (_, session, transport):
        transport.unread_bytes = limits.MIB
        session.pause_writing()
        now = time.monotonic()
        assert session.stall_reason(now, 1.0) is None
        for _ in range(20):
            transport.unread_bytes -= 1_000
            now += 0.9
            assert session.stall_reason(now, 1.0) is None
        reason = session.stall_reason(now + 1.1, 1.0)
        assert reason is not None
        assert reason.code == Code.STALLED


def test_answers_that_were_read_meanwhile_do_not_count_as_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport says nothing when the little that waited has been read. Many connections, each with a last answer
    that was counted when it was sent, must not keep others from theirs."""
    monkeypatch.setattr(limits, "UNREAD_BYTES_MAX", limits.MIB)

    async def scenario() -> None:
        with bare_session() as (listener, session, transport):
            transport.unread_bytes = limits.MIB
            session.send({"id": 1, "result": {}})
            transport.unread_bytes = 0  # the peer reads
            another, its_transport = Session(listener), SlowTransport(transport.get_extra_info("socket"))
            another.connection_made(its_transport)
            its_transport.unread_bytes = 1_000
            another.send({"id": 1, "result": {}})
            assert listener.service.budget.unread_bytes == 1_000
            await listener.service.budget.wait_for_readers()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_too_many_unread_answers_end_who_reads_nothing_and_not_who_reads_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UNREAD_BYTES_MAX", limits.MIB)
    monkeypatch.setattr(limits, "UNREAD_CROWDED_S", 0.2)

    async def scenario() -> None:
        with bare_session() as (listener, slow, its_transport):
            stuck, transport = Session(listener), SlowTransport(its_transport.get_extra_info("socket"))
            stuck.connection_made(transport)
            ended: list[Session] = []
            monkeypatch.setattr(Session, "disconnect", lambda self, reason: ended.append(self))
            for session, output in ((slow, its_transport), (stuck, transport)):
                output.unread_bytes = limits.MIB
                session.send({"id": 1, "result": {}})
                session.pause_writing()
            while not ended:
                its_transport.unread_bytes -= 1_000
                await asyncio.sleep(0.01)
            assert set(ended) == {stuck}

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_frame_that_cannot_be_decoded_for_want_of_memory_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with bare_session() as (listener, session, _), monkeypatch.context() as broken:

            def decode(payload: bytes) -> Any:
                raise MemoryError

            broken.setattr(frame_budget, "decode_request", decode)
            session.data_received(frame("ping", 1, padding=bytes(100_000)))
            await reached(lambda: session.closed)
            broken.undo()
            another = Session(listener)
            another.connection_made(SlowTransport(session._transport.get_extra_info("socket")))
            another.data_received(HELLO)
            another.data_received(frame("ping", 1, padding=bytes(100_000)))
            await reached(lambda: another._decoding is None)
            assert not another.closed
            listener.frames.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_who_does_not_read_and_holds_the_backlog_is_ended_though_its_answer_comes_in_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "BACKLOG_BYTES_MAX", limits.MIB)

    async def scenario() -> None:
        async def paged(call: Call) -> dict[str, Any]:
            await call.items([{}])
            await asyncio.Event().wait()
            return {}

        monkeypatch.setitem(OPS, "paged", Op(paged))
        with bare_session() as (listener, session, _):
            session.data_received(frame("paged", 1, padding=bytes(2 * limits.MIB)))
            await reached(lambda: session._runner.is_streaming)
            session.pause_writing()
            assert listener.service.budget.backlog_full
            reason = session.stall_reason(time.monotonic() + 1.1, 1.0)
            assert reason is not None
            assert reason.code == Code.STALLED
            session._runner.cancel_all()
            await reached(lambda: session._runner.is_idle)
            listener.frames.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_frame_that_waits_for_room_is_admitted_when_a_larger_one_before_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "INCOMING_BYTES_MAX", limits.MIB)
    with bare_session() as (listener, session, _):
        told: list[int] = []
        arriving = listener.frames
        large = Session(listener)
        monkeypatch.setattr(session, "room_for_frame", told.append)
        assert arriving.admit(Session(listener), limits.MIB // 2)
        assert not arriving.admit(large, limits.MIB)
        assert not arriving.admit(session, limits.MIB // 4)
        arriving.forget(large)
        assert told == [limits.MIB // 4]
        assert not arriving.frames_wait


def test_requests_of_a_peer_that_is_gone_are_backlog_until_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise whoever sends and hangs up, again and again, makes the daemon hold more than its backlog may be."""

    async def scenario() -> None:
        finish = asyncio.Event()

        async def wait(call: Call) -> dict[str, Any]:
            await finish.wait()
            return {}

        monkeypatch.setitem(OPS, "wait", Op(wait))
        with bare_session() as (listener, session, _):
            request = frame("wait", 1, padding=bytes(10_000))
            session.data_received(request)
            assert listener.service.budget.backlog_bytes > len(request) - 4
            await asyncio.sleep(0)  # the request's task begins
            session.connection_lost(None)
            assert listener.service.connections == 0
            assert listener.service.budget.backlog_bytes > len(request) - 4
            finish.set()
            await asyncio.gather(*session._runner.sender.tasks.values())
            await asyncio.sleep(0)  # and then the callbacks of the task
            assert listener.service.budget.backlog_bytes == 0

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


# --- peers that do much at once ---------------------------------------------------------------------------------------


def test_pipelined_requests_of_all_kinds_are_answered_exactly_once(instance: Instance, bystander: Bystander) -> None:
    pings, ingests, searches = range(1_000, 2_000), range(2_000, 2_030), range(3_000, 3_030)
    with instance.connect(PATIENCE_S) as client, Peer(instance) as peer:
        requests = [frame("ping", number) for number in pings]
        requests += [frame("search", number, query="number", k=2) for number in searches]
        random.Random(1).shuffle(requests)
        for place, number in enumerate(ingests):  # they stand among the others, in their own order
            document = {"id": f"pipelined-{number}", "text": f"one of many, {number}", "title": str(time.time_ns())}
            requests.insert(place * 30, frame("ingest", number, documents=[document]))
        watch = frame("watch", 1, **{"from": f"{client.log}:{client.status()['seq']}", "types": ["document.*"]})
        peer.send(watch + b"".join(requests))
        everything = {*pings, *ingests, *searches}
        peer.until(lambda: everything <= {reply["id"] for reply in peer.replies})
        peer.until(lambda: len(peer.items(1)) >= len(ingests))
        peer.send(frame("cancel", 2, target=1))
        peer.until(lambda: any("end" in reply for reply in peer.answers(1)))
        peer.half_close()
        peer.to_the_end()
    counts = Counter(reply["id"] for reply in peer.replies if reply["id"] != 1)
    assert counts == dict.fromkeys([2, *everything], 1)
    assert [reply for reply in peer.replies if "error" in reply] == []
    assert [event["data"]["id"] for event in peer.items(1)] == [f"pipelined-{number}" for number in ingests]
    assert [reply for reply in peer.answers(1) if "items" not in reply] == [peer.answers(1)[-1]]
    bystander.check()


def test_cancel_ends_its_subscription_and_nothing_else(instance: Instance) -> None:
    with instance.connect(PATIENCE_S) as client, Peer(instance) as peer:
        here = f"{client.log}:{client.status()['seq']}"
        padding = [{"id": f"cancel-{n}", "text": f"{n} " * 200, "title": here} for n in range(200)]
        peer.send(frame("watch", 1, **{"from": here}) + frame("watch", 2, **{"from": here}))
        client.ingest([{"id": "cancel-first", "text": "seen by both", "title": here}])
        peer.until(lambda: bool(peer.items(1)) and bool(peer.items(2)))
        peer.send(
            frame("ingest", 3, documents=padding)
            + frame("cancel", 4, target=3)
            + frame("cancel", 5, target=1)
            + frame("cancel", 6, target=99)
        )
        assert peer.answer(4)["result"] == {"cancelled": False}  # a write is no subscription
        assert peer.answer(5)["result"] == {"cancelled": True}
        assert peer.answer(6)["result"] == {"cancelled": False}
        peer.until(lambda: "end" in peer.answers(1)[-1])
        end = peer.answers(1)[-1]["end"]
        assert end["reason"] == "cancelled"
        assert end["cursor"] == f"{client.log}:{peer.items(1)[-1]['seq']}"
        assert peer.answer(3)["result"]["failed"] == 0
        brought = len(peer.answers(1))
        client.ingest([{"id": "cancel-last", "text": "seen by one", "title": here}])
        peer.until(lambda: any(event["data"].get("id") == "cancel-last" for event in peer.items(2)))
        peer.send(frame("cancel", 7, target=1))
        assert peer.answer(7)["result"] == {"cancelled": False}
        assert len(peer.answers(1)) == brought
        peer.send(frame("ping", 1))  # its number is free again
        peer.until(lambda: len(peer.answers(1)) == brought + 1)


def test_a_subscription_that_is_cancelled_before_it_began_ends_too(instance: Instance) -> None:
    with Peer(instance) as peer:
        peer.send(frame("watch", 1) + frame("cancel", 2, target=1) + frame("ping", 3))
        assert peer.answer(2)["result"] == {"cancelled": True}
        assert peer.answer(1)["end"]["reason"] == "cancelled"
        assert peer.answer(3) == {"id": 3, "result": {}}


def test_writes_of_one_connection_take_effect_in_the_order_they_were_sent(instance: Instance) -> None:
    """Texts are slow to embed, vectors need none, deletes touch nothing: each overtakes the one before if it can."""
    name, rounds = "in-order", 12
    requests: list[bytes] = []
    wanted: list[tuple[str, str]] = []  # type of event, title
    number = 100
    with instance.connect(PATIENCE_S) as client, Peer(instance) as peer:
        created = client.request("library.create", library=name)
        for turn in range(rounds):
            slow = [{"id": f"pad-{turn}-{n}", "text": f"padding {turn} {n} " * 60} for n in range(150)]
            quick = {"id": "x", "vector": struct.pack("<256f", *[float(turn + 1)] * 256), "title": f"{turn} quick"}
            writes = [
                frame("ingest", number, library=name, documents=[*slow, {"id": "x", "text": "t", "title": str(turn)}]),
                frame("ingest", number + 1, library=name, documents=[quick]),
            ]
            wanted += [("document.updated" if wanted and turn % 3 else "document.added", str(turn))]
            wanted += [("document.updated", f"{turn} quick")]
            if turn % 3 == 2:
                writes.append(frame("delete", number + 2, library=name, ids=["x"]))
                wanted += [("document.deleted", f"{turn} quick")]
            number += len(writes)
            requests += writes
        peer.send(frame("watch", 1, **{"from": f"{client.log}:{created['seq']}", "libraries": [name]}))
        peer.send(b"".join(requests[:-1]))  # so that the last is no delete
        for each in range(100, number - 1):
            assert "result" in peer.answer(each), peer.answer(each)

        def of_x() -> list[tuple[str, str]]:
            return [
                (event["type"], event["data"]["title"]) for event in peer.items(1) if event["data"].get("id") == "x"
            ]

        peer.until(lambda: len(of_x()) >= len(wanted) - 1)
        assert of_x() == wanted[:-1]
        (last,) = client.get(["x"], name)
        assert last is not None
        assert last["title"] == wanted[-2][1]
        assert client.count(name)["documents"] == rounds * 150 + 1
        history.check(client)


def test_a_library_can_be_made_and_filled_without_waiting_for_it(instance: Instance) -> None:
    """Writes take effect in the order they were sent, so a library that is being made is there for the next write."""
    name = "made-and-filled"
    with Peer(instance) as peer:
        peer.send(
            frame("library.create", 1, library=name)
            + frame("ingest", 2, library=name, documents=[{"id": "a", "text": "one"}, {"id": "b", "text": "two"}])
            + frame("delete", 3, library=name, ids=["a"])
            + frame("library.delete", 4, library=name)
            + frame("delete", 5, library=name, ids=["b"])
        )
        assert peer.answer(1)["result"]["name"] == name
        assert "result" in peer.answer(2), peer.answer(2)
        assert peer.answer(2)["result"]["added"] == 2
        assert peer.answer(3)["result"]["deleted"] == 1
        assert peer.answer(4)["result"]["documents"] == 1
        assert peer.answer(5)["error"]["code"] == Code.NOT_FOUND


def test_a_delete_right_behind_the_first_ingest_of_all_deletes() -> None:
    """The library `default` is made by its first write, and a delete that was sent behind it must not overtake it."""
    with Instance({"VEC_EMBEDDER": "hash"}) as fresh:
        fresh.start()
        with Peer(fresh) as peer:
            peer.send(
                frame("ingest", 1, documents=[{"id": "a", "text": "one"}, {"id": "b", "text": "two"}])
                + frame("delete", 2, ids=["a", "missing"])
            )
            assert peer.answer(1)["result"]["added"] == 2
            result = peer.answer(2)["result"]
            assert (result["deleted"], result["missing_ids"]) == (1, ["missing"])
            peer.send(frame("count", 3))
            assert peer.answer(3)["result"]["documents"] == 1


def test_a_half_closed_connection_still_gets_all_its_answers(instance: Instance) -> None:
    with Peer(instance, greet=False) as peer:
        documents = [{"id": f"half-{n}", "text": f"half closed {n} " * 50} for n in range(300)]
        numbers = range(10, 10 + 4 * limits.UNANSWERED_MAX)  # more than are taken at once
        peer.send(HELLO + frame("ingest", 1, documents=documents) + frame("search", 2, query="half closed", k=5))
        peer.send(b"".join(frame("get", number, ids=["half-1"]) for number in numbers) + frame("list", 3))
        peer.half_close()
        peer.to_the_end()
    assert peer.answers(1)[0]["result"]["failed"] == 0
    assert "hits" in peer.answers(2)[0]["result"]
    assert "end" in peer.answers(3)[-1]
    assert [len(peer.answers(number)) for number in (0, 1, 2, *numbers)] == [1] * (3 + len(numbers))
    assert [reply for reply in peer.replies if "error" in reply] == []


def test_a_peer_that_only_half_closes_is_let_go(instance: Instance) -> None:
    for sent in (b"", HELLO):
        with Peer(instance, greet=False) as peer:
            peer.send(sent)
            peer.half_close()
            assert [reply["id"] for reply in peer.to_the_end()] == [0] * bool(sent)


def peak_bytes(pid: int) -> int:
    """The most memory a process ever held."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how large a process has been at most")
def test_large_writes_that_wait_stay_within_bounds_and_are_all_answered() -> None:
    """Three connections send 200 MiB each, at once and without reading an answer."""
    components, per_frame, frames, name = 16_384, 128, 25, "large"
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        pid = instance.start().pid
        with instance.connect(PATIENCE_S) as client, contextlib.ExitStack() as stack:
            client.request("library.create", library=name, embedder="none", dimension=components)
            vectors = [struct.pack("<f", float(n + 1)) * components for n in range(per_frame)]
            documents = [{"id": f"large-{n}", "vector": vector} for n, vector in enumerate(vectors)]
            assert client.ingest(documents, name)["added"] == per_frame
            before = peak_bytes(pid)
            peers = [stack.enter_context(Peer(instance)) for _ in range(3)]
            slow = frame(
                "ingest", 0, documents=[{"id": f"slow-{n}", "text": f"{n} words " * 400} for n in range(1_000)]
            )
            for peer in peers:
                peer.send(slow)  # all that follows waits for it
            sent = 0
            for number in range(1, frames + 1):  # always the same, so that nothing but the waiting takes memory
                data = frame("ingest", number, library=name, documents=documents)
                for peer in peers:
                    peer.send(data)
                    sent += len(data)
            for peer in peers:
                for number in range(1, frames + 1):
                    assert peer.answer(number)["result"]["unchanged"] == per_frame
                assert len(peer.replies) == 1 + frames
            grown = peak_bytes(pid) - before
    assert sent > 590 * limits.MIB
    # A connection's share and what is made of it, the frame that passed it, one that arrives and one being decoded.
    allowed = len(peers) * (2 * limits.UNANSWERED_BYTES_MAX + 3 * limits.FRAME_BYTES_MAX)
    assert grown < allowed, f"it grew by {grown / limits.MIB:.0f} MiB for {sent / limits.MIB:.0f} MiB that waited"
