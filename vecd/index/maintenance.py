"""Maintenance: what keeps a LiveIndex fast, behind its searches and writes.

What takes no longer than a slice is done on the strand, when nothing else waits: draining the tail into the structure,
packing the tail. Draining adapts. A row in the tail costs a search 40 ns, and moving it takes half a millisecond of a
core that searches want as well: so while they come there is a rest between the slices, the shorter the longer the tail
is. While nobody searches there is none, and the slices are longer. When the tail presses under searches that never
cease, draining has its share of the time all the same.

What takes longer is done aside, one thing at a time, and handed to the strand when it is ready:

- loading, by the first turn: from the snapshot and the store (builder.py). Writes left meanwhile are applied on top;
  those that the load saw already are passed over by their seq, or by their labels.
- building a new structure from the store, at a low priority on all cores: when the tail has outgrown the structure,
  when a fifth of the structure is dead, when somebody asks for it. Meanwhile the old one answers and the tail grows;
  labels that go are noted and masked in the new one.
- saving a snapshot. While it is written, the structure takes no rows.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import numpy as np

from .. import limits
from ..errors import Code, VecError
from . import builder, native
from .builder import Loaded
from .fulltext.live_text import LiveText
from .kinds import KINDS
from .local.flat import Flat
from .policy import Tuning
from .pools import Pools
from .recall import RecallMonitor
from .recall_measurement import RecallMeasurement
from .rows import Documents, Labels
from .source import Rebuilt, Source
from .structure import Spec, Structure

T = TypeVar("T")
log = logging.getLogger("vecd.index")

#: The share of the strand's time that measurements have while searches come.
_MEASURE_SHARE = 0.05


class Maintenance(ABC):
    """The structure, the tail, and all that is done to them but searches and writes. Its methods run on the strand,
    unless they say otherwise."""

    def __init__(self, spec: Spec, pools: Pools, source: Source, tuning: Tuning) -> None:
        self.spec = spec
        self._pools = pools
        self._source = source
        self._tuning = tuning
        # The strand's own:
        self._structure: Structure | None = None
        self._tail = Flat(spec.dimension, spec.space)
        self._seq: int | None = None  # what is here stands for the log up to here; None before it is loaded
        self._last_label = -1  # of all that ever came here
        self._removed: list[Labels] = []  # since what is going on aside began
        self._wanted: deque[tuple[Spec, Future[Rebuilt], Callable[[], bool]]] = deque()  # rebuilds that were asked for
        self._saving: list[Future[int]] = []  # snapshots that were asked for
        self._settling: list[Future[None]] = []
        self._documents = Documents(np.empty(0, np.int64))
        self._monitor = RecallMonitor(source.promise)
        self._measurement: RecallMeasurement | None = None
        self._measure_at = 0.0  # while searches come, no step of one before this time
        self.text = LiveText(source, pools.loaders, pools.builders, self._call, self._fail)
        self._count = 0  # vectors; between taking rows from the tail and adding them to the structure it is still right
        self._saved_rows = 0  # of the structure, those that its snapshot holds
        self._damage: str | None = None  # what was wrong with the snapshot that was found
        self._retry_at = 0.0  # a build or a save failed: not before this time
        self._searched_at = 0.0
        self._drained_at = 0.0
        self._resting = False  # there is something to drain, but not now
        self._alarm: threading.Timer | None = None  # wakes the strand if nobody else does after a rest
        self._alarm_at = 0.0
        self._row_s = {1: 0.0003, native.CORES: 0.0002}  # of draining one row, by the cores it is done on
        # Set by any thread:
        self._aside: str | None = None  # what is going on aside, if anything
        self._progress = 0.0
        self._closed = False  # gives up what is going on aside; a long one would hold up the daemon's stop
        self._no_more_builds = False
        self._farewell = VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later")

    @abstractmethod
    def _call(self, call: Callable[[], T]) -> Future[T]:
        """Has the strand do this, once it is loaded. Any thread."""

    @abstractmethod
    def _wake(self) -> None:
        """Has the strand take a turn. Any thread."""

    @abstractmethod
    def _fail(self, error: BaseException, waiting: Sequence[Future[Any]] = ()) -> None:
        """The vectors cannot be had, or not be trusted any more: everybody who waits is told."""

    # --- on the strand ----------------------------------------------------------------------------------------------

    def _maintain(self, idle: bool) -> bool:
        """One slice of what is due, when idle; draining has its share of the time also otherwise. True if there is
        something due."""
        step = self._due()
        if step is None:
            return False
        if (
            idle
            or (step == self._drain and self._pressing())
            or step == self._measure
            or isinstance(step, functools.partial)
        ):
            step()
        return True

    def _due(self) -> Callable[[], Any] | None:
        """The maintenance that is to be done next; None if there is none, or none that could be done now. What is only
        begun here, and done aside, is a `partial`."""
        self._resting = False
        if (self._no_more_builds and self._wanted) or (self._closed and (self._settling or self._saving)):
            return self._refuse
        if not self._closed and (step := self.text.due()) is not None:
            return step
        if self._aside is not None or self._closed:
            return None  # what is aside calls when it is done
        if self._wanted:
            return functools.partial(self._begin_wanted, *self._wanted[0])
        if self._saving:
            return functools.partial(self._begin_saving, list(self._saving))
        waiting = self._no_more_builds or time.monotonic() < self._retry_at
        if not waiting and (reason := self._build_due()) is not None:
            return functools.partial(self._begin_build, self.spec, reason, Future(), lambda: False)
        if self._structure is not None and self._structure.grows and len(self._tail):
            self._resting = self._rest_due()
            return None if self._resting else self._drain
        if self._tail.worn:
            return self._tail.maintain
        if self._measure_due():
            self._resting = self._measure_rests()
            return None if self._resting else self._measure
        if not waiting and self._save_due(
            max(self._tuning.save_rows_min, int(self._tuning.save_share * self._saved_rows))
        ):
            work = functools.partial(self._save_aside, [self._save])
            return functools.partial(self._begin, "saving", self._pools.builders, work)
        return self._settled if self._settling and not self.text.busy else None

    def _refuse(self) -> None:
        """Tells those who wait for what will not be done any more."""
        for _, future, _ in self._wanted:
            tell(future, self._farewell)
        self._wanted.clear()
        if self._closed:
            waiting: list[Future[Any]] = [*self._settling, *self._saving]
            for each in waiting:
                tell(each, self._farewell)
            self._settling.clear()
            self._saving.clear()

    def _settled(self) -> None:
        for future in self._settling:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
        self._settling.clear()

    def _recount(self) -> None:
        self._count = len(self._tail) + (len(self._structure.rows) if self._structure is not None else 0)

    def _pressing(self) -> bool:
        """Whether the tail has grown so long that searches must wait for a slice of draining now and then."""
        tail, pressing = len(self._tail), self._tuning.tail_pressing
        rested_s = time.monotonic() - self._drained_at
        return tail > pressing and rested_s > 5 * self._tuning.slice_s * pressing / tail

    def _rest_due(self) -> bool:
        """Whether searches come, and draining is to rest; then somebody wakes the strand when they have ceased."""
        tuning, now = self._tuning, time.monotonic()
        if self._settling or now - self._searched_at > tuning.pause_s or len(self._tail) >= tuning.tail_pressing:
            return False
        rest_s = tuning.slice_s * ((tuning.tail_pressing / len(self._tail)) ** 2 - 1)
        if now - self._drained_at >= rest_s:
            return False
        self._set_alarm(tuning.pause_s)
        return True

    def _set_alarm(self, wait_s: float) -> None:
        """Has the strand woken after that time, or sooner if an alarm is set already."""
        at = time.monotonic() + wait_s
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm, self._alarm_at = threading.Timer(wait_s, self._ring), at
        self._alarm.daemon = True
        try:
            self._alarm.start()
        except RuntimeError:  # the system gives no thread: the next search or write wakes the strand
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self._wake()

    def _build_due(self) -> str | None:
        if KINDS[self.spec.kind].make is None:
            return None
        rows_min = self._rows_min(self.spec)
        structure, tail = self._structure, len(self._tail)
        if structure is None:
            return None if tail < rows_min else "damaged" if self._damage else "growth"
        if structure.rows.dead > self._tuning.dead_share_max * structure.rows.count:
            return "compaction"
        if structure.worn:
            return "drift"
        grown = max(rows_min, structure.rows.count * (1 if structure.grows else self._tuning.tail_share_max))
        return "growth" if tail >= grown else None

    def _rows_min(self, spec: Spec) -> int:
        """From how many rows on a structure is made of them."""
        return max(1, KINDS[spec.kind].rows_min if self._tuning.rows_min is None else self._tuning.rows_min)

    def _drain(self) -> None:
        """Moves as many rows into the structure as fit into a slice."""
        assert self._structure is not None
        quiet = time.monotonic() - self._searched_at > self._tuning.quiet_s
        cores = native.CORES if quiet else 1
        # More comes than is drained: slices grow with the tail, or it would grow without end, and every search with it.
        stretch = max(1.0, len(self._tail) / max(1, self._tuning.tail_pressing))
        longest_s = self._tuning.quiet_slice_s
        budget_s = longest_s if quiet else min(longest_s, self._tuning.slice_s * stretch)
        labels, vectors = self._tail.take(max(1, int(budget_s / self._row_s[cores])))
        if len(labels):
            started = time.perf_counter()
            with native.threads(cores):
                self._structure.extend(labels, vectors)
            taken_s = (time.perf_counter() - started) / len(labels)
            self._row_s[cores] += 0.2 * (taken_s - self._row_s[cores])
        self._drained_at = time.monotonic()

    def _measure_due(self) -> bool:
        """Whether a query's recall is to be measured; it is chosen then."""
        structure = self._structure
        if structure is None or KINDS[self.spec.kind].exact:
            self._measurement = None
            return False
        if self._measurement is not None and self._measurement.structure is not structure:
            self._monitor.dropped(self._measurement.sampled)
            self._measurement = None
        self._monitor.promise = self._source.promise
        while self._measurement is None and (sampled := self._monitor.next()) is not None:
            try:
                selection = None if sampled.select is None else sampled.select()
            except (VecError, KeyError):  # its filter means nothing any more, or its columns are gone
                self._monitor.dropped(sampled)
                continue
            self._measurement = RecallMeasurement(sampled, structure, sampled.query, selection)
        return self._measurement is not None

    def _measure_rests(self) -> bool:
        """Whether the next step of a measurement is to wait: while searches come it has a twentieth of the time. The
        strand is woken when they have ceased."""
        now = time.monotonic()
        if now - self._searched_at > self._tuning.quiet_s or now >= self._measure_at:
            return False
        self._set_alarm(self._tuning.quiet_s)
        return True

    def _measure(self) -> None:
        assert self._measurement is not None
        started = time.monotonic()
        recalls = self._measurement.step(self._monitor.promise)
        if recalls is not None:
            self._monitor.measured(self._measurement.sampled, recalls)
            self._measurement = None
            if (report := self._monitor.flipped()) is not None:
                self._source.recall_changed(report)
        ended = time.monotonic()
        self._measure_at = ended + (ended - started) / _MEASURE_SHARE

    def _save_due(self, rows: int) -> bool:
        structure = self._structure
        return (
            structure is not None
            and self._source.path is not None
            and KINDS[self.spec.kind].restore is not None
            and structure.rows.count - self._saved_rows >= rows
        )

    # --- aside ------------------------------------------------------------------------------------------------------

    def _begin(self, what: str, pool: Executor, work: Callable[[], None]) -> None:
        """Begins something aside; `_end` must be called on the strand when it is over."""
        self._aside, self._progress = what, 0.0
        self._removed.clear()
        try:
            pool.submit(work)
        except RuntimeError:  # shut down
            self._closed = True

    def _begin_wanted(self, spec: Spec, future: Future[Rebuilt], stopped: Callable[[], bool]) -> None:
        self._wanted.popleft()
        if future.set_running_or_notify_cancel():
            self._begin_build(spec, "requested", future, stopped)

    def _begin_saving(self, futures: list[Future[int]]) -> None:
        self._saving.clear()
        work = [save for save in (self.text.saving(), self._save if self._save_due(1) else None) if save is not None]
        if work:
            self._begin("saving", self._pools.builders, functools.partial(self._save_aside, work, futures))
        else:
            _done(futures, 0)

    def _begin_build(self, spec: Spec, reason: str, future: Future[Rebuilt], stopped: Callable[[], bool]) -> None:
        work = functools.partial(self._build, spec, reason, future, stopped)
        self._begin(f"building: {reason}", self._pools.builders, work)

    def _end(self, failed: bool = False) -> None:
        self._aside = None
        self._removed.clear()
        self._retry_at = time.monotonic() + self._tuning.retry_s if failed else self._retry_at

    def _load(self) -> None:
        try:
            loaded = builder.load(self.spec, self._source, lambda: self._closed)
        except Exception as error:
            self._fail(error)
            return
        self._adopt(loaded)
        self._wake()

    def _adopt(self, loaded: Loaded) -> None:
        """The load is over. No turn touches anything before `_seq` is set, so this need not be on the strand."""
        self._structure, self._tail, self._damage = loaded.structure, loaded.tail, loaded.damage
        self._documents = Documents(loaded.firsts)
        self._recount()
        self._last_label = loaded.tail.last_label
        if loaded.structure is not None:
            self._saved_rows = loaded.structure.rows.count
            self._last_label = max(self._last_label, loaded.structure.rows.last_label)
        self._seq = loaded.seq
        self._aside = None

    def _build(self, spec: Spec, reason: str, future: Future[Rebuilt], stopped: Callable[[], bool]) -> None:
        started = time.perf_counter()
        try:
            structure, last_label = builder.build(
                spec, self._source, self._rows_min(spec), lambda: self._no_more_builds or stopped(), self._make_progress
            )
            vectors = self._call(functools.partial(self._swap, spec, structure, last_label)).result()
            native.give_memory_back()  # the old one's, and the tail's
            kept = KINDS[spec.kind].restore is not None and not isinstance(structure, Flat)
            if not kept and self._source.path is not None:
                self._source.path.unlink(missing_ok=True)  # the old one's
            report = Rebuilt(spec, vectors, time.perf_counter() - started, reason)
            self._source.rebuilt(report)
        except Exception as error:
            given_up = isinstance(error, builder.Stopped)
            if not self._no_more_builds and not given_up:
                log.error("index not built", exc_info=error, extra={"kind": spec.kind, "reason": reason})
            self._call(functools.partial(self._end, failed=not given_up))
            future.set_exception(self._farewell if given_up else builder.failed(error))
            return
        self._call(self._end).result()
        future.set_result(report)

    def _make_progress(self, share: float) -> None:
        self._progress = share

    def _swap(self, spec: Spec, structure: Structure | Flat, last_label: int) -> int:
        """The new structure takes the old one's place, and the rows of the tail that it holds. Returns its rows."""
        tail = self._tail
        tail.drop_through(last_label)
        if isinstance(structure, Flat):
            while len(tail):
                structure.add(*tail.take(limits.FLAT_BLOCK_ROWS))
            self._structure, self._tail = None, structure
            rows = len(structure)
        else:
            self._structure, self._tail = structure, tail
            rows = len(structure.rows)
        for removed in self._removed:
            self._tail.remove(removed)
            if self._structure is not None:
                self._structure.rows.remove(removed)
        self._recount()
        if spec != self.spec:
            # What was measured, or is being measured, says nothing of another index.
            self._monitor, self._measurement = RecallMonitor(self._source.promise), None
        self._monitor.changed()
        self._last_label = max(self._last_label, last_label)
        self.spec = spec
        self._saved_rows, self._damage = 0, None
        return rows

    def _save_aside(self, work: Sequence[Callable[[], int]], futures: Sequence[Future[int]] = ()) -> None:
        try:
            rows = max(save() for save in work)
        except Exception as error:
            log.error("snapshot not saved", exc_info=error)
            self._call(functools.partial(self._end, failed=True))
            for future in futures:
                tell(future, error)
        else:
            self._call(self._end)
            _done(futures, rows)

    def _save(self) -> int:
        """Keeps the structure for the next start; returns its rows. Raises OSError."""
        assert self._structure is not None
        assert self._seq is not None
        builder.save(self.spec, self._source, self._structure, self._seq)
        self._saved_rows = self._structure.rows.count
        return self._saved_rows


def _done(futures: Sequence[Future[int]], rows: int) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_result(rows)


def tell(future: Future[Any], error: BaseException) -> None:
    """Gives an error to whoever waits, if they still do."""
    if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
        future.set_exception(error)
