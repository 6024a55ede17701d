"""Copies of libraries: pages of documents as batches for another library with the same settings.

Documents are copied in the order of their labels, so one that is changed meanwhile comes again, behind the others: a
copy that has no more to copy, and nothing that the source does not have, equals the source.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import apsw
import numpy as np
import orjson

from ..errors import Code, VecError
from . import documents, events, libraries
from .catalogue import Library
from .documents import DocumentBatch, Entry
from .transaction import Transaction


def create(tx: Transaction, source: Library, name: str) -> Library:
    """Creates the library for a copy. Raises VecError `exists`, or `busy` while the source is being re-embedded."""
    check_settings(source, source)
    wanted = replace(
        source, name=name, former_names=frozenset(), recall_missed=False, embedder_label=0, second_label=0,
        second_chunks=0, second_refused=0, second_generation=0,
    )  # fmt: skip
    return libraries.create(tx, wanted)[0]


def check_settings(source: Library, target: Library) -> None:
    """Raises VecError `busy` if the vectors of the two cannot be compared (any more)."""
    same = all(
        getattr(source, name) == getattr(target, name) for name in ("embedder", "second", "metric", "chunk_chars")
    )
    if not same or source.switch_job is not None or target.switch_job is not None:
        raise VecError(
            Code.BUSY,
            f"library {source.name!r} is being re-embedded, or was after its copy {target.name!r} had begun",
            "wait for that job, delete the copy, and copy the library again",
            library=source.name,
        )


def page(db: apsw.Connection, library_id: int, after: int, chunks_max: int) -> tuple[DocumentBatch, int]:
    """The current documents after the label `after` (exclusive), as many as have `chunks_max` chunks together, at least
    one; and the label of the last. An empty batch: there are no more. Raises VecError `damaged`."""
    rows: list[Any] = db.execute(
        "SELECT label, chunks, lower(hex(digest)) FROM documents"
        " WHERE library_id = ? AND removed_seq IS NULL AND label > ? ORDER BY label LIMIT ?",
        (library_id, after, chunks_max),
    ).fetchall()
    versions: list[tuple[int, int]] = []
    total = 0
    for label, chunks, _ in rows:
        if versions and total + chunks > chunks_max:
            break
        total += chunks
        versions.append((label, chunks))
    outlined = {each.label: each for each in documents.at(db, [label for label, _ in versions])}
    contents = documents.contents(db, versions, vectors=True)
    entries: list[Entry] = []
    texts: list[str | None] = []
    indexed: list[str | None] = []
    packed: list[bytes] = []
    for (label, chunks), (_, _, digest) in zip(versions, rows, strict=False):
        each = outlined[label]
        found = contents[label]
        metadata = orjson.dumps(each.metadata, option=orjson.OPT_SORT_KEYS).decode()
        entries.append(
            Entry(
                len(entries), each.id, title=each.title, metadata=metadata, digest=digest, offset=len(texts),
                chunks=chunks, lines=found.lines_json,
            )
        )  # fmt: skip
        texts += found.texts
        indexed += [documents.indexed(each.title, text) for text in found.texts]
        packed += found.vectors or []
    matrix = np.frombuffer(b"".join(packed), "<f4").reshape(len(texts), -1) if texts else np.empty((0, 0), np.float32)
    return DocumentBatch(entries, texts, indexed, matrix), versions[-1][0] if versions else after


def surplus(db: apsw.Connection, source_id: int, target_id: int) -> tuple[list[str], int]:
    """The ids of documents that the copy has and the source has not, and the seq of this state."""
    packed: str = db.execute(
        "SELECT json_group_array(id) FROM documents AS copied INDEXED BY documents_live"
        " WHERE library_id = ?2 AND removed_seq IS NULL AND NOT EXISTS (SELECT 1 FROM documents AS kept"
        " WHERE kept.library_id = ?1 AND kept.id = copied.id AND kept.removed_seq IS NULL)",
        (source_id, target_id),
    ).get
    return orjson.loads(packed), events.head(db)


def removed_since(tx: Transaction, source_id: int, seq: int) -> list[str]:
    """The ids of documents that were removed from the source after that seq (exclusive), perhaps by an update."""
    return [each_id for each_id, _ in documents.removed(tx.db, source_id, tx.label, seq, "")]


def delete_surplus(tx: Transaction, source: Library, target: Library, ids: list[str]) -> int:
    """Deletes those of these documents of the copy that the source does not have; returns how many."""
    kept = documents.present(tx.db, source.library_id, ids)
    entries = [Entry(place, each, delete=True) for place, each in enumerate(ids) if place not in kept]
    outcomes = documents.write(tx, target, DocumentBatch(entries, [], [], np.empty((0, 0), np.float32)))
    return sum(outcome.seq is not None for outcome in outcomes)
