"""One request, or one peer, must not freeze or exhaust the daemon for everybody else.

Each test sends what costs much and asks, over another connection, that the daemon answers meanwhile; or looks at what
the daemon's memory has grown by. `python -m tests.fuzz.attacks` measures the same, and more, at full size.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.fuzz.attacks import resident_mib
from tests.support.instance import Instance
from tests.support.peer import Peer, frame
from vecd import limits
from vecd.client import Client
from vecd.errors import Code, VecError, nearest
from vecd.feed.batches import EventBatch
from vecd.feed.channels import Channel, Channels
from vecd.feed.positions import Position
from vecd.feed.selection import EventSelection
from vecd.jobs.jobs import Jobs
from vecd.jobs.scheduler import Scheduler
from vecd.ops.budget import Budget
from vecd.ops.service import Service
from vecd.server.frame_budget import FrameBudget
from vecd.server.listener import Listener
from vecd.server.session import Owner, Session
from vecd.store.database import Database
from vecd.wire.frames import encode_frame

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        yield instance


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect(PATIENCE_S) as client:
        yield client


def peak_mib(instance: Instance) -> float:
    pid = instance.pid()
    assert pid is not None
    return resident_mib(pid)


# --- long strings -----------------------------------------------------------------------------------------------------

LONG = "x" * (4 * limits.MIB)


@pytest.mark.parametrize(
    ("op", "fields", "named"),
    [
        ("watch", {"types": [LONG]}, "types"),
        ("watch", {"types": ["*"] * 1_000}, "types"),
        ("watch", {"libraries": [LONG]}, "libraries"),
        ("watch", {"where": [LONG]}, "where"),
        ("get", {"ids": [LONG]}, "ids"),
        ("delete", {"ids": [LONG]}, "ids"),
        ("jobs.list", {"states": [LONG]}, "states"),
        ("jobs.pause", {"kinds": [LONG]}, "kinds"),
        ("library.create", {"library": "some", "parameters": {LONG: 1}}, "parameters"),
        ("jobs.submit", {"kind": "backup", "params": {LONG: 1}}, "params"),
        ("search", {"query": LONG}, "query"),
        ("search", {"query": LONG.encode()}, "query"),
        ("library.show", {"library": LONG[:100_000]}, "library"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_long_string_is_refused_shortly_wherever_it_stands(
    instance: Instance, op: str, fields: dict[str, Any], named: str
) -> None:
    with Peer(instance) as peer:
        began = time.monotonic()
        peer.send(frame(op, 1, **fields) + frame("ping", 2))
        error = peer.answer(1)["error"]
        assert time.monotonic() - began < 10  # difflib on it takes minutes
        assert error["code"] in (Code.INVALID_REQUEST, Code.INVALID_FILTER, Code.NOT_FOUND)
        assert named in (error.get("field"), *error)
        assert all(len(value) <= limits.ERROR_CHARS_MAX for value in error.values() if isinstance(value, str))
        assert peer.received_bytes < 10_000
        assert peer.answer(2) == {"id": 2, "result": {}}


def test_the_errors_of_a_whole_batch_fit_one_answer(client: Client) -> None:
    """However long what they quote is."""
    wide = "\N{GRINNING FACE}" * 400
    documents = [{"text": "t", f"{wide}{number}": 1} for number in range(limits.BATCH_DOCUMENTS_MAX)]
    answer = client.request("ingest", documents=documents)
    assert answer["failed"] == len(documents)
    assert [error["index"] for error in answer["errors"]] == list(range(len(documents)))
    assert {error["code"] for error in answer["errors"]} == {Code.INVALID_DOCUMENT}
    (error,) = client.request("ingest", documents=documents[:1])["errors"]
    assert len(error["field"]) == len(wide) + 1  # a few errors quote more


def test_an_error_can_be_sent_whatever_it_quotes() -> None:
    error = VecError(
        Code.INVALID_REQUEST, "m" * 5_000, "half \ud800 a pair", field=b"x" * 5_000, number=2**70, some=[{"a": object}]
    )
    wire = error.to_wire()
    assert (len(wire["message"]), len(wire["field"])) == (limits.ERROR_CHARS_MAX,) * 2
    assert (wire["hint"], wire["number"]) == ("half ? a pair", str(2**70))
    assert frame("an error", 1, error=wire)


def test_a_word_has_a_nearest_one_only_if_looking_for_it_is_cheap() -> None:
    assert nearest("serach", ["search", "watch"]) == "search"
    assert nearest("s" * 100_000, ["search"]) is None
    assert nearest("search", ["x" * 10_000_000, "search1"]) == "search1"
    began = time.monotonic()
    nearest("a" * 60, ["a" * 59 + str(n) for n in range(50_000)])
    assert time.monotonic() - began < 5


# --- requests that are larger than their frame ------------------------------------------------------------------------

#: An array of 16,383 empty maps.
MAPS = b"\xdc\x3f\xff" + b"\x80" * 0x3FFF


def of_maps(rows: int, number: int = 1) -> bytes:
    """An ingest of so many arrays of empty maps: a byte each in the frame, and some seventy as an object."""
    body = b"\x83\xa2op\xa6ingest\xa2id" + bytes([number]) + b"\xa9documents\xdc" + rows.to_bytes(2, "big")
    return encode_frame(body + MAPS * rows)


def test_a_request_that_takes_much_more_memory_than_its_frame_is_refused_and_the_connection_lives(
    instance: Instance,
) -> None:
    before = peak_mib(instance)
    with Peer(instance) as one, Peer(instance) as two:
        for peer in (one, two):  # 1.2 GiB each
            peer.send(of_maps(1_000) + frame("ping", 2))
        for peer in (one, two):
            error = peer.answer(1)["error"]
            assert (error["code"], peer.answer(2)) == (Code.TOO_LARGE, {"id": 2, "result": {}})
    assert peak_mib(instance) - before < 1.5 * limits.REQUEST_BYTES_MAX / limits.MIB


def test_small_requests_are_answered_while_large_ones_are_decoded(instance: Instance, client: Client) -> None:
    with Peer(instance) as peer:
        peer.send(of_maps(100))  # 190 MiB
        slowest_s = 0.0
        asked = 0
        peer.socket.setblocking(False)
        while not peer.answers(1):
            with contextlib.suppress(BlockingIOError):
                peer.read()
            began = time.monotonic()
            client.ping()
            asked += 1
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert peer.answer(1)["result"]["failed"] == 100
    assert asked > 3
    assert slowest_s < 5


def test_requests_of_a_connection_keep_their_order_whatever_their_size(instance: Instance) -> None:
    """Large frames are decoded elsewhere; what comes behind them waits."""
    filler = [{"id": f"filler-{n}", "text": "t", "metadata": {"m": "x" * 1_000}} for n in range(200)]
    with Peer(instance) as peer:
        for number in range(1, 21, 2):
            value = [{"id": "ordered", "text": "t", "title": str(number)}]
            peer.send(frame("ingest", number, documents=[*value, *filler]))
            peer.send(frame("ingest", number + 1, documents=[{**value[0], "title": str(number + 1)}]))
        for number in range(1, 21):
            assert peer.answer(number)["result"]["failed"] == 0
        peer.send(frame("get", 99, ids=["ordered"]))
        assert peer.answer(99)["result"]["documents"][0]["title"] == "20"
        seqs = [peer.answer(number)["result"]["seq"] for number in range(1, 21)]
        assert seqs == sorted(seqs)


# --- frames that do not come to an end --------------------------------------------------------------------------------


def test_half_frames_hold_a_bounded_amount_and_make_room_for_others() -> None:
    """Slow peers hold all the room that there is for large frames; a large write comes through after a while."""
    size = 15 * limits.MIB
    with Instance({"VEC_EMBEDDER": "hash", "VEC_STALL_S": "2"}) as instance, contextlib.ExitStack() as stack:
        instance.start()
        before = peak_mib(instance)
        peers = [stack.enter_context(Peer(instance, patience_s=0.5)) for _ in range(12)]
        for peer in peers:
            with contextlib.suppress(TimeoutError):  # the later ones are not read
                peer.send(size.to_bytes(4, "big") + bytes(size - limits.MIB))
        grown = peak_mib(instance) - before
        assert grown < 1.5 * limits.INCOMING_BYTES_MAX / limits.MIB
        with instance.connect(PATIENCE_S) as client:
            documents = [{"id": f"{n}", "text": "t", "metadata": {"m": "x" * 200_000}} for n in range(10)]
            assert client.ingest(documents)["added"] == 10


def test_a_frame_that_trickles_in_is_too_slow() -> None:
    clock_s = 1_000.0
    session = Session(
        cast(Owner, SimpleNamespace(service=SimpleNamespace(budget=Budget()), frames=FrameBudget(Budget())))
    )
    session._greeted, session._transport = (
        True,
        cast(asyncio.Transport, SimpleNamespace(get_write_buffer_size=lambda: 0, is_closing=lambda: False)),
    )
    session._decoder.feed((1_000_000).to_bytes(4, "big") + bytes(64 * limits.KIB))
    session._since_frame = clock_s
    for after_s, ended in ((1.0, False), (10.9, False), (11.2, True)):
        session._since_read = clock_s + after_s  # a byte has just come
        reason = session.stall_reason(clock_s + after_s, 10.0)
        assert (reason is not None) == ended
    assert reason is not None
    assert "too slow" in reason.message


# --- answers that are not read ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laden() -> Iterator[Instance]:
    """A library of 50 MiB of metadata."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect(PATIENCE_S) as client:
            for part in range(5):
                metadata = {"m": "x" * 200_000, "part": part}
                client.ingest([{"id": f"{part}-{n}", "text": f"t {n}", "metadata": metadata} for n in range(52)])
        yield instance


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("list", {}),
        ("get", {"ids": [f"{part}-{n}" for n in range(16) for part in range(5)]}),
        ("get", {"ids": [f"1-{n}" for n in range(16)]}),
        ("search", {"query": "t", "k": 100}),
        ("search", {"query": "t", "k": 200}),
        ("watch", {"from": "beginning", "payload": True}),
        ("watch", {"snapshot": True, "payload": True}),
    ],
    ids=["list", "get many", "get", "search", "search many", "watch", "watch a snapshot"],
)
def test_answers_are_made_as_they_are_read(laden: Instance, op: str, fields: dict[str, Any]) -> None:
    """60 requests, 3 GiB of answers, and a peer that reads none of it: a few messages are made, and no more."""
    before = peak_mib(laden)
    with Peer(laden) as peer, laden.connect(PATIENCE_S) as client:
        peer.send(b"".join(frame(op, number, **fields) for number in range(1, 61)))
        for _ in range(20):  # as long as it takes to do as much for somebody who reads
            assert client.get(["1-1"])[0] is not None
            assert len(list(client.search("t", k=5))) == 5
        assert peak_mib(laden) - before < 300
        peer.socket.settimeout(PATIENCE_S)
        while peer.received_bytes < 5 * limits.MIB:  # and when it reads, they come
            peer.read()
            assert not peer.ended
            peer.replies.clear()


def test_when_too_much_is_not_read_those_who_hold_most_are_ended(
    laden: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []

    async def scenario() -> None:
        monkeypatch.setattr(limits, "UNREAD_CROWDED_S", 0.01)
        engine = SimpleNamespace(database=SimpleNamespace(log_id="0"), settings=SimpleNamespace(workers=1))
        jobs = SimpleNamespace(engine=engine)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            listener = Listener(Service(cast(Jobs, jobs), cast(Scheduler, None), lambda: None), ours)

            class Held:
                def __init__(self, name: str, size: int, blocked_s: float) -> None:
                    self.name, self.unread_bytes, self._blocked_s = name, size, blocked_s
                    listener.service.budget.unread_changed(size)

                def update_unread(self, now: float) -> None:
                    """Nothing was read."""

                def blocked_s(self, now: float) -> float:
                    return self._blocked_s

                def disconnect(self, reason: VecError) -> None:
                    assert reason.code == Code.STALLED
                    held.append(self.name)
                    listener.service.budget.unread_changed(-self.unread_bytes)

            third = limits.UNREAD_BYTES_MAX // 3
            sessions = [Held("small", third - 1, 9), Held("moving", 2 * third, 0), Held("large", third + 5, 9)]
            listener._sessions = cast(set[Session], set(sessions))
            await asyncio.wait_for(listener.service.budget.wait_for_readers(), PATIENCE_S)

    asyncio.run(scenario())
    assert held == ["large"]


# --- watches ----------------------------------------------------------------------------------------------------------


def test_rings_of_many_views_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    store = cast(Database, SimpleNamespace(head=0))
    all_channels = Channels(store, cast(Any, None), cast(Any, None), limits.HEARTBEAT_S)
    monkeypatch.setattr(limits, "RINGS_BYTES_MAX", 10_000)
    for number in range(20):
        channel = all_channels._channels[EventSelection(types=frozenset([str(number)])), cast(Any, None)] = Channel(0)
        for seq in range(1, 11):
            channel.append(EventBatch(seq - 1, Position(seq), 1, seq, bytes(10 * (number + 1))))
    all_channels._shrink()
    channels = list(all_channels._channels.values())
    assert 9_000 < sum(channel.size_bytes for channel in channels) <= 10_000
    for channel in channels:  # what is left is the newest, without a gap; who needs more reads the store
        assert channel.next_after(10) is None
        if channel.size_bytes:
            page = channel.next_after(channel.start)
            assert isinstance(page, EventBatch)
            assert page.seq == channel.start + 1
        else:
            assert channel.start == 10
    assert channels[0].size_bytes == 100  # the small ones kept theirs


def test_watches_with_costly_filters_miss_nothing_and_hold_nobody_up(instance: Instance, client: Client) -> None:
    count, tests, turns = 20, limits.FILTER_TESTS_MAX, 8
    with Peer(instance) as costly, Peer(instance) as other:
        for number in range(1, count + 1):
            where = " or ".join(f"n = {number + 1_000 * n}" for n in range(tests))
            costly.send(frame("watch", number, where=[where], types=["document.added"]))
        for number in range(1, count + 1):
            costly.answer(number)
        other.send(frame("watch", 1, types=["document.added"], libraries=["default"]))
        other.answer(1)
        took_s = []
        for turn in range(1, turns + 1):
            began = time.monotonic()
            client.ingest([{"id": f"costly-{turn}", "text": "t", "metadata": {"n": turn}}])
            other.until(lambda turn=turn: len(other.items(1)) >= turn)  # type: ignore[misc]
            took_s.append(time.monotonic() - began)
        assert sorted(took_s)[turns // 2] < 2
        costly.until(lambda: all(costly.items(number) for number in range(1, turns + 1)))
        for number in range(1, turns + 1):
            assert [event["data"]["id"] for event in costly.items(number)] == [f"costly-{number}"]
