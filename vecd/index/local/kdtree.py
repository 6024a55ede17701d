"""k-d tree: exact search that prunes half-spaces (Bentley, 1975). Useful up to about 20 dimensions; above that nothing
can be pruned, and a scan is faster.

scipy's tree, not scikit-learn's, which holds the interpreter lock during its build (0.6 s for 200,000 x 8) and would
block all threads of the daemon. It cannot grow; LiveIndex builds a new one in the background when enough rows were
added. To skip dead and filtered rows, a search asks for more neighbours.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import brute_force
from ..kind import IndexKind, Parameter
from ..rows import Allowed, Floats, Labels, Rows
from ..structure import Effort, Spec

#: For more neighbours than this share of all rows, a scan is faster.
_ASK_SHARE_MAX = 0.02


class KdTree:
    """A tree over a float64 matrix, which scipy needs, besides the float32 vectors for scores."""

    grows = False

    def __init__(self, spec: Spec) -> None:
        self.rows = Rows()
        self._spec = spec
        self._pages: list[Floats] = []
        self._matrix: Floats = np.empty((0, spec.dimension), np.float32)
        self._tree: Any = None

    @property
    def memory_bytes(self) -> int:
        nodes = self.rows.count // self._spec.parameters["leaf_size"] * 2 * 64
        return int(3 * self._matrix.nbytes + 8 * self.rows.count + nodes + self.rows.memory_bytes)

    @property
    def worn(self) -> bool:
        return False

    def train(self, sample: Floats) -> None:
        pass

    def extend(self, labels: Labels, vectors: Floats) -> None:
        assert self._tree is None
        self._pages.append(vectors)
        self.rows.append(labels)

    def finish(self) -> None:
        from scipy.spatial import cKDTree

        self._matrix = np.concatenate(self._pages) if self._pages else self._matrix
        self._pages = []
        points = self._matrix.astype(np.float64)
        if self._spec.metric == "cosine":
            # A row of zeros has a cosine of 0 to all vectors, so its distance must be that of a right angle. An extra
            # component does this: 1 for rows of zeros, 0 for all others.
            points = np.hstack((points, ~points.any(axis=1, keepdims=True)))
        self._tree = cKDTree(points, self._spec.parameters["leaf_size"], balanced_tree=False, compact_nodes=False)

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        asked = min(k + self.rows.dead, self.rows.count)
        if allowed.mask is not None and allowed.count:
            asked = max(asked, 2 * k * self.rows.count // allowed.count)
        if effort.exact or not k or asked > _ASK_SHARE_MAX * self.rows.count:
            scores, rows = brute_force.nearest(self._matrix, queries, k, allowed, self._spec.space)
            return scores, self.rows.labels[rows]
        points = np.pad(queries, ((0, 0), (0, self._tree.m - self._spec.dimension)))
        _, near = self._tree.query(points, np.arange(1, asked + 1))  # by ranks: the shape is (n, asked)
        scores, labels = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for place, rows in enumerate(near):
            found = rows if allowed.mask is None else rows[allowed.mask[rows]]
            query = queries[place : place + 1]
            if len(found) >= k:
                scores[place], best = brute_force.best_of(self._matrix, query[0], found, k, self._spec.space)
                labels[place] = self.rows.labels[best]
            else:
                its_scores, at = brute_force.nearest(self._matrix, query, k, allowed, self._spec.space)
                scores[place], labels[place] = its_scores[0], self.rows.labels[at[0]]
        return scores, labels

    def score(self, query: Floats, rows: Labels) -> Floats:
        return brute_force.scores(self._matrix, query, rows, self._spec.space)

    def sample(self, places: Labels) -> Floats:
        return self._matrix[self.rows.alive.nonzero()[0][places]]

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        return None


KIND: Final = IndexKind(
    "a k-d tree; exact, and fast for few dimensions",
    KdTree,
    rows_min=1_024,
    exact=True,
    parameters={"leaf_size": Parameter(32, "vectors in a leaf", 1, 4_096)},
    refuses={"dot": "a tree finds near vectors, and the largest inner product need not be near"},
)
