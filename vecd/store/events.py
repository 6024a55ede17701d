"""The event log: its rows, and the events that they stand for.

A row about a document stands for the document's event and, behind it, one for each chunk that went and each that came:
`document.updated` of a document with 2 chunks that now has 3 is 1 + 2 + 3 events, on one row, with consecutive seqs.
A row about anything else is one event. The log is in the order of its seqs, without gaps, across all libraries.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from .transaction import Transaction

LIBRARY_CREATED = 1
LIBRARY_DELETED = 2
INDEX_REBUILT = 3
DOCUMENT_ADDED = 10
DOCUMENT_UPDATED = 11
DOCUMENT_DELETED = 12

#: The number in a row -> the type that people see. Numbers are forever.
TYPE_NAMES: dict[int, str] = {
    LIBRARY_CREATED: "library.created",
    LIBRARY_DELETED: "library.deleted",
    INDEX_REBUILT: "index.rebuilt",
    DOCUMENT_ADDED: "document.added",
    DOCUMENT_UPDATED: "document.updated",
    DOCUMENT_DELETED: "document.deleted",
}
#: Types that have no row of their own.
CHUNK_ADDED, CHUNK_DELETED = "chunk.added", "chunk.deleted"
ALL_TYPES: tuple[str, ...] = (*TYPE_NAMES.values(), CHUNK_ADDED, CHUNK_DELETED)


@dataclass(slots=True)
class Row:
    """A row of the log with what is needed to expand it. `seq` is its first event's."""

    seq: int
    time_us: int
    type: int
    library_id: int | None
    data: str | None
    id: str | None = None  # the document's
    title: str | None = None  # as it is after the change, or was before it was deleted
    added: int = 0  # chunks that came
    removed: int = 0  # chunks that went

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of the events that it stands for."""
        chunks = (CHUNK_DELETED,) * (self.removed > 0) + (CHUNK_ADDED,) * (self.added > 0)
        return (TYPE_NAMES.get(self.type, f"unknown.{self.type}"), *chunks)

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


def read(db: apsw.Connection, after: int, count: int) -> list[Row]:
    """Up to `count` rows, beginning with the one that holds the event behind `after` (exclusive)."""
    rows = db.execute(
        "SELECT seq, time_us, type, events.library_id, data, coalesce(new.id, old.id),"
        " iif(new.label IS NULL, old.title, new.title), coalesce(new.chunks, 0), coalesce(old.chunks, 0)"
        " FROM events LEFT JOIN documents AS new ON new.label = events.label"
        " LEFT JOIN documents AS old ON old.label = events.prior"
        " WHERE seq >= coalesce((SELECT max(seq) FROM events WHERE seq <= ?1 + 1), 0) ORDER BY seq LIMIT ?2",
        (after, count),
    )
    return [Row(*row) for row in rows]


def seq_at(db: apsw.Connection, time_us: int) -> int:
    """The last seq logged before `time_us`, 0 if there is none; times never go backwards, so halving finds it."""
    low, high = 0, db.execute("SELECT coalesce(max(seq), 0) FROM events").get
    while low < high:  # the row sought begins in (low, high]
        middle = (low + high + 1) // 2
        row = db.execute("SELECT seq, time_us FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (middle,)).get
        seq, at = row or (0, 0)
        if at < time_us:
            low = middle
        else:
            high = seq - 1
    following = db.execute("SELECT min(seq) FROM events WHERE seq > ?", (low,)).get
    return following - 1 if following else head(db)


def expand(row: Row, library: str | None) -> Iterator[dict[str, Any]]:
    """The events of a row, in order, as they travel: `{"seq","type","library","time","data"}`."""
    time = format_time(row.time_us)
    kind = TYPE_NAMES.get(row.type, f"unknown.{row.type}")
    if row.id is None:
        data = orjson.loads(row.data) if row.data else {}
        yield {"seq": row.seq, "type": kind, "library": library, "time": time, "data": data}
        return
    data = {"id": row.id, "title": row.title, "chunks": row.added or row.removed}
    data["chunk_ids"] = [chunk_id(row.id, position) for position in range(row.added or row.removed)]
    if row.added and row.removed:
        data["chunks_replaced"] = row.removed
    yield {"seq": row.seq, "type": kind, "library": library, "time": time, "data": data}
    seq = row.seq
    for chunk_kind, chunks in ((CHUNK_DELETED, row.removed), (CHUNK_ADDED, row.added)):
        for position in range(chunks):
            seq += 1
            about = {"chunk_id": chunk_id(row.id, position), "document_id": row.id, "position": position}
            yield {"seq": seq, "type": chunk_kind, "library": library, "time": time, "data": about}


def chunk_id(document_id: str, position: int) -> str:
    return f"{document_id}#{position}"


def format_time(time_us: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-23T19:10:31.123456Z`."""
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"
