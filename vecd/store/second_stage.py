"""The second stage of a library: vectors of a slower, better embedder, which follow the documents.

A document is written with the vectors of the library's first embedder, and is found by them at once. The second stage
embeds chunks in the order of their labels, in steps. A library's `second_label` is how far it has come: what has a
label up to there has its second vector, or never gets one (no text, or the embedder refuses it). So a step is the same
after a crash, and the vectors that a former embedder left behind do not count.

A vector is found by the digest of its text, too: a new version of a document, or a copy, embeds only what is new.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from ..errors import VecError
from . import checksums, documents, events, libraries
from .catalogue import Library
from .documents import LeftOut
from .transaction import Change, SecondChange, Transaction

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Bytes of a digest: two texts of one store never share one.
_DIGEST_BYTES = 16

_NO_LABELS: Labels = np.empty(0, np.int64)
_NO_VECTORS: Floats = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class PendingPage:
    """Chunks that the second stage is to process next, and the vectors that are known for their texts."""

    after: int  # it begins behind this label
    chunks: list[int]  # all of them, ascending
    labels: list[int]  # those with a text
    texts: list[str]  # what is embedded: title and text
    digests: list[bytes]
    known: dict[bytes, bytes]  # digest -> vector, little-endian float32
    last_label: int  # when this is stored, the stage has come up to here
    more: bool  # whether there are others behind it


def digest(embedder: str, text: str) -> bytes:
    """Names the vector that an embedder makes of a text."""
    return blake2b(orjson.dumps((embedder, text)), digest_size=_DIGEST_BYTES).digest()


# --- reading --------------------------------------------------------------------------------------------------------


def pending(db: apsw.Connection, library: Library, after: int, count: int) -> PendingPage:
    """The next chunks of the library after the label `after` (exclusive): up to `count`. Damaged ones are left out:
    they are found by the first stage, if at all."""
    assert library.second is not None
    end: int = db.execute("SELECT label FROM log").get
    # The document that the last step has begun, and those behind it.
    rows: list[Any] = db.execute(
        "SELECT label, chunks FROM documents WHERE library_id = ?1 AND removed_seq IS NULL AND label >="
        " coalesce((SELECT max(label) FROM documents WHERE label <= ?2), 0) AND label + chunks - 1 >= ?2"
        " ORDER BY label LIMIT ?3",
        (library.library_id, after + 1, count + 1),
    ).fetchall()
    wanted = [each for label, chunks in rows for each in range(max(label, after + 1), label + chunks)]
    page = np.array(wanted[:count], np.int64)
    more = len(wanted) > count
    labels: list[int] = []
    texts: list[str] = []

    def left_out(label: int, error: VecError) -> None:
        pass

    for its_labels, titles, its_texts in documents.texts(db, page, left_out):
        for label, title, text in zip(its_labels.tolist(), titles, its_texts, strict=True):
            if (indexed := documents.indexed(title, text)) is not None:
                labels.append(label)
                texts.append(indexed)
    digests = [digest(library.second, text) for text in texts]
    last_label = int(page[-1]) if more else end
    return PendingPage(after, page.tolist(), labels, texts, digests, _known(db, digests), last_label, more)


def names(db: apsw.Connection, labels: list[int]) -> dict[int, str]:
    """Label -> id of these chunks, without damaged ones."""
    rows = documents.chunk_rows(db, labels, lambda label, error: None)
    return {label: f"{row.document_id}#{row.position}" for label, row in rows.items()}


def _known(db: apsw.Connection, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    rows = db.execute(
        "SELECT second_vectors.digest, vector, sum FROM json_each(?) AS wanted CROSS JOIN second_vectors"
        " ON second_vectors.digest = unhex(wanted.value) WHERE vector IS NOT NULL",
        (_json([each.hex() for each in digests]),),
    )
    return {each: vector for each, vector, crc in rows if zlib.crc32(vector) == crc}


def labels(db: apsw.Connection, library_id: int) -> tuple[Labels, Labels, int]:
    """The current chunks of a library that have a second vector, ascending; the first chunks of all its documents,
    ascending; and the generation of the stage."""
    last_label, generation = db.execute(
        "SELECT CASE WHEN second IS NULL THEN 0 ELSE second_label END, second_generation FROM libraries"
        " WHERE library_id = ?",
        (library_id,),
    ).get
    living, firsts = documents.living_chunks(db, library_id)
    living = living[: np.searchsorted(living, last_label, "right")]
    if not len(living):
        return living, firsts, generation
    packed: str = db.execute(
        "SELECT json_group_array(label) FROM second_vectors WHERE label BETWEEN ? AND ? AND vector IS NOT NULL",
        (int(living[0]), int(living[-1])),
    ).get
    return np.intersect1d(living, np.array(orjson.loads(packed), np.int64)), firsts, generation


def vectors(db: apsw.Connection, wanted: Labels, dimension: int, left_out: LeftOut) -> tuple[Labels, Floats]:
    """The second vectors of these chunks, which ascend: labels, and vectors of shape (n, dimension). Those that the
    vacuum has deleted are missing, and so are damaged ones: `left_out` is called with the error of each."""
    rows: list[Any] = db.execute(
        "SELECT label, CAST(vector AS BLOB), sum FROM json_each(?) AS wanted CROSS JOIN second_vectors"
        " ON label = wanted.value WHERE vector IS NOT NULL",
        (_json(wanted.tolist()),),
    ).fetchall()
    found: list[int] = []
    packed: list[bytes] = []
    for label, vector, crc in rows:
        if zlib.crc32(vector) != crc or len(vector) != 4 * dimension:
            left_out(label, checksums.damaged(db, label, "a vector of the second embedder"))
            continue
        found.append(label)
        packed.append(vector)
    return np.array(found, np.int64), np.frombuffer(b"".join(packed), "<f4").reshape(len(found), dimension)


def bad(db: apsw.Connection, after: int, count: int) -> tuple[list[str], int | None]:
    """Checks up to `count` second vectors after the label `after` (exclusive) against their checksums: the problems,
    and the last label that was checked, None if no more follow."""
    rows: list[Any] = db.execute(
        "SELECT label, CAST(vector AS BLOB), sum FROM second_vectors WHERE label > ? ORDER BY label LIMIT ?",
        (after, count),
    ).fetchall()
    problems = [
        checksums.damaged(db, label, "a vector of the second embedder").message
        for label, vector, crc in rows
        if zlib.crc32(vector or b"") != crc
    ]
    return problems, rows[-1][0] if len(rows) == count else None


# --- writing --------------------------------------------------------------------------------------------------------


def begin(tx: Transaction, library: Library, embedder: str | None, dimension: int | None) -> Library:
    """Sets the second embedder of a library (None: it has one stage), whose vectors are made again from the first chunk
    on; returns the new version of the library. `dimension`: of its vectors, if that is known."""
    library = replace(
        library,
        second=embedder,
        second_dimension=dimension,
        second_label=0,
        second_chunks=0,
        second_refused=0,
        second_generation=library.second_generation + 1,
    )
    tx.db.execute(
        "UPDATE libraries SET second = ?, second_dimension = ?, second_label = 0, second_chunks = 0,"
        " second_refused = 0, second_generation = ? WHERE library_id = ?",
        (embedder, dimension, library.second_generation, library.library_id),
    )
    tx.catalogue = tx.catalogue.replaced(library)
    tx.changes.append(_change(tx, library, SecondChange(_NO_LABELS, _NO_VECTORS, begun=True)))
    return library


def forget(tx: Transaction, library_id: int, after: int, count: int) -> int | None:
    """Deletes the second vectors of up to `count` document versions of a library that has one stage, after the label
    `after` (exclusive); returns the last label, None if no more follow."""
    if tx.catalogue.by_id[library_id].second is not None:
        return None
    rows: list[Any] = tx.db.execute(
        "SELECT label, chunks FROM documents WHERE library_id = ? AND label > ? ORDER BY label LIMIT ?",
        (library_id, after, count),
    ).fetchall()
    tx.db.execute(
        "DELETE FROM second_vectors WHERE label IN (SELECT second_vectors.label FROM json_each(?) CROSS JOIN"
        " second_vectors ON second_vectors.label BETWEEN value ->> 0 AND (value ->> 0) + (value ->> 1) - 1)",
        (_json(rows),),
    )
    return rows[-1][0] if len(rows) == count else None


def store(tx: Transaction, library: Library, page: PendingPage, made: dict[int, bytes]) -> bool:
    """Stores the vectors of a page, by label (little-endian float32), and moves the stage on to its end; when that
    completes the library, an event says so. A chunk of the page without a vector never gets one. Returns False, and
    changes nothing, if the stage has started again since the page was read, or the library was deleted.

    Raises VecError `dimension_mismatch`."""
    now = tx.catalogue.by_id[library.library_id]
    if now.deleted or (now.second_generation, now.second_label) != (library.second_generation, page.after):
        return False
    for vector in made.values():
        if now.second_dimension is None:
            now = replace(now, second_dimension=len(vector) // 4)
        elif len(vector) != 4 * now.second_dimension:
            raise libraries.mismatch(
                replace(now, embedder=now.second or "", dimension=now.second_dimension), len(vector) // 4
            )
    rows = []
    for label, each in zip(page.labels, page.digests, strict=True):
        its = made.get(label)
        rows.append((label, each.hex(), None if its is None else its.hex(), zlib.crc32(its or b"")))
    tx.db.execute(
        "INSERT OR REPLACE INTO second_vectors (label, digest, vector, sum)"
        " SELECT value ->> 0, unhex(value ->> 1), unhex(value ->> 2), value ->> 3 FROM json_each(?)"
        " WHERE EXISTS (SELECT 1 FROM chunks WHERE chunks.label = value ->> 0)",  # the vacuum may have deleted it
        (_json(rows),),
    )
    living = documents.libraries_of(tx.db, page.chunks)
    waited = now.second_chunks < now.chunks
    refused = sum(label in living and label not in made for label in page.labels)
    now = replace(
        now,
        second_label=page.last_label,
        second_chunks=now.second_chunks + len(living),
        second_refused=now.second_refused + refused,
    )
    tx.db.execute(
        "UPDATE libraries SET second_dimension = ?, second_label = ?, second_chunks = ?, second_refused = ?"
        " WHERE library_id = ?",
        (now.second_dimension, now.second_label, now.second_chunks, now.second_refused, now.library_id),
    )
    tx.catalogue = tx.catalogue.replaced(now)
    found = [label for label in page.labels if label in made and label in living]
    if found:
        matrix = np.frombuffer(b"".join(made[label] for label in found), "<f4").reshape(len(found), -1)
        tx.changes.append(_change(tx, now, SecondChange(np.array(found, np.int64), matrix)))
    if waited and now.second_chunks >= now.chunks:
        data = {"embedder": now.described()["embedder"], "chunks": now.chunks}
        events.append(tx, events.LIBRARY_EMBEDDED, now.library_id, orjson.dumps(data).decode())
    return True


def _change(tx: Transaction, library: Library, second: SecondChange) -> Change:
    return Change(library.library_id, tx.seq, _NO_LABELS, _NO_VECTORS, removed=[], second=second)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
