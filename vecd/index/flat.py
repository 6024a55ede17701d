"""Flat: exact search. A matrix in blocks, scanned whole.

Rules: rows are in label order, labels ascend from block to block, so a label's place is a binary search. Growing
allocates a block and never copies what is there. A removed row is masked; a block with a fifth of its rows dead is
packed. Not thread-safe: a LiveIndex owns it.

One query is scanned by faiss's SIMD kernels (1.8 ms for 50,000 x 256 on one core, where the matrix product of
BLAS took 5.3 ms on one and 2.9 ms on two); from three queries on, one matrix product for all is faster.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import limits

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_BLAS_FROM_QUERIES = 3
_DEAD_SHARE_MAX = 0.2


class _Block:
    """Up to FLAT_BLOCK_ROWS rows. Memory that no row has touched yet is not resident."""

    __slots__ = ("alive", "count", "dead", "labels", "norms", "rows")

    def __init__(self, dimension: int, rows_max: int) -> None:
        self.rows: Floats = np.empty((rows_max, dimension), np.float32)
        self.labels: Labels = np.empty(rows_max, np.int64)
        self.alive: npt.NDArray[np.bool_] = np.ones(rows_max, np.bool_)
        self.norms: Floats = np.empty(rows_max, np.float32)  # squared lengths; kept for l2 only
        self.count = 0
        self.dead = 0


class Flat:
    """Exact k nearest neighbours of float32 vectors under `cosine`, `dot` or `l2`."""

    def __init__(self, dimension: int, metric: str, block_rows: int = limits.FLAT_BLOCK_ROWS) -> None:
        self.dimension = dimension
        self.metric = metric
        self._block_rows = block_rows
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        """Rows that are alive."""
        return sum(block.count - block.dead for block in self._blocks)

    @property
    def dead(self) -> int:
        """Rows that are masked."""
        return sum(block.dead for block in self._blocks)

    @property
    def memory_bytes(self) -> int:
        """What the rows in use take."""
        return sum(block.count * (4 * self.dimension + 13) for block in self._blocks)

    def add(self, labels: Labels, vectors: Floats) -> None:
        """Adds rows: labels of shape (n,), ascending and above all that are there; vectors of shape (n, dimension)."""
        if not len(labels):
            return
        assert not self._blocks or labels[0] > self._blocks[-1].labels[self._blocks[-1].count - 1]
        rows = _normalised(vectors) if self.metric == "cosine" else vectors
        start = 0
        while start < len(labels):
            if not self._blocks or self._blocks[-1].count == len(self._blocks[-1].labels):
                self._blocks.append(_Block(self.dimension, self._block_rows))
            block = self._blocks[-1]
            stop = min(len(labels), start + len(block.labels) - block.count)
            place = slice(block.count, block.count + stop - start)
            block.rows[place] = rows[start:stop]
            block.labels[place] = labels[start:stop]
            block.alive[place] = True
            if self.metric == "l2":
                block.norms[place] = np.einsum("ij,ij->i", rows[start:stop], rows[start:stop])
            block.count += stop - start
            start = stop

    def remove(self, labels: list[int]) -> None:
        """Masks these labels; those that are not here are passed over."""
        firsts = [int(block.labels[0]) for block in self._blocks]
        for label in labels:
            at = bisect_right(firsts, label) - 1
            if at < 0:
                continue
            block = self._blocks[at]
            place = int(np.searchsorted(block.labels[: block.count], label))
            if place < block.count and block.labels[place] == label and block.alive[place]:
                block.alive[place] = False
                block.dead += 1

    def maintain(self) -> bool:
        """One slice of maintenance: packs one block with many dead rows. True if there may be more to do."""
        for at, block in enumerate(self._blocks):
            if block.dead > _DEAD_SHARE_MAX * block.count:
                self._pack(at)
                return True
        return False

    def _pack(self, at: int) -> None:
        block = self._blocks[at]
        keep = block.alive[: block.count].nonzero()[0]
        kept = len(keep)
        block.rows[:kept] = block.rows[keep]
        block.labels[:kept] = block.labels[keep]
        block.norms[:kept] = block.norms[keep]
        block.alive[:] = True
        block.count, block.dead = kept, 0
        if not kept:
            del self._blocks[at]
        elif at and self._blocks[at - 1].count + kept <= self._block_rows:
            before = self._blocks[at - 1]
            place = slice(before.count, before.count + kept)
            before.rows[place] = block.rows[:kept]
            before.labels[place] = block.labels[:kept]
            before.norms[place] = block.norms[:kept]
            before.alive[place] = True
            before.count += kept
            del self._blocks[at]

    def search(self, queries: Floats, k: int) -> tuple[Floats, Labels]:
        """The k best of each query: scores and labels of shape (n, min(k, len(self))), best first.

        `queries` has shape (n, dimension). Equal scores are in the order of their labels.
        """
        if self.metric == "cosine":
            queries = _normalised(queries)
        queries = np.ascontiguousarray(queries, np.float32)
        scan = self._scan_simd if len(queries) < _BLAS_FROM_QUERIES else self._scan_blas
        found = [scan(block, queries, min(k, block.count - block.dead)) for block in self._blocks]
        if not found:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        scores = np.concatenate([each[0] for each in found], axis=1)
        labels = np.concatenate([each[1] for each in found], axis=1)
        order = np.lexsort((labels, -scores), axis=1)[:, : min(k, len(self))]
        scores, labels = np.take_along_axis(scores, order, 1), np.take_along_axis(labels, order, 1)
        if self.metric == "l2":
            scores = -np.sqrt(np.maximum(-scores, 0))
        return scores, labels

    def _scan_simd(self, block: _Block, queries: Floats, k: int) -> tuple[Floats, Labels]:
        import faiss

        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        selector, bits = None, None
        if block.dead:
            bits = np.packbits(block.alive[: block.count], bitorder="little")
            selector = faiss.IDSelectorBitmap(block.count, faiss.swig_ptr(bits))
        kernel: Any = faiss.knn_L2sqr if self.metric == "l2" else faiss.knn_inner_product
        more = (None,) if self.metric == "l2" else ()  # knn_L2sqr takes the rows' norms, if known, before the selector
        kernel(
            faiss.swig_ptr(queries), faiss.swig_ptr(block.rows), self.dimension, len(queries), block.count, k,
            faiss.swig_ptr(scores), faiss.swig_ptr(rows), *more, selector,
        )  # fmt: skip
        return (-scores if self.metric == "l2" else scores), block.labels[rows]

    def _scan_blas(self, block: _Block, queries: Floats, k: int) -> tuple[Floats, Labels]:
        scores = queries @ block.rows[: block.count].T
        if self.metric == "l2":
            scores = 2 * scores - block.norms[: block.count] - np.einsum("ij,ij->i", queries, queries)[:, None]
        if block.dead:
            scores[:, ~block.alive[: block.count]] = -np.inf
        if k < scores.shape[1]:
            rows = np.argpartition(scores, -k, axis=1)[:, -k:] if k else np.empty((len(queries), 0), np.int64)
        else:
            rows = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        return np.take_along_axis(scores, rows, 1), block.labels[rows]


def _normalised(vectors: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one, and is equally unlike everything."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest == 0, 1, largest)  # so that no square is too small or too large for a float32
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.divide(scaled, np.where(lengths == 0, 1, lengths), dtype=np.float32)
