"""Federated search: one ranking over several libraries.

Each library answers as a search of it alone does, and their answers are merged:

- By vector, scores are comparable between libraries with the same embedder, dimension and metric; such libraries form
  one group, ranked by score. BM25 scores are compared between all libraries, each with its own word statistics, as the
  shards of Elasticsearch do by default.
- If there is one ranking, its scores are those of the hits. Otherwise (`hybrid`, or vectors of several groups) the
  rankings are fused by reciprocal rank with the weights of engine/search.py.

The libraries are searched at the same time, but not in one transaction: each part shows the state of its own seq.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from ..store.catalogue import Library
from .engine import Engine
from .hit_cache import SCORE_DIGITS, Explained, Ranking
from .libraries import find
from .search import FUSED_DEPTH_MIN, TITLE_SCORE, WEIGHTS, Query, SearchResult, fuse, search

#: Stands for all libraries; no library can have this name.
ALL: Final = "*"

#: Why a library is left out of a search of all.
_UNFIT: Final = (Code.DIMENSION_MISMATCH, Code.NOT_FOUND)


def named(engine: Engine, names: Sequence[str]) -> list[Library]:
    """The libraries of these names, each once; ALL among them: all that there are, by name. Raises VecError `not_found`
    or `invalid_request`."""
    catalogue = engine.database.catalogue
    wanted = sorted(catalogue.by_name) if ALL in names else list(dict.fromkeys(names))
    if len(wanted) > limits.SEARCHED_LIBRARIES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"a search can have up to {limits.SEARCHED_LIBRARIES_MAX} libraries, not {len(wanted):,}",
            "name fewer",
            field="libraries",
        )
    return [find(engine, name, catalogue) for name in wanted]


async def search_several(
    engine: Engine, query: Query, each_of: Sequence[tuple[Library, Query]], *, lenient: bool
) -> SearchResult:
    """The best hits of several libraries, each with `query` as it is for that library. `lenient`: libraries that such
    a query is impossible for are left out, with a warning.

    Raises VecError, the first that a library raises.
    """
    deep = max(query.ranked_max, FUSED_DEPTH_MIN)
    asked = [replace(each, k=deep, offset=0, min_score=None, explain=True, bare=True) for _, each in each_of]
    answers = await asyncio.gather(*(search(engine, each) for each in asked), return_exceptions=lenient)
    parts: list[tuple[Library, SearchResult]] = []
    warnings: dict[str, None] = {}
    for (library, _), answer in zip(each_of, answers, strict=True):
        if isinstance(answer, VecError) and (answer.code in _UNFIT or answer.details.get("field") == "vector"):
            warnings[f"{answer.message}; it is left out"] = None
        elif isinstance(answer, BaseException):
            raise answer
        else:
            warnings.update((f"library {library.name!r}: {warning}", None) for warning in answer.warnings)
            parts.append((library, answer))
    ranking, explained = _merged(parts)
    least = query.min_score
    total = len(ranking)
    shown = ranking[query.offset : query.offset + query.k]
    shown = [(label, score) for label, score in shown if least is None or round(score, SCORE_DIGITS) >= least]
    libraries = {label: library.name for library, part in parts for label, _ in part.ranking}
    found = SearchResult(shown, None, None, list(warnings), explained, total, libraries=libraries)
    modes = {part.mode for _, part in parts}
    counted = [part.selected for _, part in parts if part.selected is not None]
    found = replace(found, mode=modes.pop() if len(modes) == 1 else query.mode)
    found = replace(found, selected=sum(counted) if counted else None)
    if not query.explain:
        return found
    return replace(found, explain={"libraries": {library.name: part.explain or {} for library, part in parts}})


def _merged(parts: Iterable[tuple[Library, SearchResult]]) -> tuple[Ranking, Explained]:
    """All hits, best first, and where each comes from: its rank and score in each merged ranking."""
    placed: dict[tuple[str, object], list[tuple[int, float]]] = {}  # by ranking: labels with scores
    explained: Explained = {}
    titled = set()
    for library, part in parts:
        for label, where in part.explained.items():
            explained[label] = {**where}
            if where.get("title"):
                titled.add(label)
            for name in WEIGHTS:
                if (place := where.get(name)) is not None:
                    placed.setdefault((name, _comparable(library, name)), []).append((label, place["score"]))
    rankings = {
        key: sorted(found, key=lambda pair: (-pair[1], pair[0])) for key, found in placed.items()
    }  # by score, and of equal ones the older first
    for (name, _), found in rankings.items():
        for rank, (label, score) in enumerate(found, 1):
            explained[label][name] = {"rank": rank, "score": score}
    if len(rankings) == 1 and not titled:
        return next(iter(rankings.values())), explained
    scores = fuse((([label for label, _ in found], WEIGHTS[name]) for (name, _), found in rankings.items()))
    for label in titled:
        scores[label] += TITLE_SCORE
    for label in scores:
        scores[label] += explained[label].get("title_score", 0)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])), explained


def _comparable(library: Library, name: str) -> object:
    """The scores of this ranking can be compared between libraries for which this is equal."""
    if name == "text":
        return None
    if name == "second":
        return library.second, library.second_dimension, library.metric
    return library.embedder, library.dimension, library.metric


def about(found: SearchResult, *, explain: bool) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """The fields of hits that a search of several libraries adds before and after those of their chunks, by label."""
    libraries = found.libraries or {}
    before = {label: {"library": libraries[label]} for label, _ in found.ranking}
    if not explain:
        return before, {}
    return before, {label: {"explain": found.explained[label]} for label, _ in found.ranking}
