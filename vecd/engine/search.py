"""Search: by vector, by text, or both fused.

`hybrid` fuses the two rankings by reciprocal rank (Cormack, Clarke, Büttcher, 2009, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods"): a hit's score is the sum of 1 / (60 + its rank) over the rankings that
have it. tests/bench/quality.py measures all three on a judged collection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..index.flat import Floats, Labels
from ..store import documents as store
from ..store import libraries, text
from ..store.catalogue import Library
from ..store.events import chunk_id
from ..text import embedders
from .core import Engine
from .draft import why_unusable
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


async def search(engine: Engine, query: Query) -> list[tuple[int, float]]:
    """The k best chunks as (label, score), best first; fewer only if the library holds fewer.

    Raises VecError `not_found`, `invalid_request`, `dimension_mismatch`, `index_failed` or `embedder_failed`.
    """
    library = find(engine, query.library)
    mode = _mode(library, query)
    vector = None if mode == "text" else await _vector(engine, library, query)
    if not library.chunks:
        return []
    depth = query.k if mode != "hybrid" else max(query.k, _FUSED_DEPTH_MIN)
    near: asyncio.Future[tuple[Floats, Labels]] | None = None
    if vector is not None:
        # Awaited here and not in a reader thread: a library that is still loading must not hold up other reads.
        near = asyncio.wrap_future(engine.indexes.of(library).search(vector, depth))
    rankings: list[list[tuple[int, float]]] = []
    if mode != "vector":
        rankings.append(await engine.read(_full_text, engine, library, query.text or "", depth))
    if near is not None:
        scores, labels = await near
        rankings.append(list(zip(labels.tolist(), scores.tolist(), strict=True)))
    return rankings[0] if mode != "hybrid" else fuse(rankings)[: query.k]


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
    if query.text is not None and not query.text.strip():
        raise VecError(Code.INVALID_REQUEST, "the query is empty", field="query")
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


def _full_text(engine: Engine, library: Library, query: str, k: int) -> list[tuple[int, float]]:
    words = list(dict.fromkeys(_WORD.findall(query.lower())))[:_WORDS_MAX]
    with engine.database.snapshot() as db:
        if not libraries.alive(db, library.library_id):
            raise VecError(Code.NOT_FOUND, f"library {library.name!r} has just been deleted", library=library.name)
        return text.search(db, library.library_id, words, k)


async def _vector(engine: Engine, library: Library, query: Query) -> Floats:
    if query.vector is None:
        return await engine.read(_embedded, engine, library.embedder, query.text or "")
    if len(query.vector) % 4 or not query.vector:
        raise VecError(Code.INVALID_REQUEST, "a vector travels as bytes: little-endian float32", field="vector")
    vector = np.frombuffer(query.vector, "<f4")
    if library.dimension is not None and len(vector) != library.dimension:
        raise VecError(
            Code.DIMENSION_MISMATCH,
            f"library {library.name!r} holds {library.dimension}-dimension vectors, and the query's has {len(vector)}",
            field="vector",
        )
    if (why := why_unusable(vector)) is not None:
        raise VecError(Code.INVALID_REQUEST, f"the query's vector {why}", field="vector")
    return vector


def _embedded(engine: Engine, embedder_name: str, query: str) -> Floats:
    embedder = engine.embedder(embedder_name)
    assert embedder is not None  # _mode has seen to that
    vector: Floats = embedder.embed([query])[0]
    return vector


assert limits.HITS_MAX >= _FUSED_DEPTH_MIN
