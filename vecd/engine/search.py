"""Search: by vector, by text, or both fused.

`hybrid` fuses the two rankings by reciprocal rank (Cormack, Clarke, Büttcher, 2009, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods"): a hit's score is the sum of 1 / (60 + its rank) over the rankings that
have it. tests/bench/quality.py measures all three on a judged collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import Code, VecError
from ..store import documents as store
from ..store import text
from ..store.catalogue import Library
from ..store.events import chunk_id
from ..text import embedders
from .core import Engine
from .libraries import find

MODES: Final = ("auto", "vector", "text", "hybrid")

_RRF = 60
#: Fusing needs more than k of each ranking: what one puts at 30 and the other at 2 may be among the best ten.
_FUSED_DEPTH_MIN = 100
#: Words of a query that full text looks for; longer ones are documents.
_WORDS_MAX = 256
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for: a text, a packed vector (little-endian float32), or both."""

    library: str
    text: str | None
    vector: bytes | None
    k: int
    mode: str = "auto"


def search(engine: Engine, query: Query) -> list[tuple[int, float]]:
    """The k best chunks as (label, score), best first; fewer only if the library holds fewer. Blocks.

    Raises VecError `not_found`, `invalid_request`, `dimension_mismatch`, `index_failed` or `embedder_failed`.
    """
    library = find(engine, query.library)
    mode = _mode(library, query)
    vector = None if mode == "text" else _vector(engine, library, query)
    if not library.chunks:
        return []
    depth = query.k if mode != "hybrid" else max(query.k, _FUSED_DEPTH_MIN)
    near: list[tuple[int, float]] = []
    if vector is not None:
        found = engine.indexes.of(library).search(vector, depth)
        scores, labels = found.result()
        near = list(zip(labels.tolist(), scores.tolist(), strict=True))
    if mode == "vector":
        return near
    words = list(dict.fromkeys(_WORD.findall((query.text or "").lower())))[:_WORDS_MAX]
    with engine.database.snapshot() as db:
        matching = text.search(db, library.library_id, words, depth)
    return matching if mode == "text" else fuse([near, matching])[: query.k]


def hits(engine: Engine, found: list[tuple[int, float]], first_rank: int = 1) -> list[dict[str, Any]]:
    """Search results as people see them, `first_rank` being the rank of the first. Blocks."""
    with engine.database.snapshot() as db:
        rows = store.chunk_rows(db, [label for label, _ in found])
    return list(_hits(rows, found, first_rank))


def _hits(rows: dict[int, Any], found: list[tuple[int, float]], rank: int) -> Iterator[dict[str, Any]]:
    for place, (label, score) in enumerate(found):
        document_id, position, title, body, metadata = rows[label]
        yield {
            "rank": rank + place,
            "score": round(score, 6),
            "document_id": document_id,
            "chunk_id": chunk_id(document_id, position),
            "title": title,
            "text": body,
            "metadata": metadata,
        }


def fuse(rankings: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion of rankings of (label, score); equal sums are in the order of their labels."""
    sums: dict[int, float] = {}
    for ranking in rankings:
        for rank, (label, _) in enumerate(ranking, 1):
            sums[label] = sums.get(label, 0.0) + 1 / (_RRF + rank)
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))


def _mode(library: Library, query: Query) -> str:
    """The mode that `auto` stands for; otherwise the one that was asked for, if it can be done."""
    if query.text is None and query.vector is None:
        raise VecError(Code.INVALID_REQUEST, "a search needs a query text or a vector", field="query")
    can_embed = query.vector is not None or embedders.dimension_of(library.embedder) is not None
    if query.mode == "auto":
        if query.text is None:
            return "vector"
        return "hybrid" if can_embed else "text"
    if query.mode != "vector" and query.text is None:
        raise VecError(Code.INVALID_REQUEST, f"mode {query.mode!r} needs a query text", field="query")
    if query.mode != "text" and not can_embed:
        raise VecError(
            Code.INVALID_REQUEST,
            f"library {library.name!r} has no embedder, so mode {query.mode!r} needs a vector",
            "give --vector, or use --mode text",
            field="vector",
        )
    return query.mode


def _vector(engine: Engine, library: Library, query: Query) -> npt.NDArray[np.float32]:
    if query.vector is None:
        embedder = engine.embedder(library.embedder)
        assert embedder is not None
        assert query.text is not None
        made: npt.NDArray[np.float32] = embedder.embed([query.text])[0]
        return made
    if len(query.vector) % 4 or not query.vector:
        raise VecError(Code.INVALID_REQUEST, "a vector travels as bytes: little-endian float32", field="vector")
    vector = np.frombuffer(query.vector, "<f4")
    if library.dimension is not None and len(vector) != library.dimension:
        raise VecError(
            Code.DIMENSION_MISMATCH,
            f"library {library.name!r} holds {library.dimension}-dimension vectors, and the query's has {len(vector)}",
            field="vector",
        )
    if not np.isfinite(vector).all():
        raise VecError(Code.INVALID_REQUEST, "the query's vector holds a number that is not finite", field="vector")
    return vector


assert limits.HITS_MAX >= _FUSED_DEPTH_MIN
