"""Re-embedding: stores drafts with new chunks and vectors, then replaces the documents of a library by them.

A draft belongs to one version of a document (its label) and never changes. If the document has been changed or deleted
since, its draft is ignored.

The switch begins with one short transaction. From then on the library has the new embedder: what is written is embedded
by it, and searches compare with the vectors of the drafts, which an index reads (`drafted`) in place of the documents'
own. So no search compares vectors of two embedders. The documents are replaced afterwards, a bounded number in each
transaction: each gets a new version with new chunks, as by an update. So the log records it, and no other part needs to
know. Until then, reads of a document return its version of before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from ..errors import Code, VecError
from . import documents, libraries, second_stage
from .catalogue import Library
from .documents import DocumentBatch, Entry
from .transaction import Change, Transaction, Vectors


@dataclass(frozen=True, slots=True)
class ReembedSource:
    """A document version to make a draft from. `vectors` are little-endian float32, one per chunk."""

    label: int
    id: str
    title: str | None
    texts: list[str | None]
    vectors: list[bytes]
    lines: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Drafted:
    """The new chunks of a document: their texts, and their vectors, concatenated. `present` has the vectors that the
    new embedder makes of the document's present chunks; None: its chunks remain, so that these are `vectors`."""

    texts: list[str | None]
    vectors: bytes
    present: bytes | None = None
    lines: list[int] | None = None  # of the file, by chunk

    @property
    def of_present_chunks(self) -> bytes:
        return self.vectors if self.present is None else self.present


Make = Callable[[list[ReembedSource]], dict[int, Drafted]]


def sources(db: apsw.Connection, library_id: int, after: int, count: int) -> list[ReembedSource]:
    """Up to `count` current documents after the label `after` (exclusive), by label."""
    rows: list[Any] = db.execute(
        "SELECT label, id, title, chunks FROM documents WHERE library_id = ? AND removed_seq IS NULL AND label > ?"
        " ORDER BY label LIMIT ?",
        (library_id, after, count),
    ).fetchall()
    found = documents.contents(db, [(label, chunks) for label, _, _, chunks in rows], vectors=True)
    return [
        ReembedSource(label, document_id, title, content.texts, content.vectors or [], content.lines)
        for label, document_id, title, _ in rows
        for content in (found[label],)
    ]


# --- drafts ---------------------------------------------------------------------------------------------------------


def keep(tx: Transaction, job_id: int, drafts: dict[int, Drafted]) -> None:
    """Stores drafts of a job, by label."""
    for label, draft in drafts.items():
        tx.db.execute(
            "INSERT OR REPLACE INTO job_drafts (job_id, label, texts, vectors, present, lines)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                job_id,
                label,
                orjson.dumps(draft.texts).decode(),
                draft.vectors,
                draft.present,
                None if draft.lines is None else orjson.dumps(draft.lines).decode(),
            ),
        )


def kept(db: apsw.Connection, job_id: int, after: int, count: int) -> dict[int, bytes]:
    """The vectors for the present chunks of up to `count` drafts of a job, after the label `after` (exclusive)."""
    rows = db.execute(
        "SELECT label, ifnull(present, vectors) FROM job_drafts WHERE job_id = ? AND label > ? ORDER BY label LIMIT ?",
        (job_id, after, count),
    )
    return dict(rows)


def draft_contents(db: apsw.Connection, job_id: int, labels: list[int]) -> dict[int, documents.Content]:
    """Label -> the new chunks, of those of these documents that a job has a draft of."""
    rows = db.execute(
        "SELECT label, texts, vectors, lines FROM json_each(?) AS wanted CROSS JOIN job_drafts"
        " ON job_id = ? AND label = wanted.value",
        (orjson.dumps(labels).decode(), job_id),
    )
    found = {}
    for label, texts_json, vectors, lines in rows:
        texts: list[str | None] = orjson.loads(texts_json)
        size = len(vectors) // max(1, len(texts))
        cut = [vectors[place * size : (place + 1) * size] for place in range(len(texts))]
        found[label] = documents.Content(texts, cut, None if lines is None else orjson.loads(lines))
    return found


def forget(tx: Transaction, job_id: int, count: int) -> int:
    """Deletes up to `count` drafts of a job; returns the number deleted."""
    tx.db.execute(
        "DELETE FROM job_drafts WHERE rowid IN (SELECT rowid FROM job_drafts WHERE job_id = ? LIMIT ?)", (job_id, count)
    )
    return tx.db.changes()


@dataclass(frozen=True, slots=True)
class DraftedVectors:
    """The vectors that searches of a library compare with until its documents have been replaced: those of the drafts
    of a job, for chunks with labels up to `last_label` (inclusive)."""

    job_id: int
    last_label: int

    def read(
        self, db: apsw.Connection, labels: npt.NDArray[np.int64], firsts: npt.NDArray[np.int64], vector_bytes: int
    ) -> tuple[npt.NDArray[np.int64], bytes]:
        """The vectors of these chunks: labels, and the concatenated vectors. `labels` ascend, and `firsts` are those of
        the first chunks of all documents. Drafts that were deleted meanwhile are left out: their documents have been
        replaced, or deleted. Raises VecError `damaged`."""
        places = np.searchsorted(firsts, labels, "right") - 1
        wanted = np.unique(firsts[places]).tolist()
        rows = db.execute(
            "SELECT label, ifnull(present, vectors) FROM json_each(?) AS wanted CROSS JOIN job_drafts"
            " ON job_id = ? AND label = wanted.value",
            (orjson.dumps(wanted).decode(), self.job_id),
        )
        drafts: dict[int, bytes] = dict(rows)
        found: list[int] = []
        vectors: list[bytes] = []
        for label, first in zip(labels.tolist(), firsts[places].tolist(), strict=True):
            if (draft := drafts.get(first)) is None:
                continue
            start = (label - first) * vector_bytes
            if len(vector := draft[start : start + vector_bytes]) != vector_bytes:
                raise VecError(
                    Code.DAMAGED,
                    f"the new vectors of the document with label {first} are damaged in the store",
                    "restore a backup, or ingest the document again",
                )
            found.append(label)
            vectors.append(vector)
        return np.array(found, np.int64), b"".join(vectors)


def drafted(db: apsw.Connection, library_id: int) -> tuple[DraftedVectors | None, int, int]:
    """The vectors to use in place of the documents' own, None if there are none; the last label that there was when the
    library's embedder was last changed; and the dimension of its vectors."""
    job_id, last_label, dimension = db.execute(
        "SELECT switch_job, embedder_label, dimension FROM libraries WHERE library_id = ?", (library_id,)
    ).get
    return (None if job_id is None or not last_label else DraftedVectors(job_id, last_label)), last_label, dimension


def joined(drafts: dict[int, bytes], vector_bytes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The vectors of these drafts, which are by label, in any order: labels, ascending, and vectors of shape (n,
    dimension)."""
    firsts = np.array(sorted(drafts), np.int64)
    packed = [drafts[label] for label in firsts.tolist()]
    counts = np.array([len(each) // vector_bytes for each in packed], np.int64)
    labels = np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return labels, np.frombuffer(b"".join(packed), "<f4").reshape(len(labels), vector_bytes // 4)


# --- the switch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replaced:
    """The outcome of one step of a switch."""

    documents: int
    done: bool  # whether all documents have been replaced


def begin_switch(
    tx: Transaction, library: Library, wanted: Library, job_id: int, after: int, make: Make, made_max: int
) -> dict[int, Drafted] | None:
    """Sets the library's new embedders, dimension and chunk length, as in `wanted`. The job has a draft of each
    document with a label up to `after` (inclusive).

    `make` makes drafts of the others, up to `made_max`; they are stored, and returned. If there are more, this changes
    nothing and returns None. Raises VecError `not_found`, or `busy` if the library was replaced or changed meanwhile.
    """
    now = tx.catalogue.find(library.name)
    if now.library_id != library.library_id or (
        now.embedder, now.chunk_chars, now.chunk_overlap, now.second, now.switch_job
    ) != (
        library.embedder, library.chunk_chars, library.chunk_overlap, library.second, None,
    ):  # fmt: skip
        raise VecError(Code.BUSY, f"library {library.name!r} was changed or created again meanwhile", "try again")
    missing = sources(tx.db, library.library_id, after, made_max + 1)
    if len(missing) > made_max:
        return None
    made = make(missing) if missing else {}
    keep(tx, job_id, made)
    now = libraries.begin_switch(tx, now, wanted, job_id)
    if now.second != wanted.second:
        second_stage.begin(tx, now, wanted.second, wanted.second_dimension)
    return made


def switch(tx: Transaction, library_id: int, chunks_max: int, vectors: Vectors | None = None) -> Replaced:
    """Replaces the documents of the next drafts, and deletes these: at least one if there is any, and others as long as
    no more than `chunks_max` chunks are removed and added. When there are no more, the switch ends.

    `vectors` are those of all drafts, for the step in which the switch begins; None if searches are not to use them.
    Raises VecError `not_found` if the library was deleted.
    """
    library = libraries.living(tx, library_id)
    if library.switch_job is None:
        return Replaced(0, True)
    rows: list[Any] = tx.db.execute(
        "SELECT job_drafts.label, texts, vectors, job_drafts.lines, id, title, metadata, chunks FROM job_drafts"
        " LEFT JOIN documents"
        " ON documents.label = job_drafts.label AND library_id = ? AND removed_seq IS NULL"
        " WHERE job_id = ? ORDER BY job_drafts.label LIMIT ?",
        (library_id, library.switch_job, chunks_max),
    ).fetchall()
    done = len(rows) < chunks_max
    entries: list[Entry] = []
    texts: list[str | None] = []
    indexed: list[str | None] = []
    packed: list[bytes] = []
    chunks, last_label = 0, -1
    for label, texts_json, its_vectors, lines, document_id, title, metadata, present in rows:
        if document_id is not None:  # else it was changed or deleted since
            new: list[str | None] = orjson.loads(texts_json)
            chunks += present + len(new)
            if entries and chunks > chunks_max:
                done = False
                break
            own = [its_vectors] if any(documents.indexed(title, text) is None for text in new) else None
            digest = documents.content_digest(title, metadata, new, own, lines)
            entries.append(
                Entry(len(entries), document_id, False, title, metadata, digest, len(texts), len(new), lines)
            )  # fmt: skip
            texts += new
            indexed += [documents.indexed(title, text) for text in new]
            packed.append(its_vectors)
        last_label = label
    tx.db.execute("DELETE FROM job_drafts WHERE job_id = ? AND label <= ?", (library.switch_job, last_label))
    if entries:
        first = len(tx.changes)
        matrix = np.frombuffer(b"".join(packed), "<f4").reshape(len(texts), -1)
        documents.write(tx, library, DocumentBatch(entries, texts, indexed, matrix), again=True)
        tx.changes[first].replaced = vectors
    elif vectors is not None:  # the first drafts are all of documents that were changed since
        nothing = np.empty((0, library.dimension or 0), np.float32)
        tx.changes.append(Change(library_id, tx.seq, np.empty(0, np.int64), nothing, [], replaced=vectors))
    if done:
        libraries.end_switch(tx, tx.catalogue.by_id[library_id])
    return Replaced(len(entries), done)
