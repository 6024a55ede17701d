"""Retention of the log: a trim sets the horizon, a vacuum deletes what is older.

A trim moves the log's horizon, in constant time. Events up to the horizon are no longer read. The vacuum then deletes,
in short steps on the writer: these events, the document versions that only they refer to, and the documents of
libraries that were deleted before the horizon. At the end it returns free pages to the file system. After a crash the
next vacuum continues. It can stop before the horizon, while a reader uses an older state (engine/read_views.py).

Files created before schema 3 are not in incremental auto_vacuum mode: their free pages are reused, but never returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from .. import limits
from . import events
from .transaction import Transaction

#: A step of the vacuum: returns how many rows or pages it processed; 0 if none are left.
Step = Callable[[Transaction], int]

#: Approximate bytes of an event's row without its data: key, time, type, three numbers, its share of the B-tree.
_ROW_BYTES = 40

#: The value of SQLite's auto_vacuum pragma for incremental mode.
_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the log to keep; None: no limit. An event beyond any of the limits is trimmed."""

    age_s: float | None = None
    count: int | None = None  # events
    bytes: int | None = None  # of events, and of the removed document versions that they refer to


def boundary(db: apsw.Connection, seq: int) -> int:
    """The last seq up to `seq` (inclusive) that ends a row: a trim never splits a document's events."""
    head = events.head(db)
    following = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (seq,)).get or head + 1
    if seq >= head or following == seq + 1:
        return min(seq, head)
    begun = db.execute("SELECT max(seq) FROM events WHERE seq <= ?", (seq,)).get
    return int(begun) - 1 if begun is not None else seq


def wanted(db: apsw.Connection, keep: Limits, clock_us: int) -> int:
    """The seq (inclusive) up to which the limits allow a trim, by the machine's clock; at least the horizon."""
    horizon, _ = events.horizon(db)
    upto = horizon
    if keep.age_s is not None:
        upto = max(upto, events.seq_at(db, max(0, clock_us - int(keep.age_s * 1_000_000)), clock_us))
    if keep.count is not None:
        upto = max(upto, events.head(db) - keep.count)
    if keep.bytes is not None:
        upto = max(upto, _before_the_last_bytes(db, keep.bytes))
    return max(horizon, boundary(db, upto))


def mark_clock(tx: Transaction, clock_us: int) -> None:
    """Records a clock mark if the last event's time is in the future, because the next event may come much later."""
    head, time_us = tx.db.execute("SELECT seq, time_us FROM log").get
    if time_us - clock_us > limits.CLOCK_BACK_S * 1e6:
        events.note_clock_back(tx.db, head, clock_us)


def _before_the_last_bytes(db: apsw.Connection, size: int) -> int:
    """The last seq before the newest events of `size` bytes in total; 0: none."""
    found = db.execute(
        "SELECT max(seq) FROM (SELECT seq, sum(?1 + coalesce(octet_length(data), 0) + coalesce("
        " (SELECT sum(coalesce(octet_length(text), 0) + octet_length(vector)) FROM chunks"
        "  WHERE label BETWEEN dead.label AND dead.label + dead.chunks - 1) + octet_length(dead.metadata), 0))"
        " OVER (ORDER BY seq DESC) AS newer FROM events LEFT JOIN documents AS dead ON dead.label = events.prior)"
        " WHERE newer > ?2",
        (_ROW_BYTES, size),
    ).get
    if found is None:
        return 0
    following = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (found,)).get
    return int(following) - 1 if following is not None else events.head(db)


def trim(tx: Transaction, upto: int) -> int:
    """Moves the horizon to `upto`, which must be a boundary; returns the number of trimmed events."""
    if upto <= tx.horizon:
        return 0
    trimmed = upto - tx.horizon
    tx.db.execute("UPDATE log SET horizon = ?, horizon_us = ?", (upto, events.logged_at(tx.db, upto)))
    tx.db.execute("DELETE FROM clock_marks WHERE seq <= ?", (upto,))
    tx.horizon = upto
    return trimmed


def vacuum(tx: Transaction, rows: int, upto: int) -> int:
    """Deletes about `rows` rows, at most, that only the log up to the seq `upto` (inclusive) refers to. `upto` must end
    a row and not exceed the horizon. Returns the number of deleted rows; 0: none are left."""
    db = tx.db
    db.execute("DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= ? LIMIT ?)", (upto, rows))
    gone = db.changes()
    if gone < rows:
        gone += _delete_documents(
            db,
            db.execute(
                "SELECT label, chunks FROM documents WHERE removed_seq <= ? ORDER BY removed_seq LIMIT ?",
                (upto, rows - gone),
            ).fetchall(),
            rows,
        )
    if gone < rows:  # a deleted library's documents have no removed_seq of their own
        gone += _delete_documents(
            db,
            db.execute(
                "SELECT label, documents.chunks FROM libraries CROSS JOIN documents"
                " ON documents.library_id = libraries.library_id AND removed_seq IS NULL"
                " WHERE deleted_seq <= ? LIMIT ?",
                (upto, rows - gone),
            ).fetchall(),
            rows,
        )
    return gone


def _delete_documents(db: apsw.Connection, documents: list[Any], rows: int) -> int:
    """Deletes these documents, given as (label, chunks), with their chunks, up to about `rows` rows; returns how
    many."""
    labels: list[int] = []
    chunks: list[int] = []
    for label, count in documents:
        if labels and len(labels) + len(chunks) + count > rows:
            break
        labels.append(label)
        chunks += range(label, label + count)
    for table, its in (("chunks", chunks), ("second_vectors", chunks), ("documents", labels)):
        db.execute(
            f"DELETE FROM {table} WHERE label IN (SELECT value FROM json_each(?))", (orjson.dumps(its).decode(),)
        )
    return len(labels) + len(chunks)


def give_back(tx: Transaction, pages: int) -> int:
    """Frees up to `pages` pages at the file's end for truncation; returns how many."""
    free = int(tx.db.pragma("freelist_count"))
    if not free or tx.db.pragma("auto_vacuum") != _INCREMENTAL:
        return 0
    tx.db.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()
    given = free - int(tx.db.pragma("freelist_count"))
    tx.gave_back = given > 0
    return given


def size(db: apsw.Connection) -> tuple[int, int]:
    """The size of the store's file in bytes, and how many of them are free."""
    page = int(db.pragma("page_size"))
    return page * int(db.pragma("page_count")), page * int(db.pragma("freelist_count"))
