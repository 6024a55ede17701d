"""RecallMonitor: chooses the search effort that keeps a library's recall promise, from measured recalls.

A LiveIndex notes every approximate search here and measures a few of them exactly when it is idle. From what they miss
the monitor chooses a *factor*: how much more effort than a structure's own default a search takes. Pure logic: no
threads, no clock, no vectors but the sampled queries. One strand owns it; only `report` may be read from any thread.

The promise is met if at least 95 % of the measured queries have a recall of at least the promise, and so has their
mean. A factor that misses is doubled at once, up to FACTOR_MAX; past it the search is exact (factor = infinity). A
factor is halved only after many new queries in a row kept the promise at half of it, and each time that turns out
to be a mistake it takes twice as many. So the factor cannot flap.

It is assumed that more effort never finds less: a query that kept the promise at a factor keeps it at a higher one,
and only those that missed it are measured again after a raise.
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

#: Measured queries that a class keeps: the promise is judged by these.
MEASURED_MAX: Final = 64
#: Sampled queries of a class that wait to be measured. New ones take the places of old ones.
WAITING_MAX: Final = 16
#: Classes of filters; each has a factor of its own.
CLASSES_MAX: Final = 8
#: The largest factor of an approximate search; what needs more is answered exactly.
FACTOR_MAX: Final = 32.0
#: Up to this factor a few queries are enough to raise it; beyond it, QUERIES_MIN are needed: one strange query must not
#: make all others slow.
FACTOR_OF_FEW: Final = 8.0
QUERIES_MIN: Final = 20
#: One query in so many may miss the promise.
MISSES_ONE_IN: Final = 20
#: New queries in a row that must keep the promise at half the factor before it is halved, at first and at most.
PATIENCE: Final = 64
PATIENCE_MAX: Final = 4_096
#: Of the scores' magnitude: what two ways of computing the same score in float32 may differ by.
ROUNDING: Final = 16 * float(np.finfo(np.float32).eps)


def recall_of(found_scores: Floats, exact_scores: Floats, magnitude: float = 0.0) -> float:
    """The share of the k nearest that a search found, by the scores of both answers: shapes (m,) and (k,).

    A hit counts if its score is at least the exact k-th best within float32 rounding: which of several equally near
    vectors are found makes no difference. `magnitude` is what scores are rounded relative to where the scores
    themselves may be small: 1 for cosine. With nothing to find the recall is 1.
    """
    if not len(exact_scores):
        return 1.0
    tolerance = ROUNDING * max(magnitude, float(np.abs(exact_scores).max()))
    hits = int(np.count_nonzero(found_scores >= float(exact_scores.min()) - tolerance))
    return min(1.0, hits / len(exact_scores))


def figures(recalls: Iterable[float]) -> dict[str, Any]:
    """`queries` (how many), and the `mean`, 5th percentile (`p5`) and `worst` of their recalls; None of no queries.

    p5 is one of the recalls: the lowest after one query in twenty has been left out.
    """
    ordered = sorted(recalls)
    if not ordered:
        return {"queries": 0, "mean": None, "p5": None, "worst": None}
    mean = math.fsum(ordered) / len(ordered)
    found = {"mean": mean, "p5": ordered[len(ordered) // MISSES_ONE_IN], "worst": ordered[0]}
    return {"queries": len(ordered), **{name: round(value, 4) for name, value in found.items()}}


@dataclass(slots=True, eq=False)
class Sampled:
    """A query that is to be measured: its recall at each of `factors`, against an exact search with the same `select`.

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
        """Its recall at that factor, as far as it is known."""
        if factor == math.inf:
            return 1.0
        if factor in self.recalls:
            return self.recalls[factor]
        kept = [recall for other, recall in self.recalls.items() if other < factor and recall >= promise]
        return max(kept, default=None)


class _Class:
    """The queries of one class of filters, and the factor that they need."""

    def __init__(self, randomly: random.Random) -> None:
        self._random = randomly
        self.factor = 1.0
        self.waiting: list[Sampled] = []
        self.measured: deque[Sampled] = deque(maxlen=MEASURED_MAX)  # the one measured longest ago first
        self._skip = 0
        self._streak = 0  # new queries in a row that kept the promise at half the factor
        self._patience = PATIENCE
        self._lowered = False  # the last change of the factor
        self.met: bool | None = None  # the last verdict; None: there is none yet
        self.judged: list[float] = []  # the recalls that it is based on

    @property
    def lower(self) -> float | None:
        """The factor below; None if there is none."""
        if self.factor <= 1:
            return None
        return FACTOR_MAX if self.factor == math.inf else self.factor / 2

    def wants(self) -> bool:
        """Whether a query that comes now is to be sampled. Constant time, and mostly one subtraction."""
        if self._skip:
            self._skip -= 1
            return False
        if len(self.waiting) >= WAITING_MAX:
            # Geometric with a mean of WAITING_MAX: each place is taken anew after some WAITING_MAX² queries.
            self._skip = int(math.log(1 - self._random.random()) / math.log(1 - 1 / WAITING_MAX))
        return True

    def add(self, sampled: Sampled) -> None:
        if len(self.waiting) < WAITING_MAX:
            self.waiting.append(sampled)
        else:
            self.waiting[self._random.randrange(WAITING_MAX)] = sampled

    def next(self, promise: float) -> Sampled | None:
        """The query to measure next; None if there is none."""
        found = self.peek(promise)
        if found is None:
            return None
        if self.waiting and found is self.waiting[0]:
            self.waiting.pop(0)
        return self._to_measure(found)

    def peek(self, promise: float) -> Sampled | None:
        """First what missed the promise at a lower factor, then what has not been measured, then what is known only of
        an older state of the index or of other factors."""
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
        # A factor that is known already is not measured again.
        sampled.factors = tuple(factor for factor in wanted if factor not in known)
        return sampled

    def take(self, sampled: Sampled, recalls: Mapping[float, float], promise: float) -> None:
        """What a measurement says."""
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
            elif new:  # the same queries must not lower the factor step by step
                self._streak += 1
        self.judge(promise)

    def judge(self, promise: float) -> None:
        """Judges by all that is known, and moves the factor."""
        known = self.recalls(self.factor, promise)
        if not known:
            return
        if not _keeps(known, promise):
            self.met, self.judged = False, known
            if self.factor < (FACTOR_OF_FEW if len(known) < QUERIES_MIN else math.inf):
                self._raise()
            return
        if len(known) < len(self.measured):
            return  # what missed at a lower factor is measured again before the verdict on this one
        self.met, self.judged = True, known
        if self.lower is None or self._streak < self._patience:
            return
        at_lower = self.recalls(self.lower, promise)
        if len(at_lower) == len(self.measured) and _keeps(at_lower, promise):
            self.factor, self._streak, self._lowered = self.lower, 0, True
            self.judged = at_lower

    def settle(self, promise: float) -> bool:
        """Whether the verdict changed because the searches have become exact: that takes no measurement."""
        if not self.settles:
            return False
        self.judge(promise)
        return True

    def _raise(self) -> None:
        if self._lowered:  # that was a mistake
            self._patience = min(2 * self._patience, PATIENCE_MAX)
        self.factor = math.inf if self.factor >= FACTOR_MAX else self.factor * 2
        self._streak, self._lowered = 0, False

    def recalls(self, factor: float, promise: float) -> list[float]:
        """Of the measured queries, what is known at that factor."""
        found = [each.at(factor, promise) for each in self.measured]
        return [recall for recall in found if recall is not None]


class RecallMonitor:
    """Measures the promise of one LiveIndex, and chooses the effort that keeps it."""

    def __init__(self, promise: float, seed: int = 0) -> None:
        """`promise`: the recall that a search is to have, 0 < promise <= 1. `seed` draws the sample."""
        self._promise = promise
        self._random = random.Random(seed)
        self._classes: dict[str, _Class] = {}
        self._report: dict[str, Any] | None = None
        self._flipped = False
        self._has_next: bool | None = False  # None: not known since something changed

    @property
    def promise(self) -> float:
        return self._promise

    @promise.setter
    def promise(self, promise: float) -> None:
        """Judges what is known by the new promise; sets nothing if it is the same."""
        if promise != self._promise:
            self._promise, self._has_next = promise, None
            for each in self._classes.values():
                each.judge(promise)
            self._retell()

    def note(self, query: Floats, k: int, kind_of_filter: str, select: Select | None) -> bool:
        """A search was made: a query of shape (d,), float32, and what says which rows it may find. Returns whether it
        was sampled, and copied. Constant time.
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
        """Whether `next` has something to do. Mostly constant time."""
        if self._has_next is None:
            classes = self._classes.values()
            self._has_next = any(of.settles or of.peek(self._promise) is not None for of in classes)
        return self._has_next

    def next(self) -> Sampled | None:
        """What to measure next; None if all is known. Measure it at its `factors` and give that to `measured`, or say
        `dropped`."""
        self._has_next = None
        settled = [of.settle(self._promise) for of in self._classes.values()]
        if any(settled):
            self._retell()
        # The class with the fewest measured queries first, so that none waits for another.
        for of in sorted(self._classes.values(), key=lambda each: len(each.measured)):
            if (found := of.next(self._promise)) is not None:
                return found
        return None

    def measured(self, sampled: Sampled, recall_at_factor: Mapping[float, float]) -> None:
        """The recall of a query that `next` gave, at each factor that was measured."""
        self._has_next = None
        self._classes[sampled.kind_of_filter].take(sampled, recall_at_factor, self._promise)
        self._retell()

    def dropped(self, sampled: Sampled) -> None:
        """The query cannot be measured any more, for example because its filter is gone: it is forgotten."""
        self._has_next = None
        of = self._classes[sampled.kind_of_filter]
        if sampled in of.measured:
            of.measured.remove(sampled)
            self._retell()

    def changed(self) -> None:
        """The index, or much of what it holds, is another one: all is to be measured again. Until a query has been, its
        old recall counts."""
        self._has_next = None
        for of in self._classes.values():
            for each in of.measured:
                each.stale = True

    def factor(self, kind_of_filter: str) -> float:
        """The effort that keeps the promise for this class of filters: from 1 to FACTOR_MAX, or infinity: exact."""
        of = self._classes.get(kind_of_filter)
        return 1.0 if of is None else of.factor

    def report(self) -> dict[str, Any] | None:
        """How the promise is kept; None before anything is measured. May be called from any thread; do not change it.

        Keys: `promise`; `met`, whether every class meets it; `queries`, `mean`, `p5` and `worst` over all measured
        queries; `effort`, the largest factor in use, or "exact"; and `classes`, the same for each class of filters.
        """
        return self._report

    def flipped(self) -> dict[str, Any] | None:
        """The report, if `met` is known for the first time or has changed since this was last called; else None.

        Ask after each call of `next` and of `measured`.
        """
        flipped, self._flipped = self._flipped, False
        return self._report if flipped else None

    def _retell(self) -> None:
        judged = {name: of for name, of in self._classes.items() if of.met is not None}
        if not judged:
            return
        met = all(of.met for of in judged.values())
        effort = _told(max(of.factor for of in judged.values()))
        classes = {
            name: {"promise": self._promise, "met": of.met, **figures(of.judged), "effort": _told(of.factor)}
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


def _told(factor: float) -> float | str:
    return "exact" if factor == math.inf else factor
