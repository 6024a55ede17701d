"""Batches for many watches at once: what is shared, what it counts, and who is woken first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest

from vecd import limits
from vecd.errors import VecError
from vecd.feed import batches, payloads
from vecd.feed.batches import EventBatch
from vecd.feed.channels import Channel, Channels
from vecd.feed.positions import Position
from vecd.feed.selection import EventSelection
from vecd.filters import expressions
from vecd.store import documents, libraries
from vecd.store.catalogue import Library
from vecd.store.database import Database
from vecd.store.documents import DocumentBatch, Entry

_PLAN = Library(0, "notes", 2, "cosine", "flat", "none", 1_000)
_WAIT_S = 30


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Documents 0 to 9 with their number as metadata `n`; then 4 to 9 again, with 100 more."""
    made = Database(tmp_path / "vec.db", lambda _: None, unexpected)
    made.open()
    made.submit(lambda tx: libraries.create(tx, _PLAN)).result(_WAIT_S)
    for first, more in ((0, 0), (4, 100)):
        entries = [
            Entry(place, str(n), False, None, f'{{"n": {n + more}}}', f"{n + more:032x}", place, 1)
            for place, n in enumerate(range(first, 10))
        ]
        texts = [f"text {entry.id}" for entry in entries]
        batch = DocumentBatch(entries, [*texts], [*texts], np.ones((len(texts), 2), np.float32))
        made.submit(
            lambda tx, batch=batch: documents.write(tx, tx.catalogue.find("notes"), batch)  # type: ignore[misc]
        ).result(_WAIT_S)
    yield made
    made.close()


def test_selections_with_equal_results_share_their_batches_and_others_do_not(database: Database) -> None:
    encoded: list[bytes] = []

    def encode(body: dict[str, Any]) -> Sized:
        encoded.append(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
        return encoded[-1]

    def selection(where: str = "", **fields: Any) -> EventSelection:
        return EventSelection(where=expressions.parse((where,)) if where else (), payload=True, **fields)

    alike = [selection("n < 1000"), selection("n < 2000 and not (n = 3000)"), selection("n >= 0")]
    others = [
        selection("n < 100"),  # the same rows, but the later documents leave it
        selection("n < 4"),
        selection("n < 4", replaced=True),
        selection("n < 4", types=frozenset(["document.added"])),
        selection(),
        EventSelection(where=alike[0].where),
    ]
    wanted = [(each, encode) for each in (*alike, *others)]
    seq, found, _ = batches.read_for_all(database, wanted, 0)
    assert seq == database.head
    shared, *its = [[batch.body for batch in each or ()] for each in found]
    assert len(shared) == 1
    assert shared[0] is its[0][0] is its[1][0]
    assert len(encoded) == 1 + len(others)
    for each, made in zip((*alike, *others), found, strict=True):
        assert made is not None
        assert [batch.body for batch in made] == [batches.read(database, each, encode, 0, database.head).body]


def test_documents_that_several_selections_want_are_read_once_and_as_far_as_there_is_space_for_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    contents = documents.contents

    def counted(db: Any, versions: list[tuple[int, int]], **how: Any) -> Any:
        read.extend(label for label, _ in versions)
        return contents(db, versions, **how)

    monkeypatch.setattr(documents, "contents", counted)
    wanted = [
        (EventSelection(where=expressions.parse((f"n < {n}",)), payload=True), orjson.dumps) for n in range(1, 10)
    ]
    _, found, _ = batches.read_for_all(database, wanted, 0)
    # Documents 0 to 8, and the later versions of 4 to 8, which leave the filters.
    assert len(read) == len(set(read)) == 14
    read.clear()
    monkeypatch.setattr(payloads, "_KEPT_BYTES", 2 * len("text 0"))
    assert batches.read_for_all(database, wanted, 0)[1] == found
    assert len(set(read)) == 14
    assert len(read) > 30


def test_what_several_rings_hold_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    channels = Channels(cast(Database, SimpleNamespace(head=0)), cast(Any, None), cast(Any, None), limits.HEARTBEAT_S)
    monkeypatch.setattr(limits, "RINGS_BYTES_MAX", 10_000)
    alike = [EventBatch(seq - 1, Position(seq), 1, seq, bytes(900)) for seq in range(1, 11)]
    for number in range(20):
        channel = channels._channels[EventSelection(types=frozenset([str(number)])), cast(Any, None)] = Channel(0)
        for batch in alike:
            channel.append(batch)
    channels._shrink()
    assert [channel.start for channel in channels._channels.values()] == [0] * 20
    own = EventBatch(10, Position(11), 1, 11, bytes(5_000))
    next(iter(channels._channels.values())).append(own)
    channels._shrink()
    held = {id(batch): len(batch.body or ()) for each in channels._channels.values() for batch in each.batches}
    assert 8_000 < sum(held.values()) <= 10_000
    assert next(iter(channels._channels.values())).next_after(10) is own


def test_watches_with_little_to_send_are_woken_first_and_those_with_much_one_by_one() -> None:
    async def scenario() -> list[str]:
        channels = Channels(
            cast(Database, SimpleNamespace(head=0)), cast(Any, None), cast(Any, None), limits.HEARTBEAT_S
        )
        order: list[str] = []
        sizes = {"large 1": limits.MIB, "large 2": limits.MIB, "small 1": 10, "small 2": 20}
        made: list[Channel] = []

        async def watch(name: str, channel: Channel) -> None:
            await channel.changed.wait()
            order.append(name)
            asyncio.get_running_loop().call_soon(order.append, f"others after {name}")

        tasks = []
        for name, size in sizes.items():
            made.append(Channel(0))
            made[-1].append(EventBatch(0, Position(1), 1, 1, bytes(size)))
            tasks.append(asyncio.create_task(watch(name, made[-1])))
        await asyncio.sleep(0)
        await channels._notify(made)
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        return order

    order = asyncio.run(scenario())
    watches = [each for each in order if not each.startswith("others")]
    assert watches == ["small 1", "small 2", "large 1", "large 2"]
    assert order.index("others after large 1") < order.index("large 2")
