"""Exact k-nearest-neighbour search in a matrix, with faiss's kernels.

The fastest method depends on the number of queries and of allowed rows. Measured for 200,000 x 256 on one core: faiss's
kernel over all rows takes 38 ns per row; with a selector 75 ns per allowed row, so a selector is never used; over a
list of row numbers 150 ns per row, because of random access. From three queries on, one matrix product for all is
faster; not for l2, where it would lose all precision far from the origin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import limits
from .native import faiss
from .rows import Allowed, Floats, Labels

_BLAS_FROM_QUERIES = 3
#: The minimum number of rows beyond the k-th that are scored again, to find ties at the end.
_SPARE_MIN = 8
#: The relative rounding error of an inner product of float32, per square root of the number of components.
_ROUNDING = 4e-7
#: Below this share of all rows, scoring a list of row numbers is faster than a scan.
LIST_SHARE = 0.25

#: Microseconds per row on one core: in a scan, and in a list of row numbers.
_SCAN_US, _LIST_US = 0.04, 0.15

#: Squared lengths between which float32 does not lose precision.
_SQUARE_MIN, _SQUARE_MAX = 1e-20, 1e30


def normalised(vectors: Floats) -> Floats:
    """Rows normalized to length 1. A row of zeros does not change: its cosine is 0 to all vectors."""
    if len(vectors) == 1 and _SQUARE_MIN < (square := float(vectors[0] @ vectors[0])) < _SQUARE_MAX:
        return vectors / np.float32(math.sqrt(square))  # the general case takes four times as long
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if squares.min(initial=_SQUARE_MAX) > _SQUARE_MIN and squares.max(initial=0) < _SQUARE_MAX:
        divided: Floats = vectors / np.sqrt(squares)[:, None]
        return divided
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest == 0, 1, largest)  # so that no square overflows or underflows
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, np.where(lengths == 0, 1, lengths), dtype=np.float32)


def nearest(matrix: Floats, queries: Floats, k: int, allowed: Allowed, space: str) -> tuple[Floats, Labels]:
    """The k best rows of each query: scores and row numbers of shape (n, k), best first.

    `matrix` has shape (rows, dimension), `queries` (n, dimension), both C-contiguous; k is at most allowed.count.
    The answer does not depend on other queries of the same call. The fast methods differ in their last bits, so they
    find a few rows more than k, and `scores` ranks these. Equal scores are ordered by row.
    """
    if not k:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    few = allowed.mask is not None and allowed.count < LIST_SHARE * len(matrix)
    wide = min(allowed.count, k + max(_SPARE_MIN, k // 8))
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    near: Labels | None = None
    if space == "ip" and len(queries) >= _BLAS_FROM_QUERIES:
        ids = allowed.ids if few else None
        near = _by_product(matrix if ids is None else matrix[ids], queries, wide, None if few else allowed, ids)
    for place, query in enumerate(queries):
        found = near[place] if near is not None else _near(matrix, query, wide, allowed, few, space)
        if wide < allowed.count and _others_may_tie(matrix, query, found, k, space):
            found = _with_ties(matrix, query, k, allowed, space)
        scores[place], rows[place] = best_of(matrix, query, found, k, space)
    return scores, rows


def best_of(matrix: Floats, query: Floats, rows: Labels, k: int, space: str) -> tuple[Floats, Labels]:
    """The k best of these rows, best first, equal scores by row."""
    exact = scores(matrix, query, rows, space)
    order = np.lexsort((rows, -exact))[:k]
    return exact[order], rows[order]


def scores(matrix: Floats, query: Floats, rows: Labels, space: str) -> Floats:
    """The scores of these rows, shape (len(rows),); for a query and a row always the same to the last bit."""
    found = np.empty(len(rows), np.float32)
    kernel: Any = faiss().fvec_L2sqr_by_idx if space == "l2" else faiss().fvec_inner_products_by_idx
    rows = np.ascontiguousarray(rows, np.int64)
    kernel(
        faiss().swig_ptr(found), faiss().swig_ptr(query), faiss().swig_ptr(matrix), faiss().swig_ptr(rows),
        matrix.shape[1], 1, len(rows),
    )  # fmt: skip
    if space == "l2":
        np.negative(found, out=found)
    return found


def _others_may_tie(matrix: Floats, query: Floats, rows: Labels, k: int, space: str) -> bool:
    """Whether other rows than these may tie with the k-th of them."""
    exact = np.sort(scores(matrix, query, rows, space))
    last = float(exact[-k])
    return float(exact[0]) >= last - _slack(matrix, query, rows, last, space)


def _slack(matrix: Floats, query: Floats, rows: Labels, score: float, space: str) -> float:
    """The maximum difference between two methods of computing this score."""
    share = _ROUNDING * math.sqrt(matrix.shape[1])
    if space == "l2":
        return share * abs(score)
    some = matrix[rows[:_SPARE_MIN]]
    return share * math.sqrt(float(query @ query) * float(np.einsum("ij,ij->i", some, some).max(initial=0)))


def _near(matrix: Floats, query: Floats, k: int, allowed: Allowed, few: bool, space: str) -> Labels:
    scores, rows = np.empty(k, np.float32), np.empty(k, np.int64)
    if few:
        _scored_list(matrix, query, allowed.ids, space, scores, rows)
    elif allowed.mask is None:
        _scanned(matrix, query, space, scores, rows)
    else:
        every = _every(matrix, query, allowed, space)
        rows[:] = np.argpartition(every, -k)[-k:]
    return rows


def _with_ties(matrix: Floats, query: Floats, k: int, allowed: Allowed, space: str) -> Labels:
    """All rows that may be as good as the k-th or better."""
    every = _every(matrix, query, allowed, space)
    best = np.argpartition(every, -k)[-k:]
    last = float(every[best].min())
    found: Labels = np.flatnonzero(every >= last - _slack(matrix, query, best, last, space))
    return found


def cost_us(allowed: Allowed, rows: int) -> float:
    """The approximate time of `nearest` for one query, in microseconds; structures compare their own cost with it."""
    if allowed.count < LIST_SHARE * rows:
        return min(_SCAN_US * rows, _LIST_US * allowed.count)
    return _SCAN_US * rows


def best(scores: Floats, labels: Labels, k: int) -> tuple[Floats, Labels]:
    """The k best of each query, best first, equal scores by label."""
    if scores.shape[1] <= k and (scores[:, 1:] < scores[:, :-1]).all():
        return scores, labels  # already sorted, as by a graph search
    if len(scores) == 1:
        first = np.lexsort((labels[0], -scores[0]))[:k]
        return scores[:, first], labels[:, first]
    order = np.lexsort((labels, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(labels, order, 1)


def _scanned(matrix: Floats, query: Floats, space: str, scores: Floats, rows: Labels) -> None:
    kernel: Any = faiss().knn_L2sqr if space == "l2" else faiss().knn_inner_product
    kernel(
        faiss().swig_ptr(query), faiss().swig_ptr(matrix), matrix.shape[1], 1, len(matrix), len(scores),
        faiss().swig_ptr(scores), faiss().swig_ptr(rows),
    )  # fmt: skip
    if space == "l2":
        np.negative(scores, out=scores)


def _scored_list(matrix: Floats, query: Floats, ids: Labels, space: str, scores: Floats, rows: Labels) -> None:
    kernel = faiss().knn_L2sqr_by_idx if space == "l2" else faiss().knn_inner_products_by_idx
    kernel(
        faiss().swig_ptr(query), faiss().swig_ptr(matrix), faiss().swig_ptr(ids), matrix.shape[1], 1, len(matrix),
        len(ids), len(scores), faiss().swig_ptr(scores), faiss().swig_ptr(rows),
    )  # fmt: skip
    if space == "l2":
        np.negative(scores, out=scores)


def _every(matrix: Floats, query: Floats, allowed: Allowed, space: str) -> Floats:
    """The scores of all rows, shape (len(matrix),); minus infinity for rows that are not allowed."""
    every = np.empty(len(matrix), np.float32)
    kernel: Any = faiss().fvec_L2sqr_ny if space == "l2" else faiss().fvec_inner_products_ny
    kernel(faiss().swig_ptr(every), faiss().swig_ptr(query), faiss().swig_ptr(matrix), matrix.shape[1], len(matrix))
    if space == "l2":
        np.negative(every, out=every)
    if allowed.mask is not None:
        every[~allowed.mask] = -np.inf
    return every


def _by_product(matrix: Floats, queries: Floats, k: int, allowed: Allowed | None, ids: Labels | None) -> Labels:
    """The k best rows of each query, in no order: one matrix product per block of rows, which bounds the memory of the
    scores."""
    mask = None if allowed is None else allowed.mask
    scores, rows = [], []
    for start in range(0, len(matrix), limits.FLAT_BLOCK_ROWS):
        block = matrix[start : start + limits.FLAT_BLOCK_ROWS]
        products = queries @ block.T
        if mask is not None:
            products[:, ~mask[start : start + len(block)]] = -np.inf
        its_k = min(k, len(block))
        found = np.argpartition(products, -its_k, axis=1)[:, -its_k:]
        scores.append(np.take_along_axis(products, found, 1))
        rows.append(found + start)
    joined, numbers = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
    if joined.shape[1] > k:
        kept = np.argpartition(joined, -k, axis=1)[:, -k:]
        joined, numbers = np.take_along_axis(joined, kept, 1), np.take_along_axis(numbers, kept, 1)
    return numbers if ids is None else ids[numbers]
