"""Drafts of a reembed: new chunks and vectors beside the old ones, until one transaction replaces all.

A draft is made of one version of a document (its label) and never changes; one whose document has been changed or
deleted since is passed over. The switch is one transaction: each document becomes a new version of itself, with new
chunks, as an update of it would. So the log tells of it, and nothing else need know.
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
    """A version of a document, to make a draft of: `vectors` are little-endian float32, one a chunk."""

    label: int
    id: str
    title: str | None
    texts: list[str | None]
    vectors: list[bytes]


@dataclass(frozen=True, slots=True)
class Drafted:
    """What becomes of it: its chunks' texts, and their vectors one behind the other."""

    texts: list[str | None]
    vectors: bytes


def sources(db: apsw.Connection, library_id: int, after: int, count: int) -> list[ReembedSource]:
    """Up to `count` living documents behind the label `after` (exclusive), by label."""
    rows: list[Any] = db.execute(
        "SELECT label, id, title, chunks FROM documents WHERE library_id = ? AND removed_seq IS NULL AND label > ?"
        " ORDER BY label LIMIT ?",
        (library_id, after, count),
    ).fetchall()
    found = documents.contents(db, [(label, chunks) for label, _, _, chunks in rows], vectors=True)
    return [ReembedSource(label, id, title, found[label][0], found[label][1] or []) for label, id, title, _ in rows]


def keep(tx: Transaction, job_id: int, drafts: dict[int, Drafted]) -> None:
    """Puts drafts beside what is there."""
    for label, draft in drafts.items():
        tx.db.execute(
            "INSERT OR REPLACE INTO job_drafts VALUES (?, ?, ?, ?)",
            (job_id, label, orjson.dumps(draft.texts).decode(), draft.vectors),
        )


def kept(db: apsw.Connection, job_id: int, after: int, count: int) -> dict[int, Drafted]:
    """Up to `count` drafts of a job behind the label `after` (exclusive), by label."""
    rows = db.execute(
        "SELECT label, texts, vectors FROM job_drafts WHERE job_id = ? AND label > ? ORDER BY label LIMIT ?",
        (job_id, after, count),
    )
    return {label: Drafted(orjson.loads(texts), vectors) for label, texts, vectors in rows}


def forget(tx: Transaction, job_id: int, count: int) -> int:
    """Deletes up to `count` drafts of a job; returns how many went."""
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
    """Lets the drafts take the documents' places, and the library have its new embedder; returns how many there were.

    Documents that have come since the last draft was made are made here, if they are no more than `made_max`; None if
    they are more, and nothing has been done. Raises VecError `not_found`, or `busy` if the library is another one now.
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
