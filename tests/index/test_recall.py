"""How much of what is nearest the approximate kinds find: never less than their floor, whatever happened to the index.

Vectors in twenty clusters, 200 queries from among them; recall@10 against brute force. Vectors that are equally near
count as found. So many vectors, and such an effort, that an index is asked and not a scan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest

from tests.support.index_source import WAIT_S, Driven, MemorySource, spec, true_scores
from vecd.index import METRICS
from vecd.index.policy import Tuning
from vecd.index.requests import SearchOptions
from vecd.index.rows import Floats

_DIMENSION: Final = 64
_QUERIES: Final = 200
_K: Final = 10


class _Case(NamedTuple):
    """One kind as it is tested here."""

    floor: float
    vectors: int
    ef: int
    name: str
    parameters: dict[str, int]


_CASES: Final = {
    "hnsw": _Case(0.95, 10_000, 96, "hnsw float32", {"m": 16, "ef_construction": 128}),
    "lsh": _Case(0.9, 20_000, 500, "lsh", {"bits": 512}),
}

#: Draining at full speed, and no building anew before somebody asks for it.
_TUNING: Final = Tuning(rows_min=1_000, quiet_s=0, dead_share_max=0.9, save_rows_min=1_000_000)


class Clusters:
    """Where vectors and queries come from."""

    def __init__(self, metric: str, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._centres = self._random.standard_normal((20, _DIMENSION), np.float32)
        self._metric = metric

    def draw(self, count: int) -> Floats:
        near = self._centres[self._random.integers(0, len(self._centres), count)]
        vectors = near + np.float32(0.6) * self._random.standard_normal((count, _DIMENSION), np.float32)
        if self._metric == "dot":  # lengths that differ by a factor of ten
            vectors *= np.exp(self._random.uniform(0, np.log(10), (count, 1))).astype(np.float32)
        return vectors

    def labels(self, driven: Driven, share: float) -> list[int]:
        """Some of those that are there."""
        there = np.array(list(driven.source.vectors))
        chosen: list[int] = self._random.choice(there, int(share * len(there)), replace=False).tolist()
        return chosen


def recall(driven: Driven, queries: Floats, ef: int) -> float:
    """The share of the nearest that is found."""
    every = np.array(list(driven.source.vectors))
    scores = true_scores(np.stack(list(driven.source.vectors.values())), queries, driven.source.spec.metric)
    futures = [driven.live.search(query, SearchOptions(_K, ef)) for query in queries]
    found = 0
    for its_scores, future in zip(scores, futures, strict=True):
        kth = np.partition(its_scores, -_K)[-_K]
        own = its_scores[np.searchsorted(every, future.result(WAIT_S)[1])]
        found += int((own >= kth - 1e-5 * abs(kth)).sum())
    return found / (_K * len(queries))


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("kind", sorted(_CASES))
def test_recall_stays_above_the_floor_whatever_happened_to_the_index(kind: str, metric: str, tmp_path: Path) -> None:
    case = _CASES[kind]
    clusters = Clusters(metric)
    source = MemorySource(spec(case.name, metric, _DIMENSION, **case.parameters), tmp_path / "snapshot")
    driven = Driven(source, _TUNING)
    try:
        driven.write(clusters.draw(case.vectors))
        assert driven.settle()["structure"] == case.vectors
        queries = clusters.draw(_QUERIES)
        assert recall(driven, queries, case.ef) >= case.floor, "when it is new"

        updated = clusters.labels(driven, 0.5)
        driven.write(clusters.draw(len(updated)), updated)
        driven.settle()
        driven.write(removed=clusters.labels(driven, 0.2))
        described = driven.settle()
        assert described["structure"] == 0.8 * case.vectors
        assert described["dead"] == 0.7 * case.vectors, "it was built anew"
        assert recall(driven, queries, case.ef) >= case.floor, "after half was updated and a fifth deleted"

        driven.stop(save=True)
        driven = Driven(source, _TUNING)
        driven.settle()
        assert recall(driven, queries, case.ef) >= case.floor, "after it was saved and loaded"

        driven.live.rebuild().result(WAIT_S)
        before = recall(driven, queries, case.ef)
        assert before >= case.floor, "after it was built anew"

        if kind == "hnsw" and metric == "cosine":
            driven.live.rebuild(spec("hnsw float16", metric, _DIMENSION, **case.parameters)).result(WAIT_S)
            assert abs(recall(driven, queries, case.ef) - before) <= 0.005, "float16 finds something else"
    finally:
        driven.stop()


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("kind", sorted(_CASES))
def test_an_index_that_was_built_of_next_to_nothing_finds_what_comes_later(kind: str, metric: str) -> None:
    case = _CASES[kind]
    clusters = Clusters(metric)
    driven = Driven(MemorySource(spec(case.name, metric, _DIMENSION, **case.parameters)), _TUNING)
    try:
        driven.write(clusters.draw(3))
        driven.live.rebuild().result(WAIT_S)
        for _ in range(16):
            driven.write(clusters.draw(250))
        assert driven.settle()["tail"] == 0
        assert recall(driven, clusters.draw(_QUERIES), case.ef) >= case.floor
    finally:
        driven.stop()
