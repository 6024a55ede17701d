"""Consistency checks of the store: SQLite's own, the log against the tables, rows against their checksums.

Each function checks one bounded part, in one read transaction, and returns the problems as sentences. All parts
together read each row a fixed number of times, whatever the number of libraries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw
import orjson

from . import checksums, events
from .catalogue import Catalogue, Library
from .transaction import Transaction

#: Library id -> documents, chunks.
Held = dict[str, list[int]]


@dataclass(slots=True)
class Replayed:
    """The state of a replay of the log up to `seq` (inclusive): what each library holds according to the log."""

    seq: int = 0
    libraries: Held = field(default_factory=dict)
    whole: bool = True  # whether the log is read from its beginning: nothing was trimmed


@dataclass(slots=True)
class CheckedPage:
    """The result of checking a page of documents. `last` is the label of its last one; None if no more follow."""

    problems: list[str] = field(default_factory=list)
    last: int | None = None
    documents: int = 0  # current ones
    chunks: int = 0  # of current documents
    bytes: int = 0  # read, about
    unsummed: list[tuple[int, int]] = field(default_factory=list)  # (label, chunks), sound but without checksums


def tables(db: apsw.Connection) -> list[str]:
    """The names of the tables that SQLite can check one by one."""
    rows = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")
    return [name for (name,) in rows]


def integrity(db: apsw.Connection, table: str) -> list[str]:
    """SQLite's check of one table and its indexes."""
    quoted = table.replace('"', '""')
    found = [text for (text,) in db.execute(f'PRAGMA integrity_check("{quoted}")')]
    return [] if found == ["ok"] else [f"table {table}: {text}" for text in found]


def replay(db: apsw.Connection, so_far: Replayed, stop: int, count: int) -> list[str]:
    """Replays the next rows of the log: up to `count`, up to the seq `stop` (inclusive)."""
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


def documents(db: apsw.Connection, catalogue: Catalogue, after: int, count: int) -> CheckedPage:
    """Checks up to `count` documents after the label `after` (exclusive), removed ones included, with their chunks; it
    checks fewer documents if together they have more than `count` chunks."""
    checked = CheckedPage()
    rows: list[Any] = db.execute(
        "SELECT label, chunks, library_id, removed_seq IS NULL, CAST(id AS BLOB), CAST(title AS BLOB),"
        " CAST(metadata AS BLOB), sum, CAST(lines AS BLOB) FROM documents WHERE label > ? ORDER BY label LIMIT ?",
        (after, count),
    ).fetchall()
    whole = len(rows) < count
    while len(rows) > 1 and sum(row[1] for row in rows) > count:
        del rows[len(rows) // 2 :]
        whole = False
    if not rows:
        return checked
    chunks = db.execute(
        "SELECT label, CAST(text AS BLOB), CAST(vector AS BLOB), CAST(sums AS BLOB) FROM chunks"
        " WHERE label BETWEEN ? AND ?",
        (rows[0][0], rows[-1][0] + rows[-1][1] - 1),
    )
    its: dict[int, list[Any]] = {}
    for label, text, vector, sums in chunks:
        its[label] = [text, vector, sums]
        checked.bytes += len(text or b"") + len(vector)
    for label, number, library_id, alive, packed_id, title, metadata, wanted, lines in rows:
        library = catalogue.by_id.get(library_id)
        there = [its[each] for each in range(label, label + number) if each in its]
        problems = [
            *_outline(packed_id, title, metadata, number, lines, wanted),
            *_chunks(there, number, library if alive else None),
        ]
        if problems:
            name = "?" if library is None else library.name
            version = "document" if alive else "a former version of document"
            document_id = packed_id.decode("utf-8", "replace")
            checked.problems += [f"library {name}: {version} {document_id!r} {each}" for each in problems]
        elif wanted is None or any(sums is None for _, _, sums in there):
            checked.unsummed.append((label, number))
        if alive and library is not None and not library.deleted:
            checked.documents += 1
            checked.chunks += number
        checked.bytes += len(metadata)
    checked.last = None if whole else rows[-1][0]
    return checked


def _outline(
    packed_id: bytes, title: bytes | None, metadata: bytes, chunks: int, lines: bytes | None, wanted: int | None
) -> list[str]:
    found: int | None = None
    try:
        texts = (None if each is None else each.decode() for each in (title, lines))
        found = checksums.of_document(packed_id.decode(), next(texts), metadata.decode(), chunks, next(texts))
        orjson.loads(metadata)
    except ValueError:  # not UTF-8, or not JSON
        found = None
    return (
        [] if found is not None and wanted in (None, found) else ["has another id, title or metadata than was written"]
    )


def _chunks(there: list[Any], number: int, library: Library | None) -> list[str]:
    """The problems of a document's chunks: their number, and each text and vector against its checksum."""
    # Former versions may be of an embedder with another dimension, and so are those that a reembed has yet to replace.
    dimension = None if library is None or library.switch_job is not None else library.dimension
    size = None if dimension is None else 4 * dimension
    good = sum(size is None or len(vector) == size for _, vector, _ in there)
    problems = [] if good == number else [f"has {good} good chunks instead of {number}"]
    for place, (text, vector, sums) in enumerate(there):
        if checksums.bad_text(text, sums) or not _is_text(text):
            problems.append(f"has another text in chunk {place} than was written")
        if checksums.bad_vector(vector, sums):
            problems.append(f"has another vector in chunk {place} than was written")
    return problems


def _is_text(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def add_checksums(tx: Transaction, versions: list[tuple[int, int]]) -> None:
    """Adds the missing checksums of these document versions, each given as (label, chunks)."""
    summed: list[tuple[int, str]] = []
    rows: Any
    for label, number in versions:
        rows = tx.db.execute(
            "SELECT label, CAST(text AS BLOB), CAST(vector AS BLOB) FROM chunks WHERE label BETWEEN ? AND ?"
            " AND sums IS NULL",
            (label, label + number - 1),
        ).fetchall()
        summed += [(each, checksums.of_chunk(text, vector).hex()) for each, text, vector in rows]
        rows = tx.db.execute(
            "SELECT id, title, metadata, chunks, lines FROM documents WHERE label = ? AND sum IS NULL", (label,)
        ).fetchall()
        for row in rows:
            tx.db.execute("UPDATE documents SET sum = ? WHERE label = ?", (checksums.of_document(*row), label))
    tx.db.execute(
        "UPDATE chunks SET sums = unhex(given.value ->> 1) FROM json_each(?) AS given"
        " WHERE chunks.label = given.value ->> 0",
        (orjson.dumps(summed).decode(),),
    )


def counts(db: apsw.Connection, library: Library) -> list[str]:
    """Compares a library's stored counts with its documents."""
    row = db.execute(
        "SELECT documents, chunks, deleted_seq IS NULL FROM libraries WHERE library_id = ?", (library.library_id,)
    ).fetchone()
    if row is None or not row[2]:
        return []
    there = db.execute(
        "SELECT count(*), coalesce(sum(chunks), 0) FROM documents INDEXED BY documents_live"
        " WHERE library_id = ? AND removed_seq IS NULL",
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
    """Compares the log, replayed to its head, with the contents of the libraries. A trimmed log cannot be compared."""
    problems: list[str] = []
    if not replayed.whole:
        return problems
    rows = db.execute("SELECT library_id, name, documents, chunks FROM libraries WHERE deleted_seq IS NULL")
    for library_id, name, documents, chunks in rows:
        logged = tuple(replayed.libraries.get(str(library_id), (0, 0)))
        if logged != (documents, chunks):
            problems.append(
                f"library {name}: the log records {logged[0]:,} documents and {logged[1]:,} chunks, and there are"
                f" {documents:,} and {chunks:,}"
            )
    return problems
