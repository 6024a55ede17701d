"""Metadata updates: writes a new version of a document that has the chunks and the vectors of the present one.

Nothing is embedded or chunked. The log records an update of the document and its chunks, as for any other, so no other
part needs to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import VecError
from . import checksums, documents, reembed
from .catalogue import Library
from .documents import DocumentBatch, Entry
from .transaction import Transaction

#: A document to update: its id, and the digest that it must still have; None: any.
Wanted = tuple[str, str | None]

#: From the metadata of a document to its new metadata, both as JSON. Raises VecError if that is not possible.
Change = Callable[[str], str]


@dataclass(slots=True)
class Patched:
    """The outcome for the first `taken` of the wanted documents."""

    taken: int
    updated: int = 0
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    failed: list[tuple[str, VecError]] = field(default_factory=list)  # by id


def patch(tx: Transaction, library: Library, wanted: Sequence[Wanted], change: Change, chunks_max: int) -> Patched:
    """Updates the first of the wanted documents, as many as have `chunks_max` chunks together, at least one. Documents
    whose digest is another than the wanted one are left out."""
    there = documents.present(tx.db, library.library_id, [each_id for each_id, _ in wanted])
    done = Patched(0)
    versions: list[tuple[int, int]] = []
    digests: dict[int, str] = {}
    chunks = 0
    for place, (document_id, digest) in enumerate(wanted):
        label, count, present = there.get(place, (None, 0, ""))
        if versions and chunks + count > chunks_max:
            break
        done.taken += 1
        if label is None:
            if digest is None:
                done.missing.append(document_id)
        elif digest in (None, present) and label not in digests:
            chunks += count
            versions.append((label, count))
            digests[label] = present
    if versions:
        _write(tx, library, versions, digests, change, done)
    return done


def _write(
    tx: Transaction,
    library: Library,
    versions: list[tuple[int, int]],
    digests: dict[int, str],
    change: Change,
    done: Patched,
) -> None:
    """Writes new versions of these documents (label, chunks), whose stored digests are given by label."""
    outlines = documents.outlines(tx.db, [label for label, _ in versions])
    contents = documents.contents(tx.db, versions, vectors=True, sound_only=True)
    if library.switch_job is not None:  # the stored vectors are those of the embedder before
        contents |= reembed.draft_contents(tx.db, library.switch_job, [label for label, _ in versions])
    entries: list[Entry] = []
    texts: list[str | None] = []
    indexed: list[str | None] = []
    packed: list[bytes] = []
    for label, _ in versions:
        if label not in outlines or label not in contents:
            damage = checksums.damaged(tx.db, label, "its contents")
            done.failed.append((str(damage.details.get("id", label)), damage))
            continue
        document_id, title, metadata = outlines[label]
        its_texts, its_vectors, _ = contents[label]
        lines = contents[label].lines_json
        try:
            new = change(metadata)
        except VecError as error:
            done.failed.append((document_id, error))
            continue
        if new == metadata:
            done.unchanged += 1
            continue
        assert its_vectors is not None
        # Whether the vectors were ingested or computed is not stored, but the digest covers only those that were.
        digest_given = documents.content_digest(title, metadata, its_texts, its_vectors, lines)
        given = digest_given == digests[label] or None in its_texts
        digest = documents.content_digest(title, new, its_texts, its_vectors if given else None, lines)
        entries.append(Entry(len(entries), document_id, False, title, new, digest, len(texts), len(its_texts), lines))
        texts += its_texts
        indexed += [documents.indexed(title, text) for text in its_texts]
        packed += its_vectors
    if entries:
        matrix = np.frombuffer(b"".join(packed), "<f4").reshape(len(texts), -1)
        documents.write(tx, library, DocumentBatch(entries, texts, indexed, matrix))
    done.updated += len(entries)
