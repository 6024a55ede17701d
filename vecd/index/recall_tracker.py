"""RecallTracker: measures some searches of a LiveIndex for its RecallMonitor, in small steps, and applies the effort.

It joins a RecallMonitor (which queries, and what their recalls mean) with a RecallMeasurement (one query, in steps).
One thread at a time calls it; only `report` may be read from any thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import VecError
from .recall_measurement import RecallMeasurement
from .recall_monitor import RecallMonitor
from .requests import SearchOptions
from .rows import Allowed, Floats
from .source import Source
from .structure import Effort, Structure

#: The share of a LiveIndex's time that measurements get while searches come.
_MEASURE_SHARE: Final = 0.05
#: Searches for more hits are not measured: a step of a measurement takes the longer, the more are wanted.
_SAMPLED_K_MAX: Final = 1_000
#: Shares of the rows that a filter permits, from which on it is of the class `most`, or `some`.
_MOST, _SOME = 0.5, 0.05


def selectivity(allowed: Allowed | None, rows: int) -> str:
    """The class of filters that a search belongs to: each has an effort of its own."""
    if allowed is None or allowed.mask is None:
        return "all"
    return "most" if allowed.count >= _MOST * rows else "some" if allowed.count >= _SOME * rows else "few"


class RecallTracker:
    """The recall of one LiveIndex's searches."""

    def __init__(self, source: Source, wake: Callable[[], None]) -> None:
        """`wake` is called on any thread when a measurement can go on that waited for an asynchronous structure."""
        self._source = source
        self._wake = wake
        self._monitor = RecallMonitor(source.promise)
        self._measurement: RecallMeasurement | None = None
        self._next_at = 0.0  # while searches come, no step before this time

    def report(self) -> dict[str, Any] | None:
        """How the promise is kept; None while nothing has been measured."""
        return self._monitor.report()

    def effort(self, options: SearchOptions, filters: str) -> Effort:
        """The effort of a search with that class of filters."""
        recall = self._source.promise if options.recall is None else options.recall
        factor = self._monitor.factor(filters)
        exact = options.exact or recall >= 1 or (factor == math.inf and options.ef is None)
        return Effort(recall, max(1.0, factor) if factor < math.inf else 1.0, options.ef, exact)

    def note(self, queries: Floats, k: int, filters: str, options: SearchOptions) -> bool:
        """Notes approximate searches, shape (n, dimension), for k hits each; returns whether one is to be measured."""
        if not options.sampled or not 0 < k <= _SAMPLED_K_MAX or options.ef is not None or options.exact:
            return False
        noted = [self._monitor.note(query, options.k, filters, options.select) for query in queries]
        return any(noted)

    @property
    def waits(self) -> bool:
        """Whether a measurement waits for an asynchronous structure."""
        return self._measurement is not None and self._measurement.waits

    def measurable(self) -> bool:
        """Whether `step` has something to do now."""
        if self._measurement is not None:
            return not self._measurement.waits
        self._monitor.promise = self._source.promise
        return self._monitor.has_next()

    @property
    def next_in_s(self) -> float:
        """How long the next step waits while searches come."""
        return max(0.0, self._next_at - time.monotonic())

    def step(self, structure: Structure) -> None:
        """Begins a measurement, or takes one step of it."""
        self._monitor.promise = self._source.promise
        if self._measurement is None and not self._begin(structure):
            return
        assert self._measurement is not None
        started = time.monotonic()
        recalls = self._measurement.step(self._monitor.promise, self._wake)
        if self._measurement.failed:
            self._monitor.dropped(self._measurement.sampled)
            self._measurement = None
        elif recalls is not None:
            self._monitor.measured(self._measurement.sampled, recalls)
            self._measurement = None
            if (report := self._monitor.flipped()) is not None:
                self._source.recall_changed(report)
        ended = time.monotonic()
        self._next_at = ended + (ended - started) / _MEASURE_SHARE

    def _begin(self, structure: Structure) -> bool:
        while (sampled := self._monitor.next()) is not None:
            try:
                selection = None if sampled.select is None else sampled.select()
            except (VecError, KeyError):  # its filter means nothing any more, or its columns are gone
                self._monitor.dropped(sampled)
                continue
            self._measurement = RecallMeasurement(sampled, structure, sampled.query, selection)
            return True
        return False

    def structure_changed(self, *, other_index: bool) -> None:
        """The structure was replaced; `other_index`: by one of another kind or with other parameters, of which earlier
        measurements say nothing."""
        if other_index:
            self._monitor, self._measurement = RecallMonitor(self._source.promise), None
        elif self._measurement is not None:
            self._monitor.dropped(self._measurement.sampled)
            self._measurement = None
        self._monitor.changed()
