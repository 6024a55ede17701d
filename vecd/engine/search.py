"""Search: by vector, by words, or both fused.

The index answers both halves in one turn (index/live.py), so an answer is of one moment.

`hybrid` fuses the two rankings by reciprocal rank (Cormack, Clarke, Büttcher, 2009, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods"): a hit's score is the sum of 1 / (20 + its rank) over the rankings that
have it, 1.5 times that for words. (tests/bench/quality.py on the Vaswani collection, nDCG@10: 0.459; with the paper's
60 and equal weights 0.443; vectors alone 0.360, words alone 0.445.)

A document whose title is the query gets 2 / 21 more: whoever types the name of a thing wants that, and the words of a
name occur in many others.

By document, each ranking has a document once, at the place of its best chunk, and the hit shows the chunk that ranks
better.

A phrase in quotes must stand in every hit of the modes that use words. The index finds the chunks that hold its words;
whether they stand in that order is read from the texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..filters.attributes import DocumentSelection
from ..filters.language import Doubt, Filter
from ..index.fulltext import inverted_index
from ..index.live import LiveIndex
from ..index.messages import Answer, Options
from ..index.rows import Floats, Ranked, Selection
from ..store.catalogue import Library
from ..text import embedders
from ..text.analysis import TextQuery, analyzer, holds_phrase
from .batch_executor import Asked
from .engine import Engine
from .hit_cache import SCORE_DIGITS, Explained, Ranking
from .libraries import find
from .prepare import why_unusable

Select = Callable[[], Selection]

MODES: Final = ("auto", "vector", "text", "hybrid")
GROUPS: Final = ("document", "chunk")

_RRF = 20
#: What a place in the ranking by words counts, that by vector being 1.
_WORDS_WEIGHT = 1.5
#: What it counts, as a first place, that the query is a document's title: with this it is among the first even if
#: others are first in both rankings.
_TITLE_WEIGHT = 2.0
#: Fusing needs more than k of each ranking: what one puts at 30 and the other at 2 may be among the best ten.
_FUSED_DEPTH_MIN = 100
#: Terms of a query that full text looks for; longer ones are documents.
_TERMS_MAX = 256
#: Characters of a query that are analysed on the event loop: a few milliseconds.
_CHARS_AT_ONCE = 2_000
#: By how much deeper the ranking of words is asked for when too few of it hold the phrases of the query.
_DEEPER = 8


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for: a text, a packed vector (little-endian float32), or both."""

    library: str
    text: str | None
    vector: bytes | None
    k: int
    mode: str = "auto"
    where: Filter = ()
    ef: int | None = None  # the effort of an approximate search, by hand
    exact: bool = False
    recall: float | None = None  # the share of the nearest that it is to find; None: what the library promises
    explain: bool = False  # say where each hit comes from, and how sure the answer is
    group: str | None = None  # what a hit is: "document" or "chunk"; None: a document in mode auto, else a chunk
    min_score: float | None = None  # hits with a lower score are left out


@dataclass(frozen=True, slots=True)
class Found:
    """A ranking of chunks, best first, and its first hits as people see them; None if they are large, and to be read
    when there is room for them."""

    ranking: Ranking
    hits: list[dict[str, Any]] | None
    explain: dict[str, Any] | None = None  # of the answer as a whole; None unless it was asked for
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Asking:
    """A search that has been checked and can be made: its vector, if it brought one, and what it may find."""

    engine: Engine
    library: Library
    query: Query
    mode: str
    vector: Floats | None
    words: TextQuery | None  # None: words are not looked for
    title: str | None  # the term that a title has which is the query
    depth: int  # of each ranking
    select: Select | None

    @property
    def by_document(self) -> bool:
        return (self.query.group or ("document" if self.query.mode == "auto" else "chunk")) == "document"

    @property
    def phrases(self) -> bool:
        return self.words is not None and bool(self.words.phrases)

    @property
    def options(self) -> Options:
        query = self.query
        # Which of a document's chunks hold a phrase is known only when they have been read.
        by_document = self.by_document and not self.phrases
        return Options(self.depth, query.ef, query.exact, self.select, query.recall, by_document)


class _Placed(NamedTuple):
    """A hit's place in one ranking: rank from 1, score, and its best chunk there."""

    rank: int
    score: float
    label: int


async def search(engine: Engine, query: Query) -> Found:
    """The k best chunks or documents; fewer only if there are no more that may be found.

    Raises VecError `not_found`, `invalid_request`, `invalid_filter`, `dimension_mismatch`, `index_failed` or
    `embedder_failed`.
    """
    library = find(engine, query.library)
    mode = _mode(library, query)
    vector = _given(library, query) if query.vector is not None else None
    if not library.chunks:
        return Found([], [])
    live = engine.indexes.of(library)
    if not live.ready:  # awaited here and not on the desk's thread: loading must not hold up other libraries
        await asyncio.wrap_future(live.loaded())
    text = query.text or ""
    words = None
    if mode != "vector":
        short = len(text) <= _CHARS_AT_ONCE
        words = _words(library, text) if short else await engine.search(_words, library, text)
    title = analyzer(library.language).whole(text) if words else None
    if mode == "text" and not words:
        return Found([], [])
    if words and not live.text_ready:
        await asyncio.wrap_future(live.ask(None, inverted_index.Query(), Options(1)))  # answered when it is loaded
    depth = max(query.k, _FUSED_DEPTH_MIN) if mode == "hybrid" else query.k
    asking = Asking(engine, library, query, mode, vector, words, title, depth, None)
    if not query.where:
        return await _answered(asking)
    with engine.attribute_cache.hold(library, query.where) as attributes:
        if engine.attribute_cache.lacks(attributes, query.where):
            await engine.read(engine.attribute_cache.load, library, attributes, query.where)
        doubts: list[Doubt] = []

        def select() -> DocumentSelection:
            selection = attributes.select(query.where)
            doubts[:] = selection.doubts
            return selection

        found = await _answered(replace(asking, select=select))
        return replace(found, warnings=[doubt.sentence for doubt in doubts])


async def _answered(asking: Asking) -> Found:
    """The answer; asked again if the library was switched to another embedder meanwhile (one's vector says nothing
    among the other's), or if a phrase needs a deeper look."""
    found = await asking.engine.batch_executor.ask(_together, asking)
    now = asking.engine.database.catalogue.by_id[asking.library.library_id]
    if now.embedder != asking.library.embedder:
        return await search(asking.engine, asking.query)
    if isinstance(found, Found):
        return found
    verified = await asking.engine.search(_with_phrases, asking, found)
    return await _answered(replace(asking, depth=asking.depth * _DEEPER)) if verified is None else verified


def _together(batch: list[Asked[Asking, Found | Answer]]) -> None:
    """Answers searches: all of a batch in one turn of each index, all rows for their hits at once. Of a query with
    phrases, the answer is the index's, which is to be verified. Blocks."""
    flying: list[tuple[Asked[Asking, Found | Answer], Future[Answer]]] = []
    lives: dict[int, LiveIndex] = {}
    for asked in batch:
        with asked.failing():
            asking = asked.question
            live = asking.engine.indexes.of(asking.library)
            vector = _embedded(asking) if asking.mode != "text" else None
            words = _looked_for(asking.words, asking.title) if asking.words else None
            flying.append((asked, live.ask(vector, words, asking.options, wake=False, title=asking.title)))
            lives[asking.library.library_id] = live
    for live in lives.values():
        live.turn()
    ranked: list[tuple[Asked[Asking, Found | Answer], Answer, Ranking, Explained]] = []
    for asked, future in flying:
        with asked.failing():
            answer = future.result()
            if asked.question.phrases:
                asked.answer = answer
            else:
                ranked.append((asked, answer, *_ranked(asked.question, answer)))
    engine = batch[0].question.engine
    first = engine.hit_cache.of_each([ranking[: limits.PAGE_ITEMS] for _, _, ranking, _ in ranked])
    for (asked, answer, ranking, explained), hits in zip(ranked, first, strict=True):
        with asked.failing():
            asked.answer = _found(asked.question, answer, ranking, explained, hits)


def _embedded(asking: Asking) -> Floats:
    """The vector to search for."""
    if asking.vector is not None:
        return asking.vector
    embedder = asking.engine.embedder(asking.library.embedder)
    assert embedder is not None  # _mode has seen to that
    made: Floats = embedder.embed([asking.query.text or ""])[0]
    return made


def _words(library: Library, text: str) -> TextQuery:
    found = analyzer(library.language).query(text)
    return TextQuery(
        found.words[:_TERMS_MAX],
        found.parts[:_TERMS_MAX],
        found.phrases[:_TERMS_MAX],
        found.prefixes[:_TERMS_MAX],
        found.units[:_TERMS_MAX],
    )


def _looked_for(words: TextQuery, title: str | None) -> inverted_index.Query:
    equals = (term for prefix in words.prefixes for term in prefix.equals)
    starts = [start for prefix in words.prefixes for start in prefix.starts]
    whole = () if title is None else (title,)
    return inverted_index.Query((*words.words, *words.parts, *equals, *whole), words.phrases, starts, words.units)


# --- ranking --------------------------------------------------------------------------------------------------------


def _ranked(asking: Asking, answer: Answer) -> tuple[Ranking, Explained]:
    """The k best of an answer, and where each comes from."""
    near, worded = _placed(answer.near, asking.by_document), _placed(answer.worded, asking.by_document)
    if asking.mode == "hybrid":
        scores = fuse(((near, 1.0), (worded, _WORDS_WEIGHT)))  # which are in the order of their ranks
        for document in scores.keys() & _placed(answer.titled, asking.by_document).keys():  # these are all alike
            scores[document] += _TITLE_WEIGHT / (_RRF + 1)
    else:
        scores = {document: place.score for document, place in (near or worded).items()}
    least = asking.query.min_score
    order = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    ranking: Ranking = []
    explained: Explained = {}
    for document, score in order[: asking.query.k]:
        if least is not None and round(score, SCORE_DIGITS) < least:
            break
        by_vector, by_words = near.get(document), worded.get(document)
        best = min((each for each in (by_words, by_vector) if each is not None), key=lambda place: place.rank)
        if asking.phrases and by_words is not None:
            best = by_words  # the passage that holds them
        ranking.append((best.label, score))
        if asking.query.explain:
            explained[best.label] = {"vector": _told(by_vector), "text": _told(by_words)}
    return ranking, explained


def _placed(ranked: Ranked | None, by_document: bool) -> dict[int, _Placed]:
    """By document, at the place of its best chunk, or by chunk; in the order of their ranks."""
    placed: dict[int, _Placed] = {}
    if ranked is not None:
        keys = ranked.documents if by_document else ranked.labels
        for key, score, label in zip(keys.tolist(), ranked.scores.tolist(), ranked.labels.tolist(), strict=True):
            if key not in placed:
                placed[key] = _Placed(len(placed) + 1, score, label)
    return placed


def fuse(rankings: Iterable[tuple[Iterable[int], float]]) -> dict[int, float]:
    """Reciprocal rank fusion of rankings, best first, and what each counts: the score of each key."""
    sums: dict[int, float] = {}
    for ranking, weight in rankings:
        for rank, key in enumerate(ranking, 1):
            sums[key] = sums.get(key, 0.0) + weight / (_RRF + rank)
    return sums


def _told(place: _Placed | None) -> dict[str, Any] | None:
    return None if place is None else {"rank": place.rank, "score": round(place.score, SCORE_DIGITS)}


def _found(
    asking: Asking, answer: Answer, ranking: Ranking, explained: Explained, hits: list[dict[str, Any]] | None
) -> Found:
    if not asking.query.explain:
        return Found(ranking, hits)
    if hits is None:
        hits = asking.engine.hit_cache.of(ranking[: limits.PAGE_ITEMS])
    for (label, _), hit in zip(ranking, hits, strict=False):
        hit["explain"] = explained[label]
    live = asking.engine.indexes.of(asking.library)
    explain = {"mode": asking.mode, "seq": answer.seq, "index": live.spec.kind, **live.certainty(answer)}
    return Found(ranking, hits, explain)


# --- phrases --------------------------------------------------------------------------------------------------------


def _with_phrases(asking: Asking, answer: Answer) -> Found | None:
    """The answer, of chunks that hold the query's phrases; None if a deeper look may find more. Blocks."""
    worded = answer.worded
    assert worded is not None
    holding = _holding(asking, worded.labels.tolist())
    kept = _only(worded, worded.labels, holding)
    keys = kept.documents if asking.by_document else kept.labels
    if len(np.unique(keys)) < min(asking.depth, asking.query.k) and len(worded.labels) >= asking.depth:
        return None
    narrowed = answer._replace(worded=kept)
    if (near := answer.near) is not None:  # what is near counts for those that hold the phrase
        narrowed = narrowed._replace(near=_only(near, near.documents if asking.by_document else near.labels, keys))
    ranking, explained = _ranked(asking, narrowed)
    hits = asking.engine.hit_cache.of(ranking[: limits.PAGE_ITEMS])
    return _found(asking, answer, ranking, explained, hits)


def _only(ranked: Ranked, keys: Any, kept: Any) -> Ranked:
    mask = np.isin(keys, kept)
    return Ranked(ranked.scores[mask], ranked.labels[mask], ranked.documents[mask])


def _holding(asking: Asking, labels: list[int]) -> list[int]:
    """Those of the chunks that hold every phrase, in their text or their document's title."""
    assert asking.words is not None
    terms = analyzer(asking.library.language).terms
    found = []
    for start in range(0, len(labels), limits.PAGE_ITEMS):
        page = labels[start : start + limits.PAGE_ITEMS]
        for label, (title, text) in asking.engine.hit_cache.texts(page).items():
            fields = [terms(each) for each in (title, text) if each]
            if all(any(holds_phrase(field, phrase) for field in fields) for phrase in asking.words.phrases):
                found.append(label)
    return found


# --- checking -------------------------------------------------------------------------------------------------------


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
