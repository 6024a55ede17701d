"""Search: by vector, by text, or both fused.

`hybrid` fuses the two rankings by reciprocal rank (Cormack, Clarke, Büttcher, 2009, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods"): a hit's score is the sum of 1 / (60 + its rank) over the rankings that
have it. tests/bench/quality.py measures all three on a judged collection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..filters.attributes import DocumentSelection
from ..filters.language import Doubt
from ..index.live import LiveIndex, Options
from ..index.rows import Floats, Labels, Selection
from ..store import libraries, text
from ..store.catalogue import Library
from ..text import embedders
from .core import Engine
from .desk import Asked
from .draft import why_unusable
from .hits import Ranking
from .libraries import find
from .selections import Filter

Select = Callable[[], Selection]

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
    where: Filter = ()
    ef: int | None = None  # the effort of an approximate search
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A ranking of chunks, and its first hits as people see them."""

    ranking: Ranking
    hits: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asking:
    """A search that has been checked and can be made: its vector, if it brought one, and what it may find."""

    engine: Engine
    library: Library
    query: Query
    mode: str
    vector: Floats | None
    select: Select | None

    def options(self, k: int) -> Options:
        return Options(k, self.query.ef, self.query.exact, self.select)


async def search(engine: Engine, query: Query) -> Found:
    """The k best chunks; fewer only if fewer are there that the filter lets through.

    Raises VecError `not_found`, `invalid_request`, `invalid_filter`, `dimension_mismatch`, `index_failed` or
    `embedder_failed`.
    """
    library = find(engine, query.library)
    mode = _mode(library, query)
    vector = _given(library, query) if query.vector is not None else None
    if not library.chunks:
        return Found([], [])
    if mode != "text":
        live = engine.indexes.of(library)
        if not live.ready:  # awaited here and not in a searcher's thread: loading must not hold up other libraries
            await asyncio.wrap_future(live.loaded())
    if not query.where:
        return await _of_one_embedder(Asking(engine, library, query, mode, vector, None))
    with engine.selections.hold(library, query.where) as attributes:
        if engine.selections.lacks(attributes, query.where):
            await engine.read(engine.selections.load, library, attributes, query.where)
        doubts: list[Doubt] = []

        def select() -> DocumentSelection:
            selection = attributes.select(query.where)
            doubts[:] = selection.doubts
            return selection

        found = await _of_one_embedder(Asking(engine, library, query, mode, vector, select))
        return replace(found, warnings=[doubt.sentence for doubt in doubts])


async def _of_one_embedder(asking: Asking) -> Found:
    """The answer; asked again if the library was switched to another embedder meanwhile: one's vector says nothing
    among the other's."""
    found = await _answer(asking)
    now = asking.engine.database.catalogue.by_id[asking.library.library_id]
    return found if now.embedder == asking.library.embedder else await search(asking.engine, asking.query)


async def _answer(asking: Asking) -> Found:
    """Vector searches are answered together at the desk; those that look through texts, each on a thread of its own."""
    if asking.mode == "vector":
        return await asking.engine.desk.ask(_together, asking)
    return await asking.engine.search(_worded, asking)


def _together(batch: list[Asked[Asking, Found]]) -> None:
    """Answers vector searches: all of a batch in one turn of each index, all rows for their hits at once. Blocks."""
    engine = batch[0].question.engine
    flying: list[tuple[Asked[Asking, Found], Future[tuple[Floats, Labels]]]] = []
    lives: dict[int, LiveIndex] = {}
    for asked in batch:
        with asked.failing():
            asking = asked.question
            live = lives[asking.library.library_id] = engine.indexes.of(asking.library)
            flying.append((asked, live.search(_embedded(asking), asking.options(asking.query.k), wake=False)))
    for live in lives.values():
        live.turn()
    rankings: list[tuple[Asked[Asking, Found], Ranking]] = []
    for asked, near in flying:
        with asked.failing():
            rankings.append((asked, _pairs(*near.result())))
    first = engine.hits.of_each([ranking[: limits.PAGE_ITEMS] for _, ranking in rankings])
    for (asked, ranking), hits in zip(rankings, first, strict=True):
        asked.answer = Found(ranking, hits)


def _worded(asking: Asking) -> Found:
    """A search in mode text or hybrid. Blocks."""
    engine, query = asking.engine, asking.query
    words = query.text or ""
    if asking.mode == "text":
        ranking = _full_text(engine, asking.library, words, query.k, asking.select)
    else:
        depth = max(query.k, _FUSED_DEPTH_MIN)
        # While this thread looks through the texts:
        near = engine.indexes.of(asking.library).search(_embedded(asking), asking.options(depth))
        worded = _full_text(engine, asking.library, words, depth, asking.select)
        ranking = fuse([worded, _pairs(*near.result())])[: query.k]
    return Found(ranking, engine.hits.of(ranking[: limits.PAGE_ITEMS]))


def _embedded(asking: Asking) -> Floats:
    """The vector to search for."""
    if asking.vector is not None:
        return asking.vector
    embedder = asking.engine.embedder(asking.library.embedder)
    assert embedder is not None  # _mode has seen to that
    made: Floats = embedder.embed([asking.query.text or ""])[0]
    return made


def _pairs(scores: Floats, labels: Labels) -> Ranking:
    return list(zip(labels.tolist(), scores.tolist(), strict=True))


def fuse(rankings: list[Ranking]) -> Ranking:
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


def _full_text(engine: Engine, library: Library, query: str, k: int, select: Select | None) -> Ranking:
    words = list(dict.fromkeys(_WORD.findall(query.lower())))[:_WORDS_MAX]
    with engine.database.snapshot() as db:
        if not libraries.alive(db, library.library_id):
            raise VecError(Code.NOT_FOUND, f"library {library.name!r} has just been deleted", library=library.name)
        if select is None:
            return text.search(db, library.library_id, words, k)
        # Full text knows nothing of the filter: what it finds is sifted, and more asked for until it is enough.
        selection = select()
        share = np.count_nonzero(selection.mask) / len(selection.mask)
        count = int(k / max(share, 1e-6) * 1.5) + _FUSED_DEPTH_MIN
        while True:
            found = text.search(db, library.library_id, words, count)
            kept = _let_through(selection, found)
            if len(kept) >= k or len(found) < count:
                return kept[:k]
            count *= 8


def _let_through(selection: Selection, found: Ranking) -> Ranking:
    labels = np.array([label for label, _ in found], np.int64)
    order = np.argsort(labels)
    passes = np.empty(len(labels), np.bool_)
    passes[order] = selection.mask[selection.numbers(labels[order])]
    return [pair for pair, passed in zip(found, passes.tolist(), strict=True) if passed]


def _given(library: Library, query: Query) -> Floats:
    """The vector that the query brings, checked."""
    assert query.vector is not None
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


assert limits.HITS_MAX >= _FUSED_DEPTH_MIN
