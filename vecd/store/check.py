"""Whether the store agrees with itself: SQLite's own checks, the log against the tables, documents against chunks.

Each function looks at one bounded part, in one read transaction, and returns what is wrong as sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import apsw

from . import events
from .catalogue import Library


@dataclass(slots=True)
class Replayed:
    """The log as far as it has been read: up to `seq` (inclusive), and what each library holds by it."""

    seq: int = 0
    libraries: dict[str, list[int]] = field(default_factory=dict)  # id -> documents, chunks
    whole: bool = True  # from the log's beginning; not what has been trimmed away


def tables(db: apsw.Connection) -> list[str]:
    """The tables that SQLite can check one by one."""
    rows = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    return [name for (name,) in rows]


def integrity(db: apsw.Connection, table: str) -> list[str]:
    """SQLite's check of one table and its indexes."""
    quoted = table.replace('"', '""')
    found = [text for (text,) in db.execute(f'PRAGMA integrity_check("{quoted}")')]
    return [] if found == ["ok"] else [f"table {table}: {text}" for text in found]


def replay(db: apsw.Connection, so_far: Replayed, stop: int, count: int) -> list[str]:
    """Reads on in the log: up to `count` rows, not past the seq `stop` (inclusive)."""
    problems = []
    horizon, _ = events.horizon(db)
    if so_far.seq < horizon:
        so_far.seq, so_far.whole = horizon, False
    rows = db.execute(
        "SELECT seq, type, events.library_id, events.label, prior, new.chunks, old.chunks FROM events"
        " LEFT JOIN documents AS new ON new.label = events.label"
        " LEFT JOIN documents AS old ON old.label = events.prior"
        " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (so_far.seq, stop, count),
    )
    for seq, kind, library_id, label, prior, added, removed in rows:
        if seq != so_far.seq + 1:
            problems.append(f"log: seq {seq} follows {so_far.seq}")
        so_far.seq = seq + (added or 0) + (removed or 0)
        if kind not in (events.DOCUMENT_ADDED, events.DOCUMENT_UPDATED, events.DOCUMENT_DELETED):
            continue
        if (label is not None and added is None) or (prior is not None and removed is None):
            problems.append(f"log: seq {seq} is about a document that is not there")
        held = so_far.libraries.setdefault(str(library_id), [0, 0])
        held[0] += (label is not None) - (prior is not None)
        held[1] += (added or 0) - (removed or 0)
    return problems


def documents(db: apsw.Connection, library: Library, after: int, count: int) -> tuple[list[str], int | None, int]:
    """Looks at up to `count` living documents behind the label `after` (exclusive): what is wrong, the last label
    (None: there were no more), and how many there were."""
    problems = []
    last = None
    number = 0
    rows = db.execute(
        "SELECT label, id, chunks, (SELECT count(*) FROM chunks WHERE chunks.label BETWEEN documents.label AND"
        " documents.label + documents.chunks - 1 AND length(vector) = ?4) FROM documents"
        " WHERE library_id = ?1 AND removed_seq IS NULL AND label > ?2 ORDER BY label LIMIT ?3",
        (library.library_id, after, count, 4 * (library.dimension or 0)),
    )
    for label, document_id, chunks, there in rows:
        last, number = label, number + 1
        if chunks != there:
            problems.append(
                f"library {library.name}: document {document_id!r} has {there} good chunks instead of {chunks}"
            )
    return problems, last, number


def counts(db: apsw.Connection, library: Library) -> list[str]:
    """Whether a library's counts, and its full-text index, are those of its documents."""
    row = db.execute(
        "SELECT documents, chunks, deleted_seq IS NULL FROM libraries WHERE library_id = ?", (library.library_id,)
    ).fetchone()
    if row is None or not row[2]:
        return []
    there = db.execute(
        "SELECT count(*), coalesce(sum(chunks), 0) FROM documents WHERE library_id = ? AND removed_seq IS NULL",
        (library.library_id,),
    ).get
    problems = []
    if tuple(row[:2]) != tuple(there):
        problems.append(
            f"library {library.name}: it counts {row[0]:,} documents and {row[1]:,} chunks, and holds {there[0]:,} and"
            f" {there[1]:,}"
        )
    return problems


def log_against_tables(db: apsw.Connection, replayed: Replayed) -> list[str]:
    """Whether the log, replayed to its head, gives what the libraries hold; of one that was trimmed nobody can tell."""
    problems: list[str] = []
    if not replayed.whole:
        return problems
    rows = db.execute("SELECT library_id, name, documents, chunks FROM libraries WHERE deleted_seq IS NULL")
    for library_id, name, documents, chunks in rows:
        told = tuple(replayed.libraries.get(str(library_id), (0, 0)))
        if told != (documents, chunks):
            problems.append(
                f"library {name}: the log tells of {told[0]:,} documents and {told[1]:,} chunks, and there are"
                f" {documents:,} and {chunks:,}"
            )
    return problems
