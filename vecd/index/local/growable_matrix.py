"""A matrix of float32 rows that grows at its end without being copied.

Growing reallocates: for memory of this size the C library moves pages and not bytes. So no view of the matrix may
outlive the next `append`; a structure makes views only within one call.
"""

from __future__ import annotations

import numpy as np

from .. import brute_force
from ..rows import Floats, Labels

#: Rows by which it grows at least: new memory is zeroed, 1 ms for these with 256 components.
_STEP_ROWS = 4_096


class GrowableMatrix:
    """Shape (count, dimension). Not thread-safe."""

    def __init__(self, dimension: int) -> None:
        self._room: Floats = np.empty((0, dimension), np.float32)
        self._count = 0

    @property
    def rows(self) -> Floats:
        """A view, valid until the next `append`."""
        return self._room[: self._count]

    @property
    def nbytes(self) -> int:
        return self._room.nbytes

    def append(self, vectors: Floats) -> None:
        """Adds rows, shape (n, dimension)."""
        total = self._count + len(vectors)
        if total > len(self._room):
            self._room.resize((max(total, len(self._room) + _STEP_ROWS), self._room.shape[1]), refcheck=False)
        self._room[self._count : total] = vectors
        self._count = total

    def scores(self, query: Floats, rows: Labels, space: str) -> Floats:
        """The scores of these rows, shape (len(rows),), as brute_force.scores gives them."""
        return brute_force.scores(self.rows, query, rows, space)
