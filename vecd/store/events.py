"""The event log: its rows, and the events that they expand to.

A row about a document stands for the document's event, followed by one for each removed chunk and each added chunk:
`document.updated` of a document with 2 chunks that now has 3 is 1 + 2 + 3 events, in one row, with consecutive seqs.
Any other row is one event. One log covers all libraries. Its seqs have no gaps; it reaches back to its horizon
(exclusive), which lies between two rows.

A row refers to document versions by label. They are immutable, and are kept while the log refers to them, so an old
event still describes the document exactly.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import apsw
import orjson

from ..units import format_time
from . import checksums
from .transaction import Transaction

LIBRARY_CREATED = 1
LIBRARY_DELETED = 2
INDEX_REBUILT = 3
INDEX_RECALL = 4
LIBRARY_EMBEDDED = 5
LIBRARY_RENAMED = 6
DOCUMENT_ADDED = 10
DOCUMENT_UPDATED = 11
DOCUMENT_DELETED = 12
JOB_SUBMITTED = 20
JOB_STARTED = 21
JOB_COMPLETED = 22
JOB_FAILED = 23
JOB_CANCELLED = 24

#: The number stored in a row -> the public name of the type. Numbers never change.
TYPE_NAMES: dict[int, str] = {
    LIBRARY_CREATED: "library.created",
    LIBRARY_DELETED: "library.deleted",
    INDEX_REBUILT: "index.rebuilt",
    INDEX_RECALL: "index.recall",
    LIBRARY_EMBEDDED: "library.embedded",
    LIBRARY_RENAMED: "library.renamed",
    DOCUMENT_ADDED: "document.added",
    DOCUMENT_UPDATED: "document.updated",
    DOCUMENT_DELETED: "document.deleted",
    JOB_SUBMITTED: "job.submitted",
    JOB_STARTED: "job.started",
    JOB_COMPLETED: "job.completed",
    JOB_FAILED: "job.failed",
    JOB_CANCELLED: "job.cancelled",
}
#: Types of events that are part of a document's row.
CHUNK_ADDED, CHUNK_DELETED = "chunk.added", "chunk.deleted"
ALL_TYPES: tuple[str, ...] = (*TYPE_NAMES.values(), CHUNK_ADDED, CHUNK_DELETED)

Event = dict[str, Any]


class EventRow(NamedTuple):
    """A row of the log with the data to expand it. `seq` is that of its first event. The fields of documents are None
    in a row that is not about a document; those with `old_` are None if there was no earlier version."""

    seq: int
    time_us: int
    type: int
    library_id: int | None
    data: str | None
    id: str | None  # the document's
    label: int | None  # the document as it is after the change
    added: int  # its chunks
    title: str | None
    metadata: str | None  # JSON; None unless requested
    old_label: int | None  # the document as it was before the change
    removed: int  # its chunks
    old_title: str | None
    old_metadata: str | None

    @property
    def type_name(self) -> str:
        return TYPE_NAMES.get(self.type, f"unknown.{self.type}")

    @property
    def last_seq(self) -> int:
        return self.seq + self.added + self.removed


def append(tx: Transaction, kind: int, library_id: int | None, data: str) -> int:
    """Logs an event that is not about a document; returns its seq."""
    seq = tx.take_seqs(1)
    tx.db.execute("INSERT INTO events VALUES (?, ?, ?, ?, NULL, NULL, ?)", (seq, tx.time_us, kind, library_id, data))
    return seq


def append_documents(tx: Transaction, library_id: int, happened: str) -> None:
    """Logs changes of documents: a JSON array of [seq, type, label after, label before]."""
    tx.db.execute(
        "INSERT INTO events SELECT value ->> 0, ?2, value ->> 1, ?3, value ->> 2, value ->> 3, NULL FROM json_each(?1)",
        (happened, tx.time_us, library_id),
    )


def head(db: apsw.Connection) -> int:
    """The last seq of the log as this connection sees it."""
    return int(db.execute("SELECT seq FROM log").get)


def first_label(db: apsw.Connection, after: int) -> int | None:
    """The label of the first document that was written after the seq `after` (exclusive); None if there is none. As
    seqs ascend, so do the labels of the documents that the events are about."""
    found: int | None = db.execute(
        "SELECT label FROM events WHERE seq > ? AND label IS NOT NULL ORDER BY seq LIMIT 1", (after,)
    ).get
    return found


def horizon(db: apsw.Connection) -> tuple[int, int]:
    """The last seq that was trimmed away, and its time in microseconds; (0, 0) if the log is whole."""
    seq, time_us = db.execute("SELECT horizon, horizon_us FROM log").get
    return int(seq), int(time_us)


def read(db: apsw.Connection, after: int, count: int, *, metadata: bool = False) -> list[EventRow]:
    """Up to `count` rows, from the one that holds the first event after `after` (exclusive).

    SQLite returns them as one row of JSON, because every row is a step (see __init__.py).
    """
    new_metadata, old_metadata = ("new.metadata", "old.metadata") if metadata else ("NULL", "NULL")
    packed: bytes = db.execute(
        "SELECT CAST('[' || coalesce(group_concat(line, ','), '') || ']' AS BLOB) FROM ("
        "SELECT json_array(seq, time_us, type, events.library_id, data, coalesce(new.id, old.id), events.label,"
        f" coalesce(new.chunks, 0), new.title, {new_metadata},"
        f" events.prior, coalesce(old.chunks, 0), old.title, {old_metadata}) AS line"
        " FROM events LEFT JOIN documents AS new ON new.label = events.label"
        " LEFT JOIN documents AS old ON old.label = events.prior"
        " WHERE seq >= coalesce((SELECT max(seq) FROM events WHERE seq <= ?1 + 1), 0) ORDER BY seq LIMIT ?2)",
        (after, count),
    ).get
    return [EventRow._make(each) for each in checksums.packed_rows(packed)]


def note_clock_back(db: apsw.Connection, seq: int, now_us: int) -> None:
    """Records that at `now_us` the log's head was `seq`, though its last event has a later time: the clock was ahead
    when that was logged, or is behind now."""
    db.execute("INSERT OR IGNORE INTO clock_marks VALUES (?, ?)", (seq, now_us))


class _Ages:
    """The ages of events when the machine's clock has been set back, once or several times.

    A time that goes back means that the clock was ahead before, or is behind since. Until the clock has again reached
    the time that it was set back from, it counts as ahead before: events before the mark are at least as old as the
    first event after it. Once it has reached that time, the two cases cannot be told apart, and events after the mark
    count as no older than those before it, so nothing is trimmed too early. Either way ages follow the order of seqs.
    """

    def __init__(self, db: apsw.Connection, clock_us: int) -> None:
        marks: list[Any] = db.execute(
            "SELECT seq, time_us, coalesce((SELECT time_us FROM events WHERE events.seq <= clock_marks.seq"
            " ORDER BY events.seq DESC LIMIT 1), 0) FROM clock_marks"
        ).fetchall()
        self._ahead = [(seq, low_us) for seq, low_us, high_us in marks if high_us > clock_us]
        self._past = [(seq, high_us) for seq, _, high_us in marks if high_us <= clock_us]

    def time_us(self, seq: int, time_us: int) -> int:
        """The corrected time of an event with this seq and recorded time."""
        time_us = min([time_us, *(low_us for at, low_us in self._ahead if at >= seq)])
        latest: int = max([time_us, *(high_us for at, high_us in self._past if at < seq)])
        return latest


def seq_at(db: apsw.Connection, time_us: int, clock_us: int | None = None) -> int:
    """The last seq logged before `time_us`, 0 if there is none. `clock_us` is the current time; the default is the
    machine's clock."""
    ages = _Ages(db, time.time_ns() // 1000 if clock_us is None else clock_us)
    # Trimmed rows that the vacuum has not deleted yet may be out of order, because their clock marks are gone.
    low, high = horizon(db)[0], db.execute("SELECT coalesce(max(seq), 0) FROM events").get
    while low < high:  # the wanted row begins in (low, high]
        middle = (low + high + 1) // 2
        row = db.execute("SELECT seq, time_us FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (middle,)).get
        seq, at = row or (0, 0)
        if row is None or ages.time_us(seq, at) < time_us:
            low = middle
        else:
            high = seq - 1
    following = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (low,)).get
    return following - 1 if following else head(db)


def logged_at(db: apsw.Connection, seq: int, clock_us: int | None = None) -> int:
    """The corrected time of the last event up to that seq (inclusive), in microseconds; 0 if there is none."""
    found: Any = db.execute("SELECT seq, time_us FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (seq,)).get
    if found is None:
        return 0
    return _Ages(db, time.time_ns() // 1000 if clock_us is None else clock_us).time_us(*found)


def time_at(db: apsw.Connection, seq: int) -> int:
    """The recorded time of the last event up to that seq (inclusive), in microseconds; 0 if there is none."""
    found: int | None = db.execute("SELECT time_us FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (seq,)).get
    return horizon(db)[1] if found is None else found


def expand(row: EventRow, library: str | None, *, chunks: bool = True) -> list[Event]:
    """The events of a row, in order, in wire format: `{"seq","type","library","time","data"}`; with `chunks` false,
    without those of a document's chunks.

    This is the hot path of catching up, so it unpacks the row once and makes no call per chunk.
    """
    seq, time_us, kind, _, data, document_id, _, added, title, _, _, removed, old_title, _ = row
    time, name = format_time(time_us), TYPE_NAMES.get(kind) or row.type_name
    if document_id is None:
        details = orjson.loads(data) if data else {}
        return [{"seq": seq, "type": name, "library": library, "time": time, "data": details}]
    chunk_ids = [f"{document_id}#{position}" for position in range(added or removed)]
    about = {
        "id": document_id,
        "title": title if added else old_title,
        "chunks": len(chunk_ids),
        "chunk_ids": chunk_ids,
    }
    if added and removed:
        about["chunks_replaced"] = removed
    events = [{"seq": seq, "type": name, "library": library, "time": time, "data": about}]
    if not chunks:
        return events
    for position in range(removed):
        seq += 1
        about = {"chunk_id": f"{document_id}#{position}", "document_id": document_id, "position": position}
        events.append({"seq": seq, "type": CHUNK_DELETED, "library": library, "time": time, "data": about})
    for position in range(added):
        seq += 1
        about = {"chunk_id": chunk_ids[position], "document_id": document_id, "position": position}
        events.append({"seq": seq, "type": CHUNK_ADDED, "library": library, "time": time, "data": about})
    return events


def chunk_id(document_id: str, position: int) -> str:
    return f"{document_id}#{position}"
