"""Vectors that a changed document keeps: those of its chunks whose text, and title, are as they were.

A file of a hundred chunks in which one line changes is embedded in one or two chunks. Short documents of one chunk are
embedded again, unless the embedder is slow: that takes no longer than to look for what they had before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..store import documents as store
from ..store import libraries as store_libraries
from ..store.catalogue import Library
from ..store.documents import Entry

if TYPE_CHECKING:
    from .engine import Engine


def kept_vectors(
    engine: Engine, library: Library, entries: Sequence[Entry], indexed: Sequence[str | None], missing: Sequence[int]
) -> dict[int, bytes]:
    """Row of the batch -> vector (little-endian float32), for those of the `missing` rows that the library holds in the
    present version of their document. `indexed` are the embedder's inputs, by row. Blocks."""
    if not library.documents:
        return {}
    slow = engine.executor.offloads(library.embedder)
    wanted = set(missing)
    candidates = [each for each in entries if each.offset in wanted and (slow or each.chunks > 1)]
    if not candidates:
        return {}
    with engine.database.read_transaction() as db:
        # Not from the catalogue: a reembed may have begun since.
        if not store_libraries.embedded_by(db, library.library_id, library.embedder):
            return {}
        there = store.present(db, library.library_id, [each.id for each in candidates])
        if not there:
            return {}
        labels = [label for label, _, _ in there.values()]
        outlines = store.outlines(db, labels)
        contents = store.contents(db, [(label, n) for label, n, _ in there.values()], vectors=True, sound_only=True)
    kept: dict[int, bytes] = {}
    for place, (label, _, digest) in there.items():
        if label not in outlines or label not in contents:
            continue  # damaged
        _, title, metadata = outlines[label]
        content = contents[label]
        if digest != store.content_digest(title, metadata, content.texts, None, content.lines_json):
            continue  # its vectors were ingested
        texts = (store.indexed(title, text) for text in content.texts)
        known = dict(zip(texts, content.vectors or (), strict=True))
        entry = candidates[place]
        for row in range(entry.offset, entry.offset + entry.chunks):
            if row in wanted and (vector := known.get(indexed[row])) is not None:
                kept[row] = vector
    return kept
