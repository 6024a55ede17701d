"""RecallMeasurement: measures the recall of one query, by an exact search in small steps and then approximate ones.

The set of rows is fixed when a measurement begins; rows that are added later are excluded from both answers. So writes
do not disturb it. When the structure is replaced, the measurement is abandoned.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import numpy as np

from .recall_monitor import Sampled, recall_of
from .rows import Allowed, Floats, Selection
from .structure import Effort, Hits, Structure

#: Rows that one step scores, in half a millisecond with 256 dimensions.
STEP_ROWS: Final = 8_192


class RecallMeasurement:
    """The measurement of one sampled query in one structure. One thread at a time calls it."""

    def __init__(self, sampled: Sampled, structure: Structure, query: Floats, selection: Selection | None) -> None:
        """`query`, shape (d,), as the structure needs it."""
        self.sampled = sampled
        self._structure = structure
        self._query = query
        allowed = structure.rows.allowed(selection)
        self._mask = np.ones(structure.rows.count, np.bool_) if allowed.mask is None else allowed.mask.copy()
        self._k = min(sampled.k, allowed.count)
        self._at = 0
        self._best: Floats = np.empty(0, np.float32)
        self._found: list[Hits | Future[Hits]] | None = None  # of the approximate searches, one per factor

    @property
    def waits(self) -> bool:
        """Whether an asynchronous structure has not answered yet."""
        return any(isinstance(hits, Future) and not hits.done() for hits in self._found or ())

    @property
    def failed(self) -> bool:
        """Whether an asynchronous structure failed to answer."""
        futures = [hits for hits in self._found or () if isinstance(hits, Future)]
        return any(each.done() and (each.cancelled() or each.exception() is not None) for each in futures)

    def step(self, promise: float, wake: Callable[[], None]) -> dict[float, float] | None:
        """Does one step; the last one returns the recall at each factor. `wake` is called, on any thread, when an
        asynchronous structure has answered."""
        if self._at < len(self._mask):
            stop = self._at + STEP_ROWS
            rows = np.flatnonzero(self._mask[self._at : stop]) + self._at
            found = np.concatenate((self._best, self._structure.score(self._query, rows)))
            self._best = np.sort(found)[len(found) - min(self._k, len(found)) :]
            self._at = stop
            return None
        if self._found is None:
            self._found = self._search(promise)
            for hits in self._found:
                if isinstance(hits, Future):
                    hits.add_done_callback(lambda _: wake())
        if self.waits or self.failed:
            return None
        recalls = {}
        for factor, hits in zip(self.sampled.factors, self._found, strict=True):
            scores, _ = hits.result() if isinstance(hits, Future) else hits
            recalls[factor] = recall_of(scores[0], self._best, float(np.linalg.norm(self._query)))
        return recalls

    def _search(self, promise: float) -> list[Hits | Future[Hits]]:
        mask = np.zeros(self._structure.rows.count, np.bool_)
        mask[: len(self._mask)] = self._mask
        allowed = Allowed(int(np.count_nonzero(mask)), None if mask.all() else mask)
        return [
            self._structure.search(self._query[None], self._k, allowed, Effort(promise, factor))
            for factor in self.sampled.factors
        ]
