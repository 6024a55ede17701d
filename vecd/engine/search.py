"""Search: by vector, by full text, or both fused.

The index answers both halves at one point of its order of work (index/live_index.py), so an answer is of one state.

`hybrid` fuses the two rankings by reciprocal rank (Cormack, Clarke, Büttcher, 2009, "Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods"): a hit's score is the sum of 1 / (20 + its rank) over the rankings that
have it, 1.5 times that for words. (tests/bench/relevance.py on the Vaswani collection, nDCG@10: 0.459; with the paper's
60 and equal weights 0.443; vectors alone 0.360, words alone 0.445.)

A document whose title equals the query gets 2 / 21 more: a query that is the name of a thing asks for that thing, and
the words of the name occur in many other documents.

A title that is similar to the query, by the cosine of their vectors, gives the 30 best hits 0.3 times its square more;
the first place in both rankings gives 0.12. (tests/bench/relevance.py: of 19 questions, 11 in place of 8 find a right
page among the first three of 1,251 manual pages, with an MRR of 0.59 in place of 0.39; for 38 other pages, it is 0.77
in place of 0.62. Collections without titles are as before.)

Grouped by document, each ranking has a document once, at the rank of its best chunk, and the hit shows the chunk with
the better rank.

In a library with a second embedder, the ranking by vector is of two: a chunk that has its second vector is placed by
that, others by their first one. It counts as much as that for words. (minilm on a part of the Vaswani collection, 40
queries: 0.751; with the weight 1, 0.742; with a third ranking, of all first vectors at half the weight, 0.745.) Scores
are those of reciprocal ranks, also without words.

A phrase in quotes must occur in every hit of the modes that use full text. The index finds the chunks that contain its
words; their order is verified in the texts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..filters.attributes import DocumentSelection
from ..filters.expressions import Filter, FilterWarning
from ..index.fulltext import inverted_index
from ..index.live_index import LiveIndex
from ..index.requests import Answer, SearchOptions
from ..index.rows import Floats, Ranked, Selection
from ..store import libraries as store_libraries
from ..store.catalogue import Library
from ..text import embedders
from ..text.analysis import TextQuery, analyzer, holds_phrase
from . import second_query
from .batch_executor import QueuedRequest
from .damage import METADATA, TEXT, VECTOR
from .engine import Engine
from .hit_cache import SCORE_DIGITS, Explained, Ranking
from .libraries import find
from .prepare import why_unusable

Select = Callable[[], Selection]

#: Instead of a ranking of the second stage: the stage has started again, and the search is to be repeated.
_STARTED_AGAIN: Final = Ranked(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))

MODES: Final = ("auto", "vector", "text", "hybrid")
GROUPS: Final = ("document", "chunk")

#: Damaged documents that the warnings of an answer name; more are counted.
_DAMAGE_SHOWN = 3
_RRF: Final = 20
#: The weight of each ranking.
WEIGHTS: Final = {"vector": 1.0, "second": 1.5, "text": 1.5}
#: Added to the score of a document whose title equals the query, twice a first place: it is among the first even if
#: others are first in both rankings.
TITLE_SCORE: Final = 2.0 / (_RRF + 1)
#: How many of the best hits get a score for a title that is similar to the query; none if the first few have no title.
_TITLED, _TITLED_FIRST = 30, 10
#: That score is this weight times the square of the cosine of title and query: an unrelated title has 0.1, a vaguely
#: related one 0.3, and changes little.
_TITLE_SIMILAR_WEIGHT = 0.3
#: Characters of a query that is compared with titles; a longer one is a document.
_TITLED_CHARS_MAX = 1_000
#: Fusing needs more than k of each ranking: what one puts at 30 and the other at 2 may be among the best ten.
FUSED_DEPTH_MIN = 100
#: Terms of a query that full text searches for; a longer query is a document.
_TERMS_MAX = 256
#: Characters of a query that are analysed on the event loop: a few milliseconds.
_CHARS_AT_ONCE = 2_000
#: By how much the depth grows when too few chunks contain the phrases of the query.
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
    offset: int = 0  # the first hits, which are left out; ranks count them
    floor: int | None = None  # only documents whose chunks have this label or a higher one
    without: range | None = None  # the labels of the chunks of a document that is no hit
    bare: bool = False  # the caller reads the hits, and wants `explained`

    @property
    def ranked_max(self) -> int:
        """How many of the best it takes to have k hits."""
        without = 0 if self.without is None else len(self.without)
        return self.offset + self.k + without


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A ranking of chunks, best first, and its first hits as clients see them; None if they are large and are to be
    read later, when memory allows."""

    ranking: Ranking
    hits: list[dict[str, Any]] | None
    explain: dict[str, Any] | None = None  # of the answer as a whole; None unless it was asked for
    warnings: list[str] = field(default_factory=list)  # about the query; `damage_warnings` has others
    explained: Explained = field(default_factory=dict)  # by label: where it comes from; empty unless it was asked for
    ranked: int = 0  # hits before the offset and k were applied, and `min_score`; at least those in `ranking`
    mode: str = "auto"  # the mode that was used
    selected: int | None = None  # documents that the filter, or `floor`, selects; None if there is neither
    libraries: dict[int, str] | None = None  # by label: its library; None for a search of one library


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A search whose request is valid: its vector, if the request has one, its terms, and what it may find."""

    engine: Engine
    library: Library
    query: Query
    mode: str
    vector: Floats | None
    words: TextQuery | None  # None: no full text search
    title: str | None  # the term of a title that equals the query
    depth: int  # of each ranking
    select: Select | None
    second: Floats | None = None  # the query's vector of the second embedder; None: that stage is not asked
    first: bool = True  # whether the first stage is asked for what is near
    embedded: Floats | None = None  # the vector that the embedder of the first stage has made of the query

    @property
    def by_document(self) -> bool:
        return (self.query.group or ("document" if self.query.mode == "auto" else "chunk")) == "document"

    @property
    def phrases(self) -> bool:
        return self.words is not None and bool(self.words.phrases)

    @property
    def options(self) -> SearchOptions:
        query = self.query
        # Which of a document's chunks hold a phrase is known only when they have been read.
        by_document = self.by_document and not self.phrases
        return SearchOptions(self.depth, query.ef, query.exact, self.select, query.recall, by_document)


class _Order(NamedTuple):
    """What is shown of an answer."""

    ranking: Ranking
    explained: Explained
    ranked: int  # before the offset, k and `min_score` were applied


class _Placed(NamedTuple):
    """A hit's place in one ranking: rank from 1, score, and its best chunk there."""

    rank: int
    score: float
    label: int


async def search(engine: Engine, query: Query) -> SearchResult:
    """The k best chunks or documents; fewer only if there are no more that may be found.

    Raises VecError `not_found`, `invalid_request`, `invalid_filter`, `dimension_mismatch`, `index_failed` or
    `embedder_failed`.
    """
    library = find(engine, query.library)
    mode = _mode(library, query)
    vector = _query_vector(library, query) if query.vector is not None else None
    if not library.chunks:
        return SearchResult([], [], mode=mode)
    live = engine.indexes.of(library)
    if not live.ready:  # awaited here and not on the executor's thread: loading must not delay other libraries
        await asyncio.wrap_future(live.loaded())
    text = query.text or ""
    words = None
    if mode != "vector":
        short = len(text) <= _CHARS_AT_ONCE
        words = _words(library, text) if short else await engine.search(_words, library, text)
    title = analyzer(library.language).whole(text) if words else None
    if mode == "text" and not words:
        return SearchResult([], [], mode=mode)
    if words and not live.text_ready:
        loaded = live.ask(None, inverted_index.TermQuery(), SearchOptions(1))  # answered when the text is loaded
        await asyncio.wrap_future(loaded)
    embedded = None
    if vector is None and mode != "text" and engine.executor.offloads(library.embedder):
        embedded = await _embedded_outside(engine, library, text)
    second, warned = (None, []) if mode == "text" else await second_query.vector_of(engine, library, query.text, vector)
    fused = mode == "hybrid" or second is not None
    depth = max(query.ranked_max, FUSED_DEPTH_MIN) if fused else query.ranked_max
    first = vector is None or vector is not second
    plan = SearchPlan(engine, library, query, mode, vector, words, title, depth, None, second, first, embedded)
    if not query.where and query.floor is None:
        found = await _execute(plan)
        return replace(found, warnings=warned) if warned else found
    with engine.attribute_cache.hold(library, query.where) as attributes:
        if engine.attribute_cache.lacks(attributes, query.where):
            await engine.read(engine.attribute_cache.load, library, attributes, query.where)
        warnings: list[FilterWarning] = []
        selected = 0

        def select() -> DocumentSelection:
            nonlocal selected
            selection = attributes.select(query.where)
            if query.floor is not None:
                selection = selection.written_since(query.floor)
            warnings[:], selected = selection.warnings, selection.documents
            return selection

        found = await _execute(replace(plan, select=select))
        sentences = [*warned, *(warning.sentence for warning in warnings)]
        return replace(found, warnings=sentences, selected=selected)


def damage_warnings(engine: Engine, query: Query) -> list[str]:
    """What the answer to a query says about damaged chunks that it leaves out, once all of its hits have been read."""
    library = engine.database.catalogue.by_name.get(query.library)
    if library is None:
        return []
    by_words_only = query.mode == "text" or (query.vector is None and not embedders.embeds(library.embedder))
    parts = (TEXT, *(() if by_words_only else (VECTOR,)), *((METADATA,) if query.where else ()))
    damage = engine.damage.errors(library, *parts)
    shown = [f"{error.message}; the search leaves it out ({error.hint})" for error in damage[:_DAMAGE_SHOWN]]
    more = len(damage) - len(shown)
    return [*shown, *([f"{more:,} more documents are damaged and left out"] if more else [])]


async def _execute(plan: SearchPlan) -> SearchResult:
    """The answer. The search is repeated if the library was switched to another embedder meanwhile, and with a greater
    depth if too few chunks contain the phrases."""
    found = await plan.engine.batch_executor.submit(_answer_batch, plan)
    if found is None:
        return await search(plan.engine, plan.query)
    if isinstance(found, SearchResult):
        return found
    verified = await plan.engine.search(_verify_phrases, plan, found)
    return await _execute(replace(plan, depth=plan.depth * _DEEPER)) if verified is None else verified


def _answer_batch(batch: list[QueuedRequest[SearchPlan, SearchResult | Answer | None]]) -> None:
    """Answers searches: each index answers all of the batch at once, and the rows of all hits are read at once. The
    result of a query with phrases is the index's answer, which is then verified. The result is None if the vectors are
    those of another embedder than the query's: the two cannot be compared. Blocks."""
    in_flight: list[tuple[QueuedRequest[SearchPlan, SearchResult | Answer | None], Future[Answer]]] = []
    lives: dict[int, LiveIndex] = {}
    seconds = _ask_second(batch)
    for pending in batch:
        with pending.catching():
            plan = pending.request
            second = seconds[pending]() if pending in seconds else None
            if second is _STARTED_AGAIN:
                continue
            live = plan.engine.indexes.of(plan.library)
            if _embeds(plan):
                plan = pending.request = replace(plan, embedded=_embedded(plan))
                vector: Floats | None = plan.embedded
            else:
                vector = plan.vector if plan.mode != "text" and plan.first else None
            words = _text_query(plan.words, plan.title) if plan.words else None
            asked = live.ask(vector, words, plan.options, wake=False, title=plan.title, second=second)
            in_flight.append((pending, asked))
            lives[plan.library.library_id] = live
    for live in lives.values():
        live.turn()
    ranked: list[tuple[QueuedRequest[SearchPlan, SearchResult | Answer | None], Answer, _Order]] = []
    for pending, future in in_flight:
        with pending.catching():
            try:
                answer = future.result()
            except VecError as error:
                if error.code == Code.DIMENSION_MISMATCH and _embeds(pending.request):
                    continue  # switched to an embedder of another dimension: the result is None
                raise
            if _embeds(pending.request) and answer.generation != pending.request.library.embedder_label:
                pending.result = None
            elif pending.request.phrases:
                pending.result = answer
            else:
                ranked.append((pending, answer, _ranked(pending.request, answer)))
    engine = batch[0].request.engine
    wanted = [each for each in ranked if not each[0].request.query.bare]
    first = engine.hit_cache.hits_of_each(
        [order.ranking[: limits.PAGE_ITEMS] for _, _, order in wanted],
        [pending.request.query.offset + 1 for pending, _, _ in wanted],
    )
    read = {id(pending): hits for (pending, _, _), hits in zip(wanted, first, strict=True)}
    for pending, answer, order in ranked:
        with pending.catching():
            pending.result = _found(pending.request, answer, order, read.get(id(pending)))


def _ask_second(
    batch: list[QueuedRequest[SearchPlan, SearchResult | Answer | None]],
) -> dict[QueuedRequest[SearchPlan, SearchResult | Answer | None], Callable[[], Ranked | None]]:
    """Asks the second indexes; for each search that has one, how to get its ranking. Blocks.

    They answer before the first indexes are asked, which then leave out what is not alive any more: so the whole answer
    is of the state of the first."""
    asked: dict[QueuedRequest[SearchPlan, SearchResult | Answer | None], Callable[[], Ranked | None]] = {}
    lives: dict[int, LiveIndex] = {}
    for pending in batch:
        plan = pending.request
        if plan.second is None:
            continue
        with pending.catching():
            live = plan.engine.indexes.second.of(plan.library)
            if live is not None:
                future = live.ask(plan.second, None, plan.options, wake=False)
                asked[pending] = partial(_second_ranking, plan, future)
                lives[plan.library.library_id] = live
    for live in lives.values():
        live.turn()
    return asked


def _second_ranking(plan: SearchPlan, future: Future[Answer]) -> Ranked | None:
    """The ranking that was asked for; _STARTED_AGAIN if it is of another embedder than the query's. Blocks."""
    try:
        answer = future.result()
    except VecError as error:
        if error.code != Code.DIMENSION_MISMATCH:
            raise
        return _STARTED_AGAIN
    return answer.near if answer.generation == plan.library.second_generation else _STARTED_AGAIN


def _embeds(plan: SearchPlan) -> bool:
    """Whether the library's embedder makes the query's vector."""
    return plan.vector is None and plan.mode != "text"


async def _embedded_outside(engine: Engine, library: Library, text: str) -> Floats:
    """The vector that a slow embedder makes of the query: nobody else waits for it. Raises VecError."""
    vector = await engine.query_vector(library.embedder, text)
    if len(vector) != library.dimension and library.embedder == find(engine, library.name).embedder:
        raise store_libraries.mismatch(library, len(vector))
    return vector


def _embedded(plan: SearchPlan) -> Floats:
    if plan.embedded is not None:
        return plan.embedded
    embedder = plan.engine.embedder(plan.library.embedder)
    assert embedder is not None  # _mode has seen to that
    made: Floats = embedders.of_queries(embedder)([plan.query.text or ""])[0]
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


def _text_query(words: TextQuery, title: str | None) -> inverted_index.TermQuery:
    equals = (term for prefix in words.prefixes for term in prefix.equals)
    starts = [start for prefix in words.prefixes for start in prefix.starts]
    whole = () if title is None else (title,)
    return inverted_index.TermQuery((*words.words, *words.parts, *equals, *whole), words.phrases, starts, words.units)


# --- ranking --------------------------------------------------------------------------------------------------------


def _ranked(plan: SearchPlan, answer: Answer) -> _Order:
    """The k best of an answer behind the offset, and where each comes from."""
    titled: Container[int] = ()
    similar: dict[int, float] = {}
    near, worded = _placed(answer.near, plan.by_document), _placed(answer.worded, plan.by_document)
    second = _placed(answer.second, plan.by_document)
    if answer.second is not None:
        near = _of_both_stages(near, second, plan.library)
    if plan.mode == "hybrid" or answer.second is not None:
        # Both are in the order of their ranks.
        weight = WEIGHTS["vector" if answer.second is None else "second"]
        scores = fuse(((near, weight), (worded, WEIGHTS["text"])))
        titled = _placed(answer.titled, plan.by_document)
        for document in scores.keys() & titled.keys():  # these are all alike
            scores[document] += TITLE_SCORE
        similar = _title_scores(plan, scores, (near, worded))
        for document, score in similar.items():
            scores[document] += score
    else:
        scores = {document: place.score for document, place in (near or worded).items()}
    query = plan.query
    least = query.min_score
    order = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    if query.without is not None:
        order = [pair for pair in order if pair[0] not in query.without]
    ranking: Ranking = []
    explained: Explained = {}
    for document, score in order[query.offset : query.offset + query.k]:
        if least is not None and round(score, SCORE_DIGITS) < least:
            break
        by_vector, by_words = near.get(document), worded.get(document)
        best = min((each for each in (by_words, by_vector) if each is not None), key=lambda place: place.rank)
        if plan.phrases and by_words is not None:
            best = by_words  # the passage that holds them
        ranking.append((best.label, score))
        if query.explain:
            where: dict[str, Any] = {"vector": _shown(by_vector), "text": _shown(by_words)}
            if plan.library.second is not None:
                by_second = second.get(document)
                where |= {"vector": None if by_second else where["vector"], "second": _shown(by_second)}
            if document in titled:
                where["title"] = True
            if document in similar:
                where["title_score"] = round(similar[document], SCORE_DIGITS)
            explained[best.label] = where
    return _Order(ranking, explained, len(order))


def _title_scores(
    plan: SearchPlan, scores: Mapping[int, float], rankings: tuple[dict[int, _Placed], dict[int, _Placed]]
) -> dict[int, float]:
    """What the best hits of a hybrid search get for titles that are similar to the query, by the keys of `scores`."""
    text, name = plan.query.text, plan.library.embedder
    if plan.mode != "hybrid" or not text or len(text) > _TITLED_CHARS_MAX or plan.engine.executor.offloads(name):
        return {}
    best = heapq.nsmallest(_TITLED, scores, key=lambda key: (-scores[key], key))
    labels = [next(ranking[key].label for ranking in rankings if key in ranking) for key in best]
    found: dict[int, str] = {}
    for some in (labels[:_TITLED_FIRST], labels[_TITLED_FIRST:]):
        found |= {label: title for label, (title, _) in plan.engine.hit_cache.texts(some).items() if title}
        if not found:  # the first hits, which are read anyway, have no titles: the others are not read for theirs
            return {}
    embedder = plan.engine.embedder(name)
    if embedder is None:
        return {}
    titled = [(key, found[label]) for key, label in zip(best, labels, strict=True) if label in found]
    vector = plan.embedded if plan.embedded is not None else embedders.of_queries(embedder)([text])[0]
    similar = plan.engine.title_vectors.similarities(name, embedder, vector, [title for _, title in titled])
    gained = (_TITLE_SIMILAR_WEIGHT * np.square(np.maximum(0, similar))).tolist()
    return {key: gain for (key, _), gain in zip(titled, gained, strict=True) if gain}


def _of_both_stages(first: dict[int, _Placed], second: dict[int, _Placed], library: Library) -> dict[int, _Placed]:
    """One ranking by vector of two: what has its second vector is where the second stage puts it, and what waits for it
    where the first stage does. Scores of two embedders cannot be compared, and ranks can."""
    waiting = {key: place for key, place in first.items() if place.label > library.second_label and key not in second}
    return dict(sorted({**second, **waiting}.items(), key=lambda each: each[1].rank))


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


def _shown(place: _Placed | None) -> dict[str, Any] | None:
    return None if place is None else {"rank": place.rank, "score": round(place.score, SCORE_DIGITS)}


def _found(plan: SearchPlan, answer: Answer, order: _Order, hits: list[dict[str, Any]] | None) -> SearchResult:
    query = plan.query
    found = SearchResult(order.ranking, hits, explained=order.explained, ranked=order.ranked, mode=plan.mode)
    if not query.explain:
        return found
    live = plan.engine.indexes.of(plan.library)
    explain = {"mode": plan.mode, "seq": answer.seq, "index": live.spec.kind, **live.certainty(answer)}
    if plan.library.second is not None:
        explain["second_stage"] = {"asked": answer.second is not None, "embedded": plan.library.second_chunks}
    if not query.bare:
        about = {label: {"explain": each} for label, each in order.explained.items()}
        hits = plan.engine.hit_cache.hits(order.ranking[: limits.PAGE_ITEMS], query.offset + 1, after=about)
    return replace(found, explain=explain, hits=hits)


# --- phrases --------------------------------------------------------------------------------------------------------


def _verify_phrases(plan: SearchPlan, answer: Answer) -> SearchResult | None:
    """The answer, of chunks that hold the query's phrases; None if a deeper look may find more. Blocks."""
    worded = answer.worded
    assert worded is not None
    containing = _containing_phrases(plan, worded.labels.tolist())
    kept = _filter_ranked(worded, worded.labels, containing)
    keys = kept.documents if plan.by_document else kept.labels
    if len(np.unique(keys)) < min(plan.depth, plan.query.ranked_max) and len(worded.labels) >= plan.depth:
        return None
    narrowed = answer._replace(worded=kept)
    if (near := answer.near) is not None:  # what is near counts for those that hold the phrase
        narrowed = narrowed._replace(
            near=_filter_ranked(near, near.documents if plan.by_document else near.labels, keys)
        )
    if (second := answer.second) is not None:
        keys_of = second.documents if plan.by_document else second.labels
        narrowed = narrowed._replace(second=_filter_ranked(second, keys_of, keys))
    order, query = _ranked(plan, narrowed), plan.query
    shown = [] if query.bare else order.ranking[: limits.PAGE_ITEMS]
    return _found(plan, answer, order, plan.engine.hit_cache.hits(shown, query.offset + 1))


def _filter_ranked(ranked: Ranked, keys: Any, kept: Any) -> Ranked:
    mask = np.isin(keys, kept)
    return Ranked(ranked.scores[mask], ranked.labels[mask], ranked.documents[mask])


def _containing_phrases(plan: SearchPlan, labels: list[int]) -> list[int]:
    """Those of the chunks that hold every phrase, in their text or their document's title."""
    assert plan.words is not None
    terms = analyzer(plan.library.language).terms
    found = []
    for start in range(0, len(labels), limits.PAGE_ITEMS):
        page = labels[start : start + limits.PAGE_ITEMS]
        for label, (title, text) in plan.engine.hit_cache.texts(page).items():
            fields = [terms(each) for each in (title, text) if each]
            if all(any(holds_phrase(field, phrase) for field in fields) for phrase in plan.words.phrases):
                found.append(label)
    return found


# --- checking -------------------------------------------------------------------------------------------------------


def _mode(library: Library, query: Query) -> str:
    """The mode that `auto` stands for; otherwise the one that was asked for, if it can be done."""
    if query.text is None and query.vector is None:
        raise VecError(Code.INVALID_REQUEST, "a search needs a query text or a vector", field="query")
    if query.text is not None and not query.text.strip():
        raise VecError(Code.INVALID_REQUEST, "the query is empty", field="query")
    can_embed = query.vector is not None or embedders.embeds(library.embedder)
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


def _query_vector(library: Library, query: Query) -> Floats:
    """The vector that the query brings, checked."""
    assert query.vector is not None
    if len(query.vector) % 4 or not query.vector:
        raise VecError(Code.INVALID_REQUEST, "a vector must be bytes: little-endian float32", field="vector")
    vector = np.frombuffer(query.vector, "<f4")
    if library.dimension is not None and len(vector) not in (library.dimension, library.second_dimension):
        raise VecError(
            Code.DIMENSION_MISMATCH,
            f"library {library.name!r} holds {library.dimension}-dimension vectors, but the query has {len(vector)}",
            field="vector",
        )
    if (why := why_unusable(vector)) is not None:
        raise VecError(Code.INVALID_REQUEST, f"the query's vector {why}", field="vector")
    return vector


assert limits.HITS_MAX >= FUSED_DEPTH_MIN
