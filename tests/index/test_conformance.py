"""One conformance suite for every kind of structure, against a dict of vectors: what brute force gives, they give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vecd.index import METRICS
from vecd.index.flat import Flat

_DIMENSION = 5
_COMPONENT = st.sampled_from((-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0))  # few, so that equal scores and zeros happen
_VECTOR = st.lists(_COMPONENT, min_size=_DIMENSION, max_size=_DIMENSION)


def brute_force(
    vectors: dict[int, npt.NDArray[np.float32]], query: npt.NDArray[np.float32], metric: str
) -> list[tuple[float, int]]:
    """(score, label) of all, best first, by the definition of the metric."""

    def score(vector: npt.NDArray[np.float32]) -> float:
        if metric == "l2":
            return -float(np.linalg.norm(query - vector))
        product = float(query @ vector)
        lengths = float(np.linalg.norm(query) * np.linalg.norm(vector))
        return product if metric == "dot" else product / lengths if lengths else 0.0

    return sorted(((score(vector), label) for label, vector in vectors.items()), key=lambda pair: (-pair[0], pair[1]))


class FlatAgainstADict(RuleBasedStateMachine):
    """Adds, removes, searches and maintenance in any order; blocks of 8 rows, so that every edge of one is met."""

    @initialize(metric=st.sampled_from(sorted(METRICS)))
    def begin(self, metric: str) -> None:
        self.metric = metric
        self.flat = Flat(_DIMENSION, metric, block_rows=8)
        self.there: dict[int, npt.NDArray[np.float32]] = {}
        self.next_label = 1

    @rule(vectors=st.lists(_VECTOR, min_size=1, max_size=20), gap=st.integers(0, 3))
    def add(self, vectors: list[list[float]], gap: int) -> None:
        labels = np.arange(len(vectors), dtype=np.int64) + self.next_label + gap
        rows = np.array(vectors, np.float32)
        self.flat.add(labels, rows)
        self.there.update(zip(labels.tolist(), rows, strict=True))
        self.next_label = int(labels[-1]) + 1

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        labels = data.draw(st.lists(st.integers(0, self.next_label + 2), max_size=12, unique=True))
        self.flat.remove(labels)
        for label in labels:
            self.there.pop(label, None)

    @rule()
    def maintain(self) -> None:
        while self.flat.maintain():
            pass
        assert self.flat.dead <= 0.2 * (len(self.flat) + self.flat.dead)

    @rule(queries=st.lists(_VECTOR, min_size=1, max_size=5), k=st.integers(1, 30))
    def search(self, queries: list[list[float]], k: int) -> None:
        rows = np.array(queries, np.float32)
        scores, labels = self.flat.search(rows, k)
        for query, its_scores, its_labels in zip(rows, scores, labels, strict=True):
            wanted = brute_force(self.there, query, self.metric)[:k]
            assert len(its_labels) == len(wanted) == len(set(its_labels.tolist()))
            assert set(its_labels.tolist()) <= self.there.keys(), "a dead or foreign label"
            np.testing.assert_allclose(its_scores, [score for score, _ in wanted], atol=2e-3)
            own = {label: score for score, label in brute_force(self.there, query, self.metric)}
            np.testing.assert_allclose(its_scores, [own[label] for label in its_labels.tolist()], atol=2e-3)

    @invariant()
    def counts_what_is_alive(self) -> None:
        if hasattr(self, "flat"):
            assert len(self.flat) == len(self.there)


TestFlatAgainstADict = FlatAgainstADict.TestCase
TestFlatAgainstADict.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("queries", [1, 40])
def test_flat_finds_exactly_what_brute_force_finds_among_many(metric: str, queries: int) -> None:
    random = np.random.default_rng(3)
    vectors = random.standard_normal((5_000, 32), np.float32)
    flat = Flat(32, metric, block_rows=1_024)
    flat.add(np.arange(5_000, dtype=np.int64), vectors)
    gone = random.choice(5_000, 700, replace=False).tolist()
    flat.remove(gone)
    there = {label: vectors[label] for label in range(5_000) if label not in set(gone)}
    asked = random.standard_normal((queries, 32), np.float32)
    _, labels = flat.search(asked, 10)
    for query, found in zip(asked, labels.tolist(), strict=True):
        assert found == [label for _, label in brute_force(there, query, metric)[:10]]


def test_a_packed_index_gives_back_the_memory_of_the_dead() -> None:
    flat = Flat(8, "dot", block_rows=64)
    flat.add(np.arange(1_000, dtype=np.int64), np.ones((1_000, 8), np.float32))
    before = flat.memory_bytes
    flat.remove(list(range(0, 1_000, 2)))
    while flat.maintain():
        pass
    assert flat.dead == 0
    assert flat.memory_bytes * 2 == before
