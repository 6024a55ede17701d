"""KdTree: exact, although it looks at few; whatever stands where it does not expect it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.index_source import Filter, check, spec
from vecd.index.brute_force import best, normalised
from vecd.index.local.kdtree import KdTree
from vecd.index.rows import Floats, Selection
from vecd.index.structure import Effort

_COUNT, _DIMENSION = 3_000, 3


def tree(vectors: Floats, metric: str) -> KdTree:
    made = KdTree(spec("kdtree", metric, vectors.shape[1]))
    for start in range(0, len(vectors), 1_000):
        page = vectors[start : start + 1_000]
        page = normalised(page) if metric == "cosine" else page
        made.extend(np.arange(start, start + len(page), dtype=np.int64), page)
    made.finish()
    return made


def check_exact(made: KdTree, vectors: Floats, metric: str, selection: Selection | None = None) -> None:
    allowed = made.rows.allowed(selection)
    mask = np.ones(len(vectors), np.bool_) if allowed.mask is None else allowed.mask
    there = {label: vectors[label] for label in np.flatnonzero(mask).tolist()}
    queries = np.random.default_rng(2).standard_normal((5, vectors.shape[1]), np.float32)
    for k in (1, 10):
        asked = normalised(queries) if metric == "cosine" else queries
        scores, labels = best(*made.search(asked, k, allowed, Effort(0.98)), k)
        scores = -np.sqrt(-scores) if metric == "l2" else scores
        for query, its_scores, its_labels in zip(queries, scores, labels, strict=True):
            check((its_scores, its_labels), query, k, there, metric, exact=True)


def drawn(seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((_COUNT, _DIMENSION), np.float32)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_tree_finds_exactly_what_a_scan_finds_whatever_is_dead_or_filtered_out(metric: str) -> None:
    vectors = drawn()
    made = tree(vectors, metric)
    check_exact(made, vectors, metric)
    numbers = {label: label % 3 for label in range(_COUNT)}
    check_exact(made, vectors, metric, Filter(object(), numbers, np.arange(3) == 1, _COUNT))
    made.rows.remove(np.arange(0, _COUNT, 100))
    check_exact(made, vectors, metric)
    check_exact(made, vectors, metric, Filter(object(), numbers, np.arange(3) < 2, _COUNT))
    made.rows.remove(np.arange(0, _COUNT, 2))
    check_exact(made, vectors, metric)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_filter_that_lets_nothing_near_through_is_no_matter(metric: str) -> None:
    vectors = drawn()
    vectors[:, 0] = np.abs(vectors[:, 0])
    vectors[:100, 0] *= -1
    far = np.arange(2) == 1
    numbers = {label: int(label < 100) for label in range(_COUNT)}
    check_exact(tree(vectors, metric), vectors, metric, Filter(object(), numbers, far, _COUNT))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_vectors_of_zeros_are_as_near_as_they_are(metric: str) -> None:
    vectors = drawn() * np.array([0.05, 1, 1], np.float32)  # all at nearly a right angle to some
    vectors[::50] = 0
    made = tree(vectors, metric)
    there = dict(enumerate(vectors))
    query = np.array([1, 0, 0], np.float32)
    for k in (1, 10, 50):
        scores, labels = best(*made.search(query[None], k, made.rows.allowed(None), Effort(0.98)), k)
        scores = -np.sqrt(-scores) if metric == "l2" else scores
        check((scores[0], labels[0]), query, k, there, metric, exact=True)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_vectors_that_are_all_the_same_are_all_found(metric: str) -> None:
    vectors = np.ones((_COUNT, _DIMENSION), np.float32)
    made = tree(vectors, metric)
    check_exact(made, vectors, metric)
    made.rows.remove(np.arange(20))
    check_exact(made, vectors, metric)
