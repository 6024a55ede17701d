"""Re-embedding: stores drafts with new chunks and vectors, then switches all documents of a library in one transaction.

A draft belongs to one version of a document (its label) and never changes. If the document has been changed or deleted
since, its draft is ignored. The switch writes a new version of each document with new chunks, as an update does. So the
log records it, and no other part needs to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
import orjson

from ..errors import Code, VecError
from . import documents, libraries
from .catalogue import Library
from .documents import DocumentBatch, Entry
from .transaction import Transaction


@dataclass(frozen=True, slots=True)
class ReembedSource:
    """A document version to make a draft from. `vectors` are little-endian float32, one per chunk."""

    label: int
    id: str
    title: str | None
    texts: list[str | None]
    vectors: list[bytes]


@dataclass(frozen=True, slots=True)
class Drafted:
    """The new chunks of a document: their texts, and their vectors, concatenated."""

    texts: list[str | None]
    vectors: bytes


def sources(db: apsw.Connection, library_id: int, after: int, count: int) -> list[ReembedSource]:
    """Up to `count` current documents after the label `after` (exclusive), by label."""
    rows: list[Any] = db.execute(
        "SELECT label, id, title, chunks FROM documents WHERE library_id = ? AND removed_seq IS NULL AND label > ?"
        " ORDER BY label LIMIT ?",
        (library_id, after, count),
    ).fetchall()
    found = documents.contents(db, [(label, chunks) for label, _, _, chunks in rows], vectors=True)
    return [ReembedSource(label, id, title, found[label][0], found[label][1] or []) for label, id, title, _ in rows]


def keep(tx: Transaction, job_id: int, drafts: dict[int, Drafted]) -> None:
    """Stores drafts of a job, by label."""
    for label, draft in drafts.items():
        tx.db.execute(
            "INSERT OR REPLACE INTO job_drafts VALUES (?, ?, ?, ?)",
            (job_id, label, orjson.dumps(draft.texts).decode(), draft.vectors),
        )


def kept(db: apsw.Connection, job_id: int, after: int, count: int) -> dict[int, Drafted]:
    """Up to `count` drafts of a job after the label `after` (exclusive), by label."""
    rows = db.execute(
        "SELECT label, texts, vectors FROM job_drafts WHERE job_id = ? AND label > ? ORDER BY label LIMIT ?",
        (job_id, after, count),
    )
    return {label: Drafted(orjson.loads(texts), vectors) for label, texts, vectors in rows}


def forget(tx: Transaction, job_id: int, count: int) -> int:
    """Deletes up to `count` drafts of a job; returns the number deleted."""
    tx.db.execute(
        "DELETE FROM job_drafts WHERE rowid IN (SELECT rowid FROM job_drafts WHERE job_id = ? LIMIT ?)", (job_id, count)
    )
    return tx.db.changes()


def switch(
    tx: Transaction,
    library: Library,
    embedder: str,
    chunk_chars: int,
    drafts: dict[int, Drafted],
    make: Callable[[list[ReembedSource]], dict[int, Drafted]],
    made_max: int,
) -> int | None:
    """Replaces the documents by their drafts, and sets the library's new embedder; returns the number of documents.

    `make` makes drafts of documents that have none yet, up to `made_max`; if there are more, this changes nothing and
    returns None. Raises VecError `not_found`, or `busy` if the library was replaced or changed meanwhile.
    """
    now = tx.catalogue.find(library.name)
    if now.library_id != library.library_id or (now.embedder, now.chunk_chars) != (
        library.embedder, library.chunk_chars,
    ):  # fmt: skip
        raise VecError(Code.BUSY, f"library {library.name!r} was changed or created again meanwhile", "try again")
    rows: list[Any] = tx.db.execute(
        "SELECT label, id, title, metadata FROM documents WHERE library_id = ? AND removed_seq IS NULL ORDER BY label",
        (library.library_id,),
    ).fetchall()
    missing = [row[0] for row in rows if row[0] not in drafts]
    if len(missing) > made_max:
        return None
    fresh: dict[int, Drafted] = {}
    for label in missing:
        fresh |= make(sources(tx.db, library.library_id, label - 1, 1))
    entries: list[Entry] = []
    texts: list[str | None] = []
    indexed: list[str | None] = []
    vectors: list[bytes] = []
    for index, (label, document_id, title, metadata) in enumerate(rows):
        draft = drafts.get(label) or fresh[label]
        own = [draft.vectors] if None in draft.texts else None
        digest = documents.content_digest(title, metadata, draft.texts, own)
        entries.append(Entry(index, document_id, False, title, metadata, digest, len(texts), len(draft.texts)))
        texts += draft.texts
        indexed += [documents.indexed(title, text) for text in draft.texts]
        vectors.append(draft.vectors)
    now = libraries.reembedded(tx, now, embedder, chunk_chars)
    if entries:
        matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(len(texts), -1)
        documents.write(tx, now, DocumentBatch(entries, texts, indexed, matrix), again=True)
    return len(entries)
