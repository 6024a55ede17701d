"""Exact search in a matrix, and what it needs of faiss.

Which way is fastest depends on how many queries there are and how many rows may be found. Measured for 200,000 x 256
on one core: faiss's kernel over all rows 38 ns a row; the same with a selector 75 ns for each row it lets through, so
that is never used; picked by their numbers 150 ns a row, because memory is jumped about in. From three queries on,
one matrix product for all is faster; not for l2, where far from the origin it would lose all that is to be compared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import limits
from .native import faiss
from .rows import Allowed, Floats, Labels

_BLAS_FROM_QUERIES = 3
#: Picking rows by their numbers pays while they are fewer than this share of all.
PICK_SHARE = 0.25


#: Microseconds that a row costs on one core, scanned in order and picked by its number.
_SCAN_US, _PICK_US = 0.04, 0.15

#: Squared lengths between which a float32 loses nothing.
_SQUARE_MIN, _SQUARE_MAX = 1e-20, 1e30


def normalised(vectors: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one, and is equally unlike everything."""
    if len(vectors) == 1 and _SQUARE_MIN < (square := float(vectors[0] @ vectors[0])) < _SQUARE_MAX:
        return vectors / np.float32(math.sqrt(square))  # most queries; what follows is four times as slow for one
    squares = np.einsum("ij,ij->i", vectors, vectors)
    if squares.min(initial=_SQUARE_MAX) > _SQUARE_MIN and squares.max(initial=0) < _SQUARE_MAX:
        shortened: Floats = vectors / np.sqrt(squares)[:, None]
        return shortened
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest == 0, 1, largest)  # so that no square is too small or too large for a float32
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, np.where(lengths == 0, 1, lengths), dtype=np.float32)


def nearest(matrix: Floats, queries: Floats, k: int, allowed: Allowed, space: str) -> tuple[Floats, Labels]:
    """The k best rows of each query: scores and row numbers of shape (n, k), in no order.

    `matrix` has shape (rows, dimension), `queries` (n, dimension), both C-contiguous; k is at most allowed.count.
    """
    if not k:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    few = allowed.mask is not None and allowed.count < PICK_SHARE * len(matrix)
    if space == "ip" and len(queries) >= _BLAS_FROM_QUERIES:
        ids = allowed.ids if few else None
        return _by_product(matrix if ids is None else matrix[ids], queries, k, None if few else allowed, ids)
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for place, query in enumerate(queries):
        if few:
            _picked(matrix, query, allowed.ids, space, scores[place], rows[place])
        elif allowed.mask is None:
            _all(matrix, query, space, scores[place], rows[place])
        else:
            _masked(matrix, query, allowed, space, scores[place], rows[place])
    return scores, rows


def cost_us(allowed: Allowed, rows: int) -> float:
    """About what `nearest` takes for one query, in microseconds; structures weigh their own way against it."""
    if allowed.count < PICK_SHARE * rows:
        return min(_SCAN_US * rows, _PICK_US * allowed.count)
    return _SCAN_US * rows


def best(scores: Floats, labels: Labels, k: int) -> tuple[Floats, Labels]:
    """The k best of each row, best first; equal scores are in the order of their labels."""
    if scores.shape[1] <= k and (scores[:, 1:] < scores[:, :-1]).all():
        return scores, labels  # a walk's own order
    if len(scores) == 1:
        first = np.lexsort((labels[0], -scores[0]))[:k]
        return scores[:, first], labels[:, first]
    order = np.lexsort((labels, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(labels, order, 1)


def _all(matrix: Floats, query: Floats, space: str, scores: Floats, rows: Labels) -> None:
    kernel: Any = faiss().knn_L2sqr if space == "l2" else faiss().knn_inner_product
    kernel(
        faiss().swig_ptr(query), faiss().swig_ptr(matrix), matrix.shape[1], 1, len(matrix), len(scores),
        faiss().swig_ptr(scores), faiss().swig_ptr(rows),
    )  # fmt: skip
    if space == "l2":
        np.negative(scores, out=scores)


def _picked(matrix: Floats, query: Floats, ids: Labels, space: str, scores: Floats, rows: Labels) -> None:
    kernel = faiss().knn_L2sqr_by_idx if space == "l2" else faiss().knn_inner_products_by_idx
    kernel(
        faiss().swig_ptr(query), faiss().swig_ptr(matrix), faiss().swig_ptr(ids), matrix.shape[1], 1, len(matrix),
        len(ids), len(scores), faiss().swig_ptr(scores), faiss().swig_ptr(rows),
    )  # fmt: skip
    if space == "l2":
        np.negative(scores, out=scores)


def _masked(matrix: Floats, query: Floats, allowed: Allowed, space: str, scores: Floats, rows: Labels) -> None:
    every = np.empty(len(matrix), np.float32)
    kernel: Any = faiss().fvec_L2sqr_ny if space == "l2" else faiss().fvec_inner_products_ny
    kernel(faiss().swig_ptr(every), faiss().swig_ptr(query), faiss().swig_ptr(matrix), matrix.shape[1], len(matrix))
    if space == "l2":
        np.negative(every, out=every)
    assert allowed.mask is not None
    every[~allowed.mask] = -np.inf
    rows[:] = np.argpartition(every, -len(rows))[-len(rows) :]
    scores[:] = every[rows]


def _by_product(
    matrix: Floats, queries: Floats, k: int, allowed: Allowed | None, ids: Labels | None
) -> tuple[Floats, Labels]:
    """One matrix product a block of rows, so that its scores stay a bounded size."""
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
    return joined, numbers if ids is None else ids[numbers]
