"""Hits: what is kept in memory is what is in the store, and no more than its bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vecd import limits
from vecd.engine.damage import Damage
from vecd.engine.hit_cache import HitCache
from vecd.errors import VecError
from vecd.store import documents, libraries
from vecd.store.catalogue import Library
from vecd.store.database import Database
from vecd.store.documents import DocumentBatch, Entry
from vecd.store.transaction import Transaction

_PLAN = Library(0, "notes", 2, "cosine", "flat", "none", 1_000)
_WAIT_S = 60


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "vec.db", lambda _: None, unexpected)
    made.open()
    made.submit(lambda tx: libraries.create(tx, _PLAN)).result(_WAIT_S)
    yield made
    made.close()


def write(database: Database, *texts: str) -> list[int]:
    """A document for each text, its id the place; the labels that they got."""
    entries = [
        Entry(place, str(place), False, f"title {place}", f'{{"n": {place}}}', f"{hash(text) % 2**64:032x}", place, 1)
        for place, text in enumerate(texts)
    ]
    batch = DocumentBatch(entries, list(texts), list(texts), np.ones((len(texts), 2), np.float32))

    def run(tx: Transaction) -> list[int]:
        first = tx.label + 1
        documents.write(tx, tx.catalogue.find("notes"), batch)
        return list(range(first, first + len(texts)))

    return database.submit(run).result(_WAIT_S)


def expected(place: int, text: str, rank: int, score: float) -> dict[str, object]:
    return {
        "rank": rank, "score": score, "document_id": str(place), "chunk_id": f"{place}#0", "title": f"title {place}",
        "text": text, "metadata": {"n": place},
    }  # fmt: skip


def test_hits_from_memory_are_those_from_the_store(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = write(database, "one", "two", "three")
    hits = HitCache(database, Damage(database))
    assert hits.hits([(second, 0.5), (first, 0.25)]) == [expected(1, "two", 1, 0.5), expected(0, "one", 2, 0.25)]
    both = hits.hits_of_each([[(third, 1.0)], [(first, 0.75), (third, 0.5)]], [11, 11])
    assert both == [[expected(2, "three", 11, 1.0)], [expected(0, "one", 11, 0.75), expected(2, "three", 12, 0.5)]]
    monkeypatch.setattr(database, "read_transaction", lambda: pytest.fail("it is read again"))
    assert hits.hits([(third, 0.5), (second, 0.25)]) == [expected(2, "three", 1, 0.5), expected(1, "two", 2, 0.25)]
    assert hits.hits([]) == []


def test_a_document_that_was_updated_is_found_as_it_is_and_its_old_chunk_as_it_was(database: Database) -> None:
    hits = HitCache(database, Damage(database))
    (old,) = write(database, "before")
    assert [hit["text"] for hit in hits.hits([(old, 1.0)])] == ["before"]
    (new,) = write(database, "after")
    assert [hit["text"] for hit in hits.hits([(new, 1.0), (old, 0.5)])] == ["after", "before"]


def test_what_is_kept_has_a_bound_and_what_is_used_stays(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HITS_KEPT_CHARS", 20_000)
    labels = write(database, *(f"{place:01000}" for place in range(100)), "x" * (limits.HIT_CHARS_MAX + 1))
    hits = HitCache(database, Damage(database))
    for label in labels:
        assert len(hits.hits([(labels[0], 1.0), (label, 0.5)])) == 2
        assert labels[0] in hits._young or labels[0] in hits._old
        kept = (*hits._young.values(), *hits._old.values())
        assert sum(chunk.chars for chunk in kept) <= limits.HITS_KEPT_CHARS + 2 * limits.HIT_CHARS_MAX
    assert 3 < len(hits._young) + len(hits._old) < 20
    assert labels[-1] not in hits._young, "it is too large to be kept"
