"""Measures an index's recall with synthetic queries: the share of an exact search's hits that it finds.

It is measured on request. An index may be good for queries that are like its vectors and bad for others, so there are
several sorts of queries:

    titles     titles of documents   } where the library has an embedder
    words      two to four words out of a text   }
    midpoints  half-way between two stored vectors        } where it has none
    noise      stored vectors with noise of half their length   }
    stored     stored vectors; each is left out of its own answer

The searches of clients are measured by the library's RecallMonitor.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import numpy as np

from ..errors import Code, VecError
from ..index.live_index import LiveIndex
from ..index.recall_monitor import figures, recall_of
from ..index.requests import SearchOptions
from ..index.rows import Floats
from ..store import documents
from ..store.catalogue import Library
from .engine import Engine

#: Queries of each sort.
QUERIES: Final = 20
#: Hits of each.
K: Final = 10
#: Queries that are searched at once: an exact scan takes hardly longer for some than for one, and delays others.
_AT_ONCE: Final = 4
#: Texts that are read to find titles and words in.
_TEXTS: Final = 4 * QUERIES
_NOISE: Final = 0.5


async def measure(engine: Engine, library: Library) -> dict[str, Any] | None:
    """For each sort of query `k`, `queries` (how many), and the `mean`, 5th percentile (`p5`) and `worst` recall@k of
    those; None where every search is exact, or nothing is in memory.

    The searches are ordinary ones, a few at a time, so that others are not held up.
    """
    live = engine.indexes.loaded(library)
    if live is None or live.exact or not live.ready:
        return None
    seed = engine.database.head
    stored = await asyncio.wrap_future(live.sample(2 * QUERIES, seed=seed))
    if not len(stored):
        return None
    labels = await asyncio.wrap_future(live.labels())
    drawn = np.random.default_rng(seed).permutation(labels)[:_TEXTS]
    sorts = await engine.read(_worded, engine, library, drawn.tolist(), seed) or _near(stored, seed)
    try:
        measured = {name: await _measured(live, queries) for name, queries in sorts.items() if len(queries)}
        return {**measured, "stored": await _measured(live, stored[:QUERIES], itself=True)}
    except VecError as error:
        if error.code != Code.DIMENSION_MISMATCH:
            raise
        return None  # switched to an embedder of another dimension meanwhile


def _worded(engine: Engine, library: Library, labels: list[int], seed: int) -> dict[str, Floats]:
    """Titles and words of these chunks as vectors; nothing if the library has no embedder. Blocks."""
    try:
        embedder = engine.embedder(library.embedder)
    except VecError:  # it cannot be loaded: searches report that, and the index can be measured without it
        return {}
    if embedder is None:
        return {}
    with engine.database.read_transaction() as db:
        rows = documents.chunk_rows(db, labels, lambda label, error: None)
    randomly = random.Random(seed)
    titles = list(dict.fromkeys(row.title for row in rows.values() if row.title and row.title.strip()))
    words = [cut for row in rows.values() if (cut := _cut(row.text or "", randomly))]
    made = {"titles": titles[:QUERIES], "words": words[:QUERIES]}
    return {name: embedder.embed(texts) for name, texts in made.items() if texts}


def _cut(text: str, randomly: random.Random) -> str:
    """Two to four words in a row out of a text; fewer if it has fewer."""
    words = text.split()
    count = randomly.randint(2, 4)
    start = randomly.randint(0, max(0, len(words) - count))
    return " ".join(words[start : start + count])


def _near(stored: Floats, seed: int) -> dict[str, Floats]:
    """What is not stored, and lies between or near what is."""
    randomly = np.random.default_rng(seed)
    others = randomly.permutation(len(stored))
    noise = randomly.standard_normal(stored.shape, np.float32)
    lengths = np.linalg.norm(stored, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return {
        "midpoints": ((stored + stored[others]) / 2)[:QUERIES],
        "noise": (stored + _NOISE * lengths * noise)[:QUERIES],
    }


async def _measured(live: LiveIndex, queries: Floats, itself: bool = False) -> dict[str, Any]:
    """The recall of these queries, shape (n, dimension). `itself`: the best hit of each is the query, and left out."""
    recalls: list[float] = []
    skip = 1 if itself else 0
    magnitude = 1.0 if live.spec.metric == "cosine" else 0.0
    for start in range(0, len(queries), _AT_ONCE):
        some = queries[start : start + _AT_ONCE]
        exact = await _scores(live, some, SearchOptions(K + skip, exact=True, sampled=False))
        near = await _scores(live, some, SearchOptions(K + skip, sampled=False))
        recalls += [recall_of(found[skip:], best[skip:], magnitude) for found, best in zip(near, exact, strict=True)]
    return {"k": K, **figures(recalls)}


async def _scores(live: LiveIndex, queries: Floats, options: SearchOptions) -> list[Floats]:
    """The scores of each query's hits, best first."""
    asked = [live.search(query, options) for query in queries]
    return [(await asyncio.wrap_future(each))[0] for each in asked]
