"""RecallMonitor: keeps the recall promise of a library by measuring a sample of its real queries.

A LiveIndex notes every approximate search here, and measures some of them against an exact search when it is idle. From
their recall the monitor chooses a *factor*: the effort of a search as a multiple of the structure's default. Pure
logic: no threads, no clock, no vectors except the sampled queries. One thread at a time owns it; only `report` may be
read from any thread.

The promise is met if at least 95 % of the measured queries have a recall of at least the promise, and so has their
mean. A factor that misses is doubled at once, up to FACTOR_MAX; beyond that, searches are exact (factor = infinity). A
factor is halved only after many new queries in a row kept the promise at half of it. Each time that this turns out to
be wrong, the required number doubles, so the factor does not oscillate.

Assumption: more effort never finds less. A query that kept the promise at a factor keeps it at a higher one, and only
those that missed it are measured again after a raise.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from .rows import Floats, Selection

Select = Callable[[], Selection]

#: Measured queries that a class keeps; the verdict is based on them.
MEASURED_MAX: Final = 64
#: Sampled queries of a class that wait to be measured. New ones replace old ones.
WAITING_MAX: Final = 16
#: Classes of filters; each has its own factor.
CLASSES_MAX: Final = 8
#: The largest factor of an approximate search; queries that need more are answered exactly.
FACTOR_MAX: Final = 32.0
#: Up to this factor a few queries are enough to raise it; beyond it, QUERIES_MIN are needed, so that one outlier does
#: not slow down all others.
FACTOR_OF_FEW: Final = 8.0
QUERIES_MIN: Final = 20
#: One query of this number may miss the promise.
MISSES_ONE_IN: Final = 20
#: New queries in a row that must keep the promise at half the factor before it is halved: at first, and at most.
PATIENCE: Final = 64
PATIENCE_MAX: Final = 4_096
#: The difference between two float32 computations of a score, relative to its magnitude.
ROUNDING: Final = 16 * float(np.finfo(np.float32).eps)


def recall_of(found_scores: Floats, exact_scores: Floats, magnitude: float = 0.0) -> float:
    """The fraction of the k nearest that a search found, by the scores of both answers: shapes (m,) and (k,).

    A hit counts if its score is at least the exact k-th best, within float32 rounding: vectors at equal distance are
    interchangeable. `magnitude` is the reference for rounding where scores may be small: 1 for cosine. The recall is 1
    if there is nothing to find.
    """
    if not len(exact_scores):
        return 1.0
    tolerance = ROUNDING * max(magnitude, float(np.abs(exact_scores).max()))
    hits = int(np.count_nonzero(found_scores >= float(exact_scores.min()) - tolerance))
    return min(1.0, hits / len(exact_scores))


def figures(recalls: Iterable[float]) -> dict[str, Any]:
    """`queries` (their number), and the `mean`, 5th percentile (`p5`) and `worst` of their recalls, or None.

    p5 is one of the recalls: the lowest after the worst twentieth is dropped.
    """
    ordered = sorted(recalls)
    if not ordered:
        return {"queries": 0, "mean": None, "p5": None, "worst": None}
    mean = math.fsum(ordered) / len(ordered)
    found = {"mean": mean, "p5": ordered[len(ordered) // MISSES_ONE_IN], "worst": ordered[0]}
    return {"queries": len(ordered), **{name: round(value, 4) for name, value in found.items()}}


@dataclass(slots=True, eq=False)
class Sampled:
    """A query to be measured: its recall at each of `factors`, against an exact search with the same `select`.

    `query` has the shape (d,). The factors are finite; an infinite one needs no measurement.
    """

    query: Floats
    k: int
    kind_of_filter: str
    select: Select | None
    factors: tuple[float, ...] = ()
    recalls: dict[float, float] = field(default_factory=dict)  # by factor, as measured
    stale: bool = False  # the index has changed since

    def at(self, factor: float, promise: float) -> float | None:
        """Its recall at that factor; None if unknown."""
        if factor == math.inf:
            return 1.0
        if factor in self.recalls:
            return self.recalls[factor]
        kept = [recall for other, recall in self.recalls.items() if other < factor and recall >= promise]
        return max(kept, default=None)


class _Class:
    """The queries of one class of filters, and the factor for them."""

    def __init__(self, randomly: random.Random) -> None:
        self._random = randomly
        self.factor = 1.0
        self.waiting: list[Sampled] = []
        self.measured: deque[Sampled] = deque(maxlen=MEASURED_MAX)  # oldest measurement first
        self._skip = 0
        self._streak = 0  # new queries in a row that kept the promise at half the factor
        self._patience = PATIENCE
        self._lowered = False  # whether the last change of the factor was down
        self.met: bool | None = None  # the last verdict; None before the first
        self.judged: list[float] = []  # the recalls that it is based on

    @property
    def lower(self) -> float | None:
        """The next lower factor; None if there is none."""
        if self.factor <= 1:
            return None
        return FACTOR_MAX if self.factor == math.inf else self.factor / 2

    def wants(self) -> bool:
        """Whether to sample the next query. Constant time, mostly one subtraction."""
        if self._skip:
            self._skip -= 1
            return False
        if len(self.waiting) >= WAITING_MAX:
            # Geometric with a mean of WAITING_MAX: each place is replaced about every WAITING_MAX² queries.
            self._skip = int(math.log(1 - self._random.random()) / math.log(1 - 1 / WAITING_MAX))
        return True

    def add(self, sampled: Sampled) -> None:
        if len(self.waiting) < WAITING_MAX:
            self.waiting.append(sampled)
        else:
            self.waiting[self._random.randrange(WAITING_MAX)] = sampled

    def next(self, promise: float) -> Sampled | None:
        """Removes and returns the query to measure next; None if there is none."""
        found = self.peek(promise)
        if found is None:
            return None
        if self.waiting and found is self.waiting[0]:
            self.waiting.pop(0)
        return self._to_measure(found)

    def peek(self, promise: float) -> Sampled | None:
        """The query to measure next: first those that missed the promise at a lower factor, then new ones, then those
        measured only in an older state of the index or at other factors."""
        for each in self.measured:
            if each.at(self.factor, promise) is None:
                return each
        if self.waiting:
            return self.waiting[0]
        for each in self.measured:
            if each.stale or (self.lower is not None and each.at(self.lower, promise) is None):
                return each
        return None

    @property
    def settles(self) -> bool:
        """Whether `settle` has something to do."""
        return self.factor == math.inf and self.met is False

    def _to_measure(self, sampled: Sampled) -> Sampled:
        wanted = [factor for factor in (self.factor, self.lower) if factor is not None and factor != math.inf]
        known = {} if sampled.stale else sampled.recalls
        # Known factors are not measured again.
        sampled.factors = tuple(factor for factor in wanted if factor not in known)
        return sampled

    def take(self, sampled: Sampled, recalls: Mapping[float, float], promise: float) -> None:
        """Takes the result of a measurement."""
        new = sampled.stale or not sampled.recalls
        if sampled.stale:
            sampled.recalls, sampled.stale = {}, False
        sampled.recalls |= {factor: recall for factor, recall in recalls.items() if factor != math.inf}
        if sampled in self.measured:
            self.measured.remove(sampled)
        self.measured.append(sampled)
        if self.lower is not None and (at_lower := sampled.at(self.lower, promise)) is not None:
            if at_lower < promise:
                self._streak = 0
            elif new:  # repeated measurements of a query must not lower the factor
                self._streak += 1
        self.judge(promise)

    def judge(self, promise: float) -> None:
        """Makes a verdict from all known recalls, and adjusts the factor."""
        known = self.recalls(self.factor, promise)
        if not known:
            return
        if not _keeps(known, promise):
            self.met, self.judged = False, known
            if self.factor < (FACTOR_OF_FEW if len(known) < QUERIES_MIN else math.inf):
                self._raise()
            return
        if len(known) < len(self.measured):
            return  # queries that missed at a lower factor are measured first
        self.met, self.judged = True, known
        if self.lower is None or self._streak < self._patience:
            return
        at_lower = self.recalls(self.lower, promise)
        if len(at_lower) == len(self.measured) and _keeps(at_lower, promise):
            self.factor, self._streak, self._lowered = self.lower, 0, True
            self.judged = at_lower

    def settle(self, promise: float) -> bool:
        """Makes the verdict for searches that have become exact, which needs no measurement; returns whether it did."""
        if not self.settles:
            return False
        self.judge(promise)
        return True

    def _raise(self) -> None:
        if self._lowered:  # lowering it was wrong
            self._patience = min(2 * self._patience, PATIENCE_MAX)
        self.factor = math.inf if self.factor >= FACTOR_MAX else self.factor * 2
        self._streak, self._lowered = 0, False

    def recalls(self, factor: float, promise: float) -> list[float]:
        """The known recalls of the measured queries at that factor."""
        found = [each.at(factor, promise) for each in self.measured]
        return [recall for recall in found if recall is not None]


class RecallMonitor:
    """The recall promise of one LiveIndex, and the effort that keeps it."""

    def __init__(self, promise: float, seed: int = 0) -> None:
        """`promise`: the promised recall, 0 < promise <= 1. `seed` seeds the sampling."""
        self._promise = promise
        self._random = random.Random(seed)
        self._classes: dict[str, _Class] = {}
        self._report: dict[str, Any] | None = None
        self._flipped = False
        self._has_next: bool | None = False  # None: unknown since the last change

    @property
    def promise(self) -> float:
        return self._promise

    @promise.setter
    def promise(self, promise: float) -> None:
        """Makes the verdicts for the new promise."""
        if promise != self._promise:
            self._promise, self._has_next = promise, None
            for each in self._classes.values():
                each.judge(promise)
            self._update_report()

    def note(self, query: Floats, k: int, kind_of_filter: str, select: Select | None) -> bool:
        """Notes a search: a query of shape (d,), float32, and the function that selects the rows it may find. Returns
        whether it was sampled; then the query was copied. Constant time.
        """
        of = self._classes.get(kind_of_filter)
        if of is None:
            assert len(self._classes) < CLASSES_MAX, kind_of_filter
            of = self._classes[kind_of_filter] = _Class(self._random)
        wanted = of.wants()
        if wanted:
            self._has_next = None
            of.add(Sampled(np.array(query, np.float32), k, kind_of_filter, select))
        return wanted

    def has_next(self) -> bool:
        """Whether `next` has work. Mostly constant time."""
        if self._has_next is None:
            classes = self._classes.values()
            self._has_next = any(of.settles or of.peek(self._promise) is not None for of in classes)
        return self._has_next

    def next(self) -> Sampled | None:
        """The query to measure next; None if all are measured. Measure it at its `factors` and call `measured`, or call
        `dropped`."""
        self._has_next = None
        settled = [of.settle(self._promise) for of in self._classes.values()]
        if any(settled):
            self._update_report()
        # The class with the fewest measured queries first, so that no class starves.
        for of in sorted(self._classes.values(), key=lambda each: len(each.measured)):
            if (found := of.next(self._promise)) is not None:
                return found
        return None

    def measured(self, sampled: Sampled, recall_at_factor: Mapping[float, float]) -> None:
        """Takes the recall of a query that `next` returned, at each measured factor."""
        self._has_next = None
        self._classes[sampled.kind_of_filter].take(sampled, recall_at_factor, self._promise)
        self._update_report()

    def dropped(self, sampled: Sampled) -> None:
        """Forgets a query that cannot be measured any more, as one whose filter has a field that no longer exists."""
        self._has_next = None
        of = self._classes[sampled.kind_of_filter]
        if sampled in of.measured:
            of.measured.remove(sampled)
            self._update_report()

    def changed(self) -> None:
        """The index was replaced: all queries are to be measured again. Until then their old recall counts."""
        self._has_next = None
        for of in self._classes.values():
            for each in of.measured:
                each.stale = True

    def factor(self, kind_of_filter: str) -> float:
        """The effort that keeps the promise for this class of filters: from 1 to FACTOR_MAX, or infinity for exact."""
        of = self._classes.get(kind_of_filter)
        return 1.0 if of is None else of.factor

    def report(self) -> dict[str, Any] | None:
        """The measured recall; None before the first measurement. May be called from any thread; do not modify it.

        Keys: `promise`; `met`, whether every class meets it; `queries`, `mean`, `p5` and `worst` over all measured
        queries; `effort`, the largest factor in use, or "exact"; and `classes`, the same for each class of filters.
        """
        return self._report

    def flipped(self) -> dict[str, Any] | None:
        """The report, if `met` is new or has changed since the last call; else None.

        Call it after each call of `next` and of `measured`.
        """
        flipped, self._flipped = self._flipped, False
        return self._report if flipped else None

    def _update_report(self) -> None:
        judged = {name: of for name, of in self._classes.items() if of.met is not None}
        if not judged:
            return
        met = all(of.met for of in judged.values())
        effort = _effort(max(of.factor for of in judged.values()))
        classes = {
            name: {"promise": self._promise, "met": of.met, **figures(of.judged), "effort": _effort(of.factor)}
            for name, of in judged.items()
        }
        whole = figures(recall for of in judged.values() for recall in of.judged)
        before = self._report
        self._report = {"promise": self._promise, "met": met, **whole, "effort": effort, "classes": classes}
        if before is None or before["met"] != met:
            self._flipped = True


def _keeps(recalls: list[float], promise: float) -> bool:
    ordered = sorted(recalls)
    return ordered[len(ordered) // MISSES_ONE_IN] >= promise and math.fsum(ordered) >= promise * len(ordered) - 1e-9


def _effort(factor: float) -> float | str:
    return "exact" if factor == math.inf else factor
