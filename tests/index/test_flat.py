"""Flat: blocks grow, are packed and given up, and what is found is what brute force finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.index_source import Filter, check
from vecd.index.brute_force import best
from vecd.index.local.flat import Flat
from vecd.index.rows import Floats, Labels, Selection

_DIMENSION = 3
_COMPONENT = st.sampled_from((-2.0, -0.5, 0.0, 1.0, 3.0))  # few, so that equal scores and zeros happen
_VECTOR = st.tuples(*(_COMPONENT,) * _DIMENSION)


def found(flat: Flat, query: Floats, k: int, selection: Selection | None = None) -> tuple[Floats, Labels]:
    """As a LiveIndex answers."""
    scores, labels = best(*flat.search(query[None], k, selection), k)
    return (-np.sqrt(-scores[0]) if flat.space == "l2" else scores[0]), labels[0]


class AgainstADict(RuleBasedStateMachine):
    """All that is done to a Flat, in any order; blocks of 8 rows, so that every edge of one is met."""

    @initialize(metric=st.sampled_from(("dot", "l2")))
    def begin(self, metric: str) -> None:
        self.metric = metric
        self.flat = Flat(_DIMENSION, "l2" if metric == "l2" else "ip", block_rows=8)
        self.there: dict[int, Floats] = {}
        self.next_label = 1

    @rule(vectors=st.lists(_VECTOR, min_size=1, max_size=20), gap=st.integers(0, 3))
    def add(self, vectors: list[tuple[float, ...]], gap: int) -> None:
        labels = np.arange(len(vectors), dtype=np.int64) + self.next_label + gap
        rows = np.array(vectors, np.float32)
        self.flat.add(labels, rows)
        self.there.update(zip(labels.tolist(), rows, strict=True))
        self.next_label = int(labels[-1]) + 1

    @rule(labels=st.lists(st.integers(0, 60), max_size=12))
    def remove(self, labels: list[int]) -> None:
        self.flat.remove(np.array(labels, np.int64))
        for label in labels:
            self.there.pop(label, None)

    @rule()
    def maintain(self) -> None:
        while self.flat.worn:
            assert self.flat.maintain()
        assert not self.flat.maintain()
        assert self.flat.dead <= 0.2 * (len(self.flat) + self.flat.dead)

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        labels, vectors = self.flat.take(count)
        assert len(labels) == len(vectors) <= count
        assert labels.tolist() == list(self.there)[: len(labels)], "not the first"
        for label, vector in zip(labels.tolist(), vectors, strict=True):
            assert vector.tolist() == self.there.pop(label).tolist()

    @rule(label=st.integers(-1, 60))
    def drop_through(self, label: int) -> None:
        self.flat.drop_through(label)
        self.there = {each: vector for each, vector in self.there.items() if each > label}

    @rule(query=_VECTOR, k=st.integers(1, 30))
    def search(self, query: tuple[float, ...], k: int) -> None:
        asked = np.array(query, np.float32)
        check(found(self.flat, asked, k), asked, k, self.there, self.metric, exact=True)

    @rule(query=_VECTOR, k=st.integers(1, 30), remainder=st.integers(0, 2), known=st.integers(0, 200))
    def search_with_a_filter(self, query: tuple[float, ...], k: int, remainder: int, known: int) -> None:
        asked = np.array(query, np.float32)
        numbers = {label: label % 3 for label in self.there if label <= known}
        selection = Filter(object(), numbers, np.arange(3) == remainder, known)
        matching = {each: self.there[each] for each, number in numbers.items() if number == remainder}
        check(found(self.flat, asked, k, selection), asked, k, matching, self.metric, exact=True)

    @rule()
    def sample(self) -> None:
        rows = self.flat.sample(np.arange(len(self.there)))
        assert rows.tolist() == [vector.tolist() for vector in self.there.values()]

    @invariant()
    def counts_what_is_there(self) -> None:
        if hasattr(self, "flat"):
            assert len(self.flat) == len(self.there)
            assert self.flat.last_label >= max(self.there, default=-1)


TestWhateverIsDoneToAFlatItIsAsADictWouldBe = AgainstADict.TestCase
TestWhateverIsDoneToAFlatItIsAsADictWouldBe.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def full(rows: int = 1_000, block_rows: int = 64) -> Flat:
    flat = Flat(8, "ip", block_rows)
    flat.add(np.arange(rows, dtype=np.int64), np.arange(8 * rows, dtype=np.float32).reshape(rows, 8))
    return flat


def test_a_packed_index_gives_back_the_memory_of_the_dead() -> None:
    flat = full()
    before = flat.memory_bytes
    flat.remove(np.arange(0, 1_000, 2))
    while flat.maintain():
        pass
    assert flat.dead == 0
    assert flat.memory_bytes * 2 == before


def test_a_block_with_a_fifth_of_its_rows_dead_is_not_packed_yet() -> None:
    flat = full(rows=60, block_rows=20)
    flat.remove(np.array([0, 1, 2, 3]))
    assert not flat.worn
    assert not flat.maintain()
    assert flat.dead == 4
    flat.remove(np.array([4]))
    assert flat.maintain()
    assert flat.dead == 0


@pytest.mark.parametrize(
    "forget",
    [lambda flat: flat.remove(np.arange(1_000)), lambda flat: flat.drop_through(999), lambda flat: flat.take(1_000)],
    ids=["remove", "drop_through", "take"],
)
def test_a_flat_that_has_forgotten_all_takes_no_memory_and_can_be_filled_again(
    forget: Callable[[Flat], None],
) -> None:
    flat = full()
    while len(flat):
        forget(flat)
    while flat.maintain():
        pass
    assert flat.memory_bytes == 0
    assert flat.last_label == -1
    scores, labels = flat.search(np.ones((2, 8), np.float32), 5)
    assert scores.shape == labels.shape == (2, 0)
    assert flat.sample(np.empty(0, np.int64)).shape == (0, 8)
    flat.add(np.array([2_000]), np.ones((1, 8), np.float32))
    assert found(flat, np.ones(8, np.float32), 5)[1].tolist() == [2_000]


def test_what_is_taken_is_from_one_block_and_alive() -> None:
    flat = full(rows=130, block_rows=64)
    flat.remove(np.array([0, 1, 63]))
    labels, vectors = flat.take(100)
    assert labels.tolist() == list(range(2, 63))
    assert vectors[0].tolist() == list(range(16, 24))
    assert flat.take(1)[0].tolist() == [64]
    assert len(flat) == 65


def test_growing_does_not_move_what_is_there() -> None:
    flat = full(rows=64, block_rows=64)
    before = flat.memory_bytes
    for label in range(64, 200):
        flat.add(np.array([label]), np.ones((1, 8), np.float32))
    assert len(flat) == 200
    assert flat.memory_bytes == before * 200 // 64
