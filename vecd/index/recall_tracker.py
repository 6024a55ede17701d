"""RecallTracker: measures the recall of a LiveIndex's searches in small steps, and sets their effort.

It combines a RecallMonitor (sampling and verdicts) with a RecallMeasurement (one query, in steps).
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

#: The share of a LiveIndex's time for measurements while searches arrive.
_MEASURE_SHARE: Final = 0.05
#: Searches for more hits are not measured, because the time of a step grows with k.
_SAMPLED_K_MAX: Final = 1_000
#: The minimum share of rows that a filter matches in the classes `most` and `some`.
_MOST, _SOME = 0.5, 0.05


def selectivity(allowed: Allowed | None, rows: int) -> str:
    """The filter class of a search. Each class has its own effort."""
    if allowed is None or allowed.mask is None:
        return "all"
    return "most" if allowed.count >= _MOST * rows else "some" if allowed.count >= _SOME * rows else "few"


class RecallTracker:
    """The recall of one LiveIndex's searches."""

    def __init__(self, source: Source, wake: Callable[[], None]) -> None:
        """`wake` is called on any thread when an asynchronous structure has answered a measurement."""
        self._source = source
        self._wake = wake
        self._monitor = RecallMonitor(source.promise)
        self._measurement: RecallMeasurement | None = None
        self._next_at = 0.0  # while searches arrive, no step before this time

    def report(self) -> dict[str, Any] | None:
        """The measured recall; None before the first measurement."""
        return self._monitor.report()

    def effort(self, options: SearchOptions, filters: str) -> Effort:
        """The effort of a search in that filter class."""
        recall = self._source.promise if options.recall is None else options.recall
        factor = self._monitor.factor(filters)
        exact = options.exact or recall >= 1 or (factor == math.inf and options.ef is None)
        return Effort(recall, max(1.0, factor) if factor < math.inf else 1.0, options.ef, exact)

    def note(self, queries: Floats, k: int, filters: str, options: SearchOptions) -> bool:
        """Notes approximate searches, shape (n, dimension), for k hits each; returns whether one was sampled."""
        if not options.sampled or not 0 < k <= _SAMPLED_K_MAX or options.ef is not None or options.exact:
            return False
        noted = [self._monitor.note(query, options.k, filters, options.select) for query in queries]
        return any(noted)

    @property
    def waits(self) -> bool:
        """Whether a measurement waits for an asynchronous structure."""
        return self._measurement is not None and self._measurement.waits

    def measurable(self) -> bool:
        """Whether `step` has work."""
        if self._measurement is not None:
            return not self._measurement.waits
        self._monitor.promise = self._source.promise
        return self._monitor.has_next()

    @property
    def next_in_s(self) -> float:
        """How long the next step waits while searches arrive."""
        return max(0.0, self._next_at - time.monotonic())

    def step(self, structure: Structure) -> None:
        """Starts a measurement if none is running, and does one step of it."""
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
            except (VecError, KeyError):  # its filter is no longer valid, or its columns no longer exist
                self._monitor.dropped(sampled)
                continue
            self._measurement = RecallMeasurement(sampled, structure, sampled.query, selection)
            return True
        return False

    def structure_changed(self, *, other_index: bool) -> None:
        """The structure was replaced; with `other_index`, by another kind or other parameters, for which earlier
        measurements are not valid."""
        if other_index:
            self._monitor, self._measurement = RecallMonitor(self._source.promise), None
        elif self._measurement is not None:
            self._monitor.dropped(self._measurement.sampled)
            self._measurement = None
        self._monitor.changed()
