"""Measuring the recall of a query that came: an exact search of a structure in small steps, then approximate ones.

Which rows may be found is fixed when a measurement begins; rows that come later are left out of both answers. So writes
do not disturb it. When the structure itself is replaced, it is given up.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .recall import Sampled, recall_of
from .rows import Allowed, Floats, Selection
from .structure import Effort, Structure

#: Rows that one step scores: half a millisecond, with 256 dimensions.
STEP_ROWS: Final = 8_192


class RecallMeasurement:
    """Of one sampled query in one structure. On the strand."""

    def __init__(self, sampled: Sampled, structure: Structure, query: Floats, selection: Selection | None) -> None:
        """`query`, shape (d,), as the structure takes it."""
        self.sampled = sampled
        self.structure = structure
        self._query = query
        allowed = structure.rows.allowed(selection)
        self._mask = np.ones(structure.rows.count, np.bool_) if allowed.mask is None else allowed.mask.copy()
        self._k = min(sampled.k, allowed.count)
        self._at = 0
        self._best: Floats = np.empty(0, np.float32)

    def step(self, promise: float) -> dict[float, float] | None:
        """One step; the recall at each wanted factor when it was the last."""
        if self._at < len(self._mask):
            stop = self._at + STEP_ROWS
            rows = np.flatnonzero(self._mask[self._at : stop]) + self._at
            found = np.concatenate((self._best, self.structure.score(self._query, rows)))
            self._best = np.sort(found)[len(found) - min(self._k, len(found)) :]
            self._at = stop
            return None
        mask = np.zeros(self.structure.rows.count, np.bool_)
        mask[: len(self._mask)] = self._mask
        allowed = Allowed(int(np.count_nonzero(mask)), None if mask.all() else mask)
        recalls = {}
        for factor in self.sampled.factors:
            effort = Effort(promise, factor)
            scores, _ = self.structure.search(self._query[None], self._k, allowed, effort)
            recalls[factor] = recall_of(scores[0], self._best, float(np.linalg.norm(self._query)))
        return recalls
