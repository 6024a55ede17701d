"""What an index is built from: pages of the store, with no read transaction that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest

from vecd.engine.damage import Damage
from vecd.engine.indexes import _LibrarySource
from vecd.errors import VecError
from vecd.store import documents, libraries, retention
from vecd.store.catalogue import Library
from vecd.store.database import Database
from vecd.store.documents import DocumentBatch, Entry
from vecd.store.transaction import Transaction

COUNT = 3 * documents.PAGE_ROWS


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "vec.db", lambda _: None, unexpected)
    made.open()
    made.submit(lambda tx: libraries.create(tx, Library(0, "notes", 2, "cosine", "flat", "none", 1_000))).result(30)
    made.submit(lambda tx: documents.write(tx, tx.catalogue.find("notes"), batch(range(COUNT)))).result(30)
    yield made
    made.close()


def batch(numbers: range) -> DocumentBatch:
    """Documents of one chunk, whose vector and text are their number."""
    entries = [
        Entry(place, f"d{number}", digest=f"{number:032x}", offset=place, chunks=1)
        for place, number in enumerate(numbers)
    ]
    texts: list[str | None] = [f"text {number}" for number in numbers]
    vectors = np.array([[number, 1] for number in numbers], np.float32)
    return DocumentBatch(entries, texts, texts, vectors)


def delete_and_vacuum(database: Database, ids: list[str]) -> None:
    entries = [Entry(place, each, delete=True) for place, each in enumerate(ids)]
    gone = DocumentBatch(entries, [], [], np.empty((0, 2), np.float32))

    def work(tx: Transaction) -> None:
        documents.write(tx, tx.catalogue.find("notes"), gone)
        retention.trim(tx, tx.seq)

    database.submit(work).result(30)
    assert database.submit(lambda tx: retention.vacuum(tx, 1_000_000, tx.horizon)).result(30)


def checkpoint(database: Database) -> None:
    """Raises apsw.BusyError if a read transaction is open anywhere."""
    other = apsw.Connection(str(database.path))
    other.set_busy_timeout(0)
    other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    other.close()


def test_between_two_pages_no_read_transaction_holds_the_write_ahead_log(database: Database, tmp_path: Path) -> None:
    source = _LibrarySource(database, Damage(database), tmp_path, database.catalogue.find("notes"))
    with source.read() as stored, source.read_text() as text:
        checkpoint(database)
        for _ in stored.pages(stored.labels):
            checkpoint(database)
        for _ in text.words(text.labels):
            checkpoint(database)


def test_rows_that_the_vacuum_deletes_meanwhile_are_left_out_and_the_others_are_right(
    database: Database, tmp_path: Path
) -> None:
    source = _LibrarySource(database, Damage(database), tmp_path, database.catalogue.find("notes"))
    with source.read() as stored, source.read_text() as text:
        assert len(stored.labels) == len(text.labels) == COUNT
        pages = stored.pages(stored.labels)
        found = [next(pages)]
        # Every other document of the second page, and all of the third.
        gone = [*range(documents.PAGE_ROWS, 2 * documents.PAGE_ROWS, 2), *range(2 * documents.PAGE_ROWS, COUNT)]
        delete_and_vacuum(database, [f"d{number}" for number in gone])
        found += pages
        labels = np.concatenate([page for page, _ in found])
        vectors = np.concatenate([page for _, page in found])
        assert np.array_equal(labels, np.delete(stored.labels, gone))
        assert np.array_equal(vectors[:, 0], np.delete(np.arange(COUNT), gone))
        worded = [page for page, _ in text.words(text.labels)]
        assert np.array_equal(np.concatenate(worded), labels)


def test_damaged_vectors_are_left_out_and_no_others_whatever_their_length(database: Database, tmp_path: Path) -> None:
    library, found_damage = database.catalogue.find("notes"), Damage(database)
    source = _LibrarySource(database, found_damage, tmp_path, library)
    with source.read() as stored:
        flipped, short, empty = (int(stored.labels[place]) for place in (3, 5, documents.PAGE_ROWS + 7))

        def damage(tx: Transaction) -> None:
            tx.db.execute("UPDATE chunks SET vector = x'0000c07f00000000' WHERE label = ?", (flipped,))
            tx.db.execute("UPDATE chunks SET vector = x'0000c0' WHERE label = ?", (short,))
            tx.db.execute("UPDATE chunks SET vector = x'' WHERE label = ?", (empty,))

        database.submit(damage).result(30)
        found = list(stored.pages(stored.labels))
    labels = np.concatenate([page for page, _ in found])
    assert set(found_damage.labels(library)) == {flipped, short, empty}
    assert set(stored.labels.tolist()) - set(labels.tolist()) == {flipped, short, empty}
    vectors = np.concatenate([page for _, page in found])
    assert vectors[:5, 0].tolist() == [0, 1, 2, 4, 6]  # the number of each document
    assert vectors[-1].tolist() == [COUNT - 1, 1]
