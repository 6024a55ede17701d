"""More like this: turns a stored document into a query for documents that are similar to it.

Where its vectors can be compared with those of a library, the query is their mean; where the library has an embedder of
another kind, the document's text is embedded again; otherwise its words are the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..errors import Code, VecError
from ..index.rows import Floats
from ..store import documents as store
from ..store.catalogue import Library
from ..text import embedders
from .engine import Engine
from .search import Query

#: Characters of the document that are used as a text: several times what an embedder reads.
_TEXT_CHARS = 20_000
#: Quotes and asterisks, which mean phrases and prefixes in a query.
_PLAIN = str.maketrans(dict.fromkeys('"“”„«»*', " "))


class Example(NamedTuple):
    """The document that others are to be similar to."""

    library: Library
    labels: range  # of its chunks
    text: str | None  # title and text, as a query; None if it has neither
    vector: Floats | None  # shape (dimension,); None if it is zero


def example(engine: Engine, libraries: Sequence[Library], document_id: str) -> Example:
    """The document of that id in the first of the libraries that has it. Blocks. Raises VecError `not_found`, or
    `damaged`."""
    with engine.database.read_transaction() as db:
        for library in libraries:
            (found,) = store.get(db, library.library_id, [document_id])
            if found is None:
                continue
            texts, vectors, _ = store.contents(db, [(found.label, found.chunks)], vectors=True)[found.label]
            text = "\n".join(each for each in (found.title, *texts) if each)[:_TEXT_CHARS].translate(_PLAIN)
            labels = range(found.label, found.label + found.chunks)
            return Example(library, labels, text if text.strip() else None, _mean(library, vectors or []))
    where = f"library {libraries[0].name!r}" if len(libraries) == 1 else f"any of {len(libraries):,} libraries"
    raise VecError(Code.NOT_FOUND, f"document {document_id!r} does not exist in {where}", id=document_id)


def query_for(given: Query, like: Example, library: Library) -> Query:
    """The query for documents of `library` that are similar to the example, which itself is left out."""
    source = like.library
    comparable = (library.embedder, library.dimension, library.metric) == (
        source.embedder, source.dimension, source.metric,
    )  # fmt: skip
    # While a reembed replaces the documents, the stored vectors are not those that searches compare with.
    comparable = comparable and library.switch_job is None and source.switch_job is None and like.vector is not None
    vector = like.vector.astype("<f4").tobytes() if comparable and like.vector is not None else None
    mode = given.mode
    if mode == "auto":
        mode = "vector" if comparable or (embedders.embeds(library.embedder) and like.text is not None) else "text"
    if like.text is None and (mode != "vector" or not comparable):
        raise VecError(
            Code.INVALID_REQUEST,
            f"the document has no text, so library {library.name!r} cannot be searched for similar ones by {mode!r}",
            field="vector",
        )
    return replace(
        given,
        library=library.name,
        text=None if mode == "vector" and comparable else like.text,
        vector=None if mode == "text" else vector,
        mode=mode,
        group=given.group or ("document" if given.mode == "auto" else None),
        without=like.labels if library.library_id == source.library_id else None,
    )


def _mean(library: Library, vectors: list[bytes]) -> Floats | None:
    rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1) if vectors else np.empty((0, 0), "<f4")
    if not rows.size:
        return None
    if library.metric == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1)
    mean: Floats = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean if mean.any() else None
