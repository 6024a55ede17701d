"""Exact search in a matrix gives what brute force gives, by whichever of its ways; and scores are put in order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vecd import limits
from vecd.index import LENGTH_MAX, brute_force
from vecd.index.rows import Allowed, Bools, Floats

_ROWS, _DIMENSION = 1_000, 24


def true_scores(matrix: Floats, queries: Floats, space: str) -> npt.NDArray[np.float64]:
    rows, asked = matrix.astype(np.float64), queries.astype(np.float64)
    if space == "ip":
        return asked @ rows.T
    return np.array([-np.square(rows - query).sum(axis=1) for query in asked])


def mask_of(random: np.random.Generator, allowed: str) -> Bools | None:
    """Too few for a scan of all to pay, or enough, or one; in one stretch or all over."""
    if allowed == "all":
        return None
    mask = np.zeros(_ROWS, np.bool_)
    if allowed == "one":
        mask[random.integers(_ROWS)] = True
    elif allowed == "a stretch":
        mask[300:700] = True
    else:
        mask[random.choice(_ROWS, {"few": 100, "many": 600}[allowed], replace=False)] = True
    return mask


@pytest.mark.parametrize("block_rows", [64, 16_384])
@pytest.mark.parametrize("space", ["ip", "l2"])
@pytest.mark.parametrize("allowed", ["all", "one", "few", "many", "a stretch"])
@pytest.mark.parametrize("queries", [1, 2, 3, 40])
def test_the_nearest_are_those_that_brute_force_finds(
    queries: int, allowed: str, space: str, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLAT_BLOCK_ROWS", block_rows)
    random = np.random.default_rng(5)
    matrix = random.standard_normal((_ROWS + 3, _DIMENSION), np.float32)[3:]  # not where its memory begins
    asked = random.standard_normal((queries, _DIMENSION), np.float32)
    mask = mask_of(random, allowed)
    count = _ROWS if mask is None else int(mask.sum())
    true = true_scores(matrix, asked, space)
    if mask is not None:
        true[:, ~mask] = -np.inf
    for k in {1, min(10, count), min(200, count), count}:
        scores, rows = brute_force.nearest(matrix, asked, k, Allowed(count, mask), space)
        assert scores.shape == rows.shape == (queries, k)
        assert (scores.dtype.name, rows.dtype.name) == ("float32", "int64")
        for its_scores, its_rows, its_true in zip(scores, rows, true, strict=True):
            assert len(set(its_rows.tolist())) == k
            np.testing.assert_allclose(its_scores, its_true[its_rows], atol=1e-4)
            np.testing.assert_allclose(np.sort(its_scores), np.sort(its_true)[-k:], atol=1e-4)


@pytest.mark.parametrize("space", ["ip", "l2"])
@pytest.mark.parametrize("allowed", ["all", "few", "many"])
@pytest.mark.parametrize("queries", [1, 3])
def test_the_longest_vectors_that_may_be_have_finite_scores(queries: int, allowed: str, space: str) -> None:
    random = np.random.default_rng(6)
    matrix = random.standard_normal((_ROWS, _DIMENSION), np.float32)
    matrix *= np.float32(0.999 * LENGTH_MAX) / np.linalg.norm(matrix, axis=1, keepdims=True)
    asked = -matrix[:queries]  # as far away as can be
    mask = mask_of(random, allowed)
    count = _ROWS if mask is None else int(mask.sum())
    scores, rows = brute_force.nearest(matrix, asked, count, Allowed(count, mask), space)
    assert np.isfinite(scores).all()
    for its_rows in rows.tolist():
        assert len(set(its_rows)) == count


@pytest.mark.parametrize("queries", [1, 3, 40])
def test_far_from_the_origin_a_vector_is_still_nearest_to_itself(queries: int) -> None:
    random = np.random.default_rng(7)
    matrix = (1_000 + random.standard_normal((_ROWS, _DIMENSION))).astype(np.float32)
    scores, rows = brute_force.nearest(matrix, matrix[:queries].copy(), 1, Allowed(_ROWS, None), "l2")
    assert rows[:, 0].tolist() == list(range(queries))
    np.testing.assert_allclose(scores[:, 0], 0, atol=0.01)


def test_no_hits_are_wanted_and_none_are_found() -> None:
    matrix = np.ones((3, 2), np.float32)
    for allowed in (Allowed(3, None), Allowed(0, np.zeros(3, np.bool_))):
        scores, rows = brute_force.nearest(matrix, matrix, 0, allowed, "ip")
        assert scores.shape == rows.shape == (3, 0)


@pytest.mark.parametrize("count", [1, 2])
def test_the_best_come_first_and_equal_ones_in_the_order_of_their_labels(count: int) -> None:
    scores = np.array([[1, 3, 3, -np.inf, 2]] * count, np.float32)
    labels = np.array([[5, 9, 7, 1, 2]] * count, np.int64)
    first, whose = brute_force.best(scores, labels, 4)
    assert first.tolist() == [[3, 3, 2, 1]] * count
    assert whose.tolist() == [[7, 9, 2, 5]] * count
    assert brute_force.best(scores, labels, 10)[1].tolist() == [[7, 9, 2, 5, 1]] * count


@pytest.mark.parametrize("length", [1e-44, 1e-30, 1e-10, 1.0, 1e10, 9e18])
def test_vectors_of_any_length_are_brought_to_length_one(length: float) -> None:
    directions = np.random.default_rng(8).standard_normal((5, 3))
    vectors = (directions / np.abs(directions).max(axis=1, keepdims=True) * length / 2).astype(np.float32)
    for these in (vectors, vectors[:1]):
        made = brute_force.normalised(these)
        assert made.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-6)
        true = these.astype(np.float64) / np.linalg.norm(these.astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(made, true, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_vector_of_zeros_stays_one(count: int) -> None:
    zeros = np.zeros((count, 3), np.float32)
    assert brute_force.normalised(zeros).tolist() == zeros.tolist()
