"""A growable float32 matrix: appends rows without copying.

Growing reallocates: for blocks of this size the C library remaps pages instead of copying bytes. So no view of the
matrix may outlive the next `append`; a structure uses views only within one call.
"""

from __future__ import annotations

import numpy as np

from .. import brute_force
from ..rows import Floats, Labels

#: The minimum growth in rows: new memory is zeroed, which takes 1 ms for these with 256 components.
_STEP_ROWS = 4_096


class GrowableMatrix:
    """Shape (count, dimension). Not thread-safe."""

    def __init__(self, dimension: int) -> None:
        self._matrix: Floats = np.empty((0, dimension), np.float32)
        self._count = 0

    @property
    def rows(self) -> Floats:
        """A view, valid until the next `append`."""
        return self._matrix[: self._count]

    @property
    def nbytes(self) -> int:
        return self._matrix.nbytes

    def append(self, vectors: Floats) -> None:
        """Adds rows, shape (n, dimension)."""
        total = self._count + len(vectors)
        if total > len(self._matrix):
            rows = max(total, len(self._matrix) + _STEP_ROWS)
            self._matrix.resize((rows, self._matrix.shape[1]), refcheck=False)
        self._matrix[self._count : total] = vectors
        self._count = total

    def scores(self, query: Floats, rows: Labels, space: str) -> Floats:
        """The scores of these rows, shape (len(rows),), as brute_force.scores returns them."""
        return brute_force.scores(self.rows, query, rows, space)
