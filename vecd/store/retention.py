"""Retention: trimming the log, and the vacuum that follows.

A trim moves the log's horizon, which takes no time however much it trims: from then on nobody reads what is behind it.
The vacuum deletes that, in steps that hold the writer up for a moment each: the events, the dead versions of documents
that only those referred to, and the documents of libraries that were deleted behind the horizon. Then it gives the free
pages back to the file system. A crash between two steps costs nothing: the next vacuum goes on. It may be told to stop
before the horizon, where somebody still reads an older state (engine/read_views.py).

Files made before schema 3 have no map of their free pages: in these the space is used again, and not given back.
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

#: A step of the vacuum: how much it did; 0 if there is nothing left to do.
Step = Callable[[Transaction], int]

#: Bytes that an event's row takes beside its data, about: key, time, type, three numbers, and its share of the tree.
_ROW_BYTES = 40

#: What SQLite calls a file that knows where its free pages are.
_INCREMENTAL = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the log is kept; None: as much as there is. What any of them lets go is trimmed."""

    age_s: float | None = None
    count: int | None = None  # events
    bytes: int | None = None  # of events, and of the dead documents that they refer to


def boundary(db: apsw.Connection, seq: int) -> int:
    """The last seq that is not after `seq` and is the last of its row: a trim never splits a document's events."""
    head = events.head(db)
    following = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (seq,)).get or head + 1
    if seq >= head or following == seq + 1:
        return min(seq, head)
    begun = db.execute("SELECT max(seq) FROM events WHERE seq <= ?", (seq,)).get
    return int(begun) - 1 if begun is not None else seq


def wanted(db: apsw.Connection, keep: Limits, clock_us: int) -> int:
    """Up to which seq (inclusive) the log may go, by these limits and the machine's clock; not before its horizon."""
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
    """Notes how old the log's last event is at least, if its time is in the future: nothing may be logged for long."""
    head, time_us = tx.db.execute("SELECT seq, time_us FROM log").get
    if time_us - clock_us > limits.CLOCK_BACK_S * 1e6:
        events.note_clock_back(tx.db, head, clock_us)


def _before_the_last_bytes(db: apsw.Connection, size: int) -> int:
    """The last seq (0: none) that is not among the newest events of so many bytes."""
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
    """Moves the horizon to `upto`, which must be a boundary; returns how many events that trims."""
    if upto <= tx.horizon:
        return 0
    trimmed = upto - tx.horizon
    tx.db.execute("UPDATE log SET horizon = ?, horizon_us = ?", (upto, events.logged_at(tx.db, upto)))
    tx.db.execute("DELETE FROM clock_marks WHERE seq <= ?", (upto,))
    tx.horizon = upto
    return trimmed


def vacuum(tx: Transaction, rows: int, upto: int) -> int:
    """Deletes up to about `rows` rows that only the log up to the seq `upto` (inclusive) refers to. `upto` must be the
    last seq of a row and not beyond the horizon. Returns how many rows it deleted; 0: there are no more."""
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
    if gone < rows:  # a deleted library's documents are dead because it is
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
    """Deletes these (label, chunks) with their chunks, as far as that is about so many rows; returns how many."""
    labels: list[int] = []
    chunks: list[int] = []
    for label, count in documents:
        if labels and len(labels) + len(chunks) + count > rows:
            break
        labels.append(label)
        chunks += range(label, label + count)
    for table, its in (("chunks", chunks), ("documents", labels)):
        db.execute(
            f"DELETE FROM {table} WHERE label IN (SELECT value FROM json_each(?))", (orjson.dumps(its).decode(),)
        )
    return len(labels) + len(chunks)


def give_back(tx: Transaction, pages: int) -> int:
    """Gives up to so many free pages at the file's end back to the file system; returns how many it gave."""
    free = int(tx.db.pragma("freelist_count"))
    if not free or tx.db.pragma("auto_vacuum") != _INCREMENTAL:
        return 0
    tx.db.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()
    given = free - int(tx.db.pragma("freelist_count"))
    tx.gave_back = given > 0
    return given


def size(db: apsw.Connection) -> tuple[int, int]:
    """Bytes of the store's file, and how many of them are free."""
    page = int(db.pragma("page_size"))
    return page * int(db.pragma("page_count")), page * int(db.pragma("freelist_count"))
