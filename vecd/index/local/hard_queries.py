"""Detects queries for which a graph search may have failed, so that a wider search or a scan must check the answer.

Three signs, each cheap compared with a graph search:

- *Witnesses.* Up to 256 nodes are compared with every query. If one of them is nearer than the hits, but was not found,
  the search has failed.
- *Far hits.* For some stored vectors the distance to their tenth neighbour is known. If the tenth hit of a query is
  further away than for most of these, the query is unlike the documents, and graphs are bad at such queries.
- *No contrast.* If all found nodes are at about the same distance, the search had no gradient to follow.

Distances are faiss's: squared ones, ascending, or inner products, descending, for the metric dot. Not thread-safe: the
structure that owns it is.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..native import faiss
from ..rows import Bools, Floats, Labels

#: The maximum number of witnesses; they are every 2^n-th node.
_WITNESSES_MAX: Final = 256
#: The number of nearest witnesses that `near` returns: a wider search starts from them.
_NEAR: Final = 4
#: Queries that are compared with the witnesses at a time; from 20 on, faiss multiplies matrices.
_COMPARED_AT_ONCE: Final = 16
#: The relative difference between distances of the same vectors from two kernels.
_MARGIN: Final = 1e-5

#: The hit whose distance indicates a hard query.
REFERENCE_HIT: Final = 10
#: Stored vectors with a known distance to their tenth neighbour: the maximum, the minimum, and one of how many new
#: nodes is measured.
_MEASURED_MAX, _MEASURED_MIN, _MEASURED_EVERY = 256, 64, 64
#: The share of stored vectors whose tenth neighbour is nearer than that of a hard query.
_TYPICAL: Final = 0.95

#: The hit whose squared distance is compared with that of the tenth: if the ratio is below a minimum, there is no
#: contrast. A higher minimum doubts more searches: of queries like 20,000 stored texts 3 % at 1.06, and 12 % at 1.08,
#: which is used where a check is cheap. This also detects queries between two clusters.
CONTRAST_HIT: Final = 40
_CONTRAST_MIN, _CONTRAST_MIN_CHEAP = 1.06, 1.08


class NearestNodes(NamedTuple):
    """The nodes nearest to some queries, nearest first (-1: none), and faiss's distances; shape (n, width)."""

    nodes: Labels
    distances: Floats


class HardQueryDetector:
    """The witnesses and reference distances of a graph."""

    def __init__(self, dimension: int, metric: str) -> None:
        self._dimension = dimension
        self._dot = metric == "dot"
        self._witnesses: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._vectors: Floats = np.empty((0, dimension), np.float32)  # of the witnesses
        self._stride = 1
        self._measured: list[float] = []  # squared distances of stored vectors to their tenth neighbours
        self._far = math.inf  # the squared distance from which a tenth hit is far

    @property
    def memory_bytes(self) -> int:
        return self._witnesses.nbytes + self._vectors.nbytes

    def extend(self, start: int, matrix: npt.NDArray[Any]) -> None:
        """Adds witnesses from the nodes from `start` on, and drops every other one when there are too many.

        `matrix`, shape (nodes, dimension), has the vectors of all nodes, in the space in which queries are compared.
        """
        while -(-len(matrix) // self._stride) > _WITNESSES_MAX:
            self._stride *= 2
            kept = self._witnesses % self._stride == 0
            self._witnesses, self._vectors = self._witnesses[kept], self._vectors[kept]
        new = np.arange(-(-start // self._stride) * self._stride, len(matrix), self._stride, dtype=np.int32)
        if len(new):
            self._witnesses = np.concatenate((self._witnesses, new))
            self._vectors = np.concatenate((self._vectors, matrix[new].astype(np.float32)))

    @staticmethod
    def nodes_to_measure(start: int, stop: int) -> Labels:
        """The nodes to call `measured` with, of the added nodes from `start` to `stop` - 1."""
        return np.arange(-(-start // _MEASURED_EVERY) * _MEASURED_EVERY, stop, _MEASURED_EVERY)

    @staticmethod
    def first_nodes_to_measure(count: int) -> Labels:
        """The same for a new graph of `count` nodes."""
        return np.unique(np.linspace(0, count - 1, min(count, _MEASURED_MAX)).astype(np.int64))

    def measured(self, distances: Floats) -> None:
        """Takes the squared distances of stored vectors to their tenth neighbours, shape (n,)."""
        self._measured = [*self._measured, *distances.tolist()][-_MEASURED_MAX:]
        if len(self._measured) >= _MEASURED_MIN:
            self._far = float(np.quantile(self._measured, _TYPICAL))

    def near(self, points: Floats) -> NearestNodes:
        """The witnesses nearest to each point, shape (n, dimension)."""
        count = min(_NEAR, len(self._witnesses))
        distances, places = np.empty((len(points), count), np.float32), np.empty((len(points), count), np.int64)
        kernel: Any = faiss().knn_inner_product if self._dot else faiss().knn_L2sqr
        pointer = faiss().swig_ptr
        # A few at a time: for many, faiss computes L2 distances from inner products, which are too imprecise in a cone.
        for start in range(0, len(points), _COMPARED_AT_ONCE):
            piece = slice(start, start + _COMPARED_AT_ONCE)
            kernel(
                pointer(points[piece]), pointer(self._vectors), self._dimension, len(points[piece]),
                len(self._witnesses), count, pointer(distances[piece]), pointer(places[piece]),
            )  # fmt: skip
        return NearestNodes(self._witnesses[places].astype(np.int64), distances)

    def doubtful(self, found: NearestNodes, near: NearestNodes, k: int, *, first: bool, cheap: bool) -> Bools:
        """Whether each answer must be checked: a witness is nearer than the k-th or tenth hit, but was not found. After
        a `first` search, also whether the hits are far or have no contrast. `cheap`: a check costs little, so the
        criterion is stricter."""
        at = min(max(k, REFERENCE_HIT), found.nodes.shape[1]) - 1
        sign = -1 if self._dot else 1
        doubtful = np.zeros(len(found.nodes), np.bool_)
        for place, (last, nearest) in enumerate(
            zip(found.distances[:, at].tolist(), near.distances[:, 0].tolist(), strict=True)
        ):
            limit = sign * last - _MARGIN * abs(last)
            if sign * nearest < limit:
                nearer = near.nodes[place][sign * near.distances[place] < limit]
                doubtful[place] = not set(nearer.tolist()) <= set(found.nodes[place].tolist())
        if first and not self._dot and found.nodes.shape[1] >= CONTRAST_HIT:
            tenth, fortieth = found.distances[:, REFERENCE_HIT - 1], found.distances[:, CONTRAST_HIT - 1]
            contrast_min = _CONTRAST_MIN_CHEAP if cheap else _CONTRAST_MIN
            doubtful |= (tenth > self._far) | (fortieth < contrast_min * tenth)
        return doubtful
