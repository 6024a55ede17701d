"""LiveIndex: real-time behaviour, once, for every kind of structure.

A LiveIndex is a *structure*, a *tail* and a mask of dead rows. Labels only ever grow, so the structure holds every
living label up to its last, and the tail (exact, any size) every one above. A write is searchable as soon as it is
copied to the tail; draining moves rows from the tail's front into the structure, a slice at a time.

One owner at a time. A LiveIndex is an actor on a small pool of threads that all libraries share (a strand): whoever
wants something leaves it here, and one thread at a time does, in turns:

    1. all writes that wait, in the order of their commits
    2. what else was left: a structure that is ready, a question
    3. the searches that wait, together as one batch
    4. when nothing waits, one slice of maintenance

Nothing else touches the structure, so there is no lock to get wrong. Because writes come first in a turn, a search
sees every write that was left here before it: a write may be acknowledged as soon as it has been left.

What takes longer than a slice is done aside, one thing at a time, and handed to the strand when it is ready:

- loading, by the first turn: from the snapshot and the store (loading.py). Writes left meanwhile are applied on top;
  those that the load saw already are passed over by their seq, or by their labels.
- building a new structure from the store, at a low priority on all cores: when the tail has outgrown the structure,
  when a fifth of the structure is dead, when somebody asks for it. Meanwhile the old one answers and the tail grows;
  labels that go are noted and masked in the new one.
- saving a snapshot. While it is written, the structure takes no rows.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import Code, VecError
from . import kernels, loading, native
from .flat import Flat
from .kinds import KINDS
from .loading import Loaded, Rebuilt, Source
from .rows import Floats, Labels, Selection
from .structure import Spec, Structure

T = TypeVar("T")
log = logging.getLogger("vecd.index")


@dataclass(frozen=True, slots=True)
class Tuning:
    """When maintenance is due, and how much of it at once."""

    rows_min: int | None = None  # before a structure is made of a tail; None: the kind's own
    dead_share_max: float = 0.2  # of a structure's rows, before it is built anew
    tail_share_max: float = 0.1  # of its rows, before a structure that cannot grow is built anew
    slice_s: float = 0.004  # of draining while there are searches
    quiet_slice_s: float = 0.02  # the same, on all cores, while there have been none for `quiet_s`
    quiet_s: float = 1.0
    tail_pressing: int = 4_096  # rows; from there on draining has its share of the time also while searches wait
    save_share: float = 0.1  # of its rows that are new, before a structure is saved again
    save_rows_min: int = 5_000  # new rows that are worth a snapshot
    save_rows_at_stop: int = 1_000  # the same, when the daemon stops
    retry_s: float = 60.0  # after a build or a save that failed


@dataclass(slots=True)
class Write:
    """What one commit did: rows that came (shape (n, dimension)), labels that went."""

    seq: int
    labels: Labels
    vectors: Floats
    removed: list[int]


class Options(NamedTuple):
    """How a search is done."""

    k: int
    ef: int | None = None  # the effort of an approximate one
    exact: bool = False
    select: Callable[[], Selection] | None = None  # which rows it may find; called on the strand, may raise VecError


@dataclass(slots=True)
class _Search:
    query: Floats  # shape (dimension,)
    options: Options
    future: Future[tuple[Floats, Labels]]


@dataclass(frozen=True, slots=True)
class Pools:
    """The threads that all LiveIndexes share: strands, and those for what is done aside."""

    strands: Executor
    loaders: Executor
    builders: Executor

    def close(self) -> None:
        """What is aside is given up, what is on a strand is finished."""
        for pool in (self.builders, self.loaders, self.strands):
            pool.shutdown(cancel_futures=True)


def make_pools() -> Pools:
    """For the whole process, which is told how to hold memory."""
    native.keep_large_memory_apart()

    def one_core() -> None:

        native.faiss().omp_set_num_threads(1)

    def behind_the_others() -> None:
        if sys.platform == "linux":  # a thread's own priority; elsewhere it would be the whole process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

    return Pools(
        ThreadPoolExecutor(limits.INDEX_THREADS, "vecd-index", initializer=one_core),
        ThreadPoolExecutor(limits.INDEX_THREADS, "vecd-load"),
        ThreadPoolExecutor(1, "vecd-build", initializer=behind_the_others),
    )


class LiveIndex:
    """A library's vectors, searchable while they change."""

    def __init__(
        self,
        spec: Spec,
        pools: Pools,
        source: Source,
        on_failure: Callable[[LiveIndex], None],
        tuning: Tuning | None = None,
    ) -> None:
        self.spec = spec
        self._pools = pools
        self._source = source
        self._on_failure = on_failure
        self._tuning = tuning or Tuning()
        # The strand's own:
        self._structure: Structure | None = None
        self._tail = Flat(spec.dimension, spec.space)
        self._seq: int | None = None  # what is here stands for the log up to here; None before it is loaded
        self._last_label = -1  # of all that ever came here
        self._removed: list[Labels] = []  # since the build that is going on began
        self._wanted: deque[tuple[Spec, Future[Rebuilt]]] = deque()  # rebuilds that were asked for
        self._settling: list[Future[None]] = []
        self._calm = False  # nothing was due, and nothing but searches has come since
        self._saved_rows = 0  # of the structure, those that its snapshot holds
        self._damage: str | None = None
        self._retry_at = 0.0  # a build or a save failed: not before this time
        self._searched_at = 0.0
        self._drained_at = 0.0
        self._row_s = {1: 0.0003, native.CORES: 0.0002}  # of draining one row, by the cores it is done on
        # Read by any thread:
        self.failure: VecError | None = None
        self._aside: str | None = None  # what is going on aside, if anything
        self._progress = 0.0
        self._closed = False  # gives up what is going on aside; a long one would hold up the daemon's stop
        self._no_more_builds = False
        self._farewell = VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later")
        self._lock = threading.Lock()  # guards the four below
        self._writes: deque[Write] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._searches: deque[_Search] = deque()
        self._scheduled = False

    # --- any thread -------------------------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Leaves a write; every search that is left after it sees it."""
        with self._lock:
            if self.failure is None:
                self._writes.append(write)
                self._schedule()

    def search(self, query: npt.ArrayLike, options: Options) -> Future[tuple[Floats, Labels]]:
        """The best for one query of shape (dimension,): scores and labels of shape (min(k, n),), best first; n is how
        many vectors there are, or how many the selection lets through.

        The future raises VecError `index_failed` if the vectors could not be loaded, or what `select` raised.
        """
        future: Future[tuple[Floats, Labels]] = Future()
        with self._lock:
            if self.failure is not None:
                future.set_exception(self.failure)
                return future
            self._searches.append(_Search(np.asarray(query, np.float32), options, future))
            self._schedule()
        return future

    def find(self, query: npt.ArrayLike, options: Options) -> tuple[Floats, Labels]:
        """As `search`, for a thread that can wait: if the strand is idle, this thread is the strand for one turn, which
        saves handing the search to another and its answer back. Raises VecError."""
        future: Future[tuple[Floats, Labels]] = Future()
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self._searches.append(_Search(np.asarray(query, np.float32), options, future))
            mine = not self._scheduled
            self._scheduled = True
        if mine:
            self._turn(hurried=True)
        return future.result()

    def loaded(self) -> Future[None]:
        """Done when it is loaded. Raises VecError `index_failed`."""
        if not self.ready:
            return self._call(lambda: None)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def rebuild(self, spec: Spec | None = None) -> Future[Rebuilt]:
        """Builds the structure anew, of another kind or with other parameters if `spec` says so, while searches and
        writes go on. The future is done when the new one is in use and logged."""
        future: Future[Rebuilt] = Future()
        asked = self._call(lambda: self._wanted.append((spec or self.spec, future)))
        asked.add_done_callback(lambda done: future.set_exception(error) if (error := done.exception()) else None)
        return future

    def settle(self) -> Future[None]:
        """Done when no maintenance is left to do: everything is drained, built and saved."""
        future: Future[None] = Future()
        asked = self._call(lambda: self._settling.append(future))
        asked.add_done_callback(lambda done: future.set_exception(error) if (error := done.exception()) else None)
        return future

    def sample(self, count: int, seed: int = 0) -> Future[Floats]:
        """Up to `count` of the structure's vectors, shape (n, dimension): those that are found approximately."""
        return self._call(lambda: self._sample(count, seed))

    def describe(self) -> dict[str, Any]:
        """For `vec status`; the figures may be a turn old."""
        structure, tail = self._structure, self._tail
        rows = structure.rows if structure is not None else None
        maintenance = self._aside
        if maintenance is not None and maintenance.startswith("building"):
            maintenance = f"{maintenance}, {self._progress:.0%}"
        if maintenance is None and structure is not None and structure.grows and len(tail):
            maintenance = "draining"
        described = {
            "state": "failed" if self.failure else "loading" if self._seq is None else "ready",
            "vectors": len(tail) + (len(rows) if rows is not None else 0),
            "structure": len(rows) if rows is not None else 0,
            "tail": len(tail),
            "dead": tail.dead + (rows.dead if rows is not None else 0),
            "memory_bytes": tail.memory_bytes + (structure.memory_bytes if structure is not None else 0),
            "maintenance": maintenance,
        }
        if self._damage is not None:
            described["damage"] = self._damage
        return described

    @property
    def ready(self) -> bool:
        return self._seq is not None and self.failure is None

    @property
    def exact(self) -> bool:
        """Whether every search is exact just now."""
        return self._structure is None or KINDS[self.spec.kind].exact

    def stop_building(self) -> None:
        """Gives up a build that is going on, and begins no other; searches and writes go on."""
        self._no_more_builds = True
        self._call(lambda: None)  # a turn that tells those who wait for one

    def close(self, why: VecError | None = None) -> None:
        """Gives up what is going on aside; who waits for a load is told why."""
        self._farewell = why or self._farewell
        self._closed = self._no_more_builds = True

    def save(self) -> None:
        """Keeps the structure for the next start, if there is enough new in it. Only when the strands have ended."""
        if self.failure is None and self._save_due(self._tuning.save_rows_at_stop):
            self._save()

    def _call(self, call: Callable[[], T]) -> Future[T]:
        """Has the strand do this, once it is loaded."""
        future: Future[T] = Future()
        with self._lock:
            if self.failure is not None:
                future.set_exception(self.failure)
                return future
            self._calls.append((call, future))
            self._schedule()
        return future

    def _schedule(self) -> None:
        """With the lock held."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self._pools.strands.submit(self._turn)
            except RuntimeError:  # the pool is shut down: nobody waits any more
                self._closed = True

    # --- the strand -------------------------------------------------------------------------------------------------

    def _turn(self, hurried: bool = False) -> None:
        """`hurried`: somebody waits for this very thread, so that maintenance is left to the next turn."""
        if self._seq is None and self._aside is None:
            self._begin("loading", self._pools.loaders, self._load)
        with self._lock:
            if self._seq is None:  # all waits for the load, which schedules the next turn
                self._scheduled = False
                return
            writes, self._writes = self._writes, deque()
            calls, self._calls = self._calls, deque()
            waiting = [self._searches.popleft() for _ in range(min(len(self._searches), limits.SEARCHES_A_TURN))]
        searches = [search for search in waiting if search.future.set_running_or_notify_cancel()]
        try:
            for write in writes:
                self._apply(write)
            for call, future in calls:
                _settle(future, call)
            if searches:
                self._answer(searches)
            idle = not (writes or calls or searches)
            self._calm = self._calm and not writes and not calls
            more = not self._calm and (self._due() is not None if hurried else self._maintain(idle))
            self._calm = not more
        except Exception as error:
            self._fail(searches, error)
            return
        with self._lock:
            self._scheduled = False
            if self._writes or self._calls or self._searches or more:
                self._schedule()  # to the end of the pool's queue: other libraries have their turn

    def _apply(self, write: Write) -> None:
        assert self._seq is not None
        if write.seq <= self._seq:
            return
        removed = np.array(write.removed, np.int64)
        if len(removed):
            self._tail.remove(removed)
            if self._structure is not None:
                self._structure.rows.remove(removed)
            if self._aside is not None:
                self._removed.append(removed)
        # A structure is built from the store, which may be ahead of what has been left here.
        new = int(np.searchsorted(write.labels, self._last_label, "right"))
        if new < len(write.labels):
            self._tail.add(write.labels[new:], loading.prepared(self.spec, write.vectors[new:]))
            self._last_label = int(write.labels[-1])
        self._seq = write.seq

    def _answer(self, searches: list[_Search]) -> None:
        self._searched_at = time.monotonic()
        groups: dict[Options, list[_Search]] = {}
        for search in searches:
            groups.setdefault(search.options, []).append(search)
        for options, group in groups.items():
            try:
                selection = options.select() if options.select is not None else None
            except VecError as error:
                for search in group:
                    search.future.set_exception(error)
                continue
            queries = group[0].query[None] if len(group) == 1 else np.stack([search.query for search in group])
            scores, labels = self._find(queries, options, selection)
            for search, its_scores, its_labels in zip(group, scores, labels, strict=True):
                search.future.set_result((its_scores, its_labels))

    def _find(self, queries: Floats, options: Options, selection: Selection | None) -> tuple[Floats, Labels]:
        queries = np.ascontiguousarray(loading.prepared(self.spec, queries))
        found = []
        if self._structure is not None:
            allowed = self._structure.rows.allowed(selection)
            k = min(options.k, allowed.count)
            with native.threads_for(len(queries)):
                found.append(self._structure.search(queries, k, allowed, options.ef, options.exact))
        if len(self._tail) or not found:
            found.append(self._tail.search(queries, options.k, selection))
        scores, labels = found[0]
        if len(found) > 1:
            scores = np.concatenate([each[0] for each in found], axis=1)
            labels = np.concatenate([each[1] for each in found], axis=1)
        scores, labels = kernels.best(scores, labels, options.k)
        if self.spec.space == "l2":
            scores = -np.sqrt(np.maximum(-scores, 0))
        return scores, labels

    def _sample(self, count: int, seed: int) -> Floats:
        if self._structure is None or not len(self._structure.rows):
            return np.empty((0, self.spec.dimension), np.float32)
        places = np.random.default_rng(seed).integers(0, len(self._structure.rows), count)
        return self._structure.sample(np.unique(places))

    def _fail(self, searches: list[_Search], error: BaseException) -> None:
        """The vectors cannot be trusted any more: everybody who waits is told, and the next search loads anew."""
        failure = self._farewell if isinstance(error, loading.Stopped) else loading.failed(error)
        with self._lock:
            self.failure = failure
            self._closed = self._no_more_builds = True
            searches += [search for search in self._searches if search.future.set_running_or_notify_cancel()]
            waiting: list[Future[Any]] = [future for _, future in self._calls]
            self._searches.clear()
            self._writes.clear()
            self._calls.clear()
        self._on_failure(self)
        waiting += [search.future for search in searches]
        waiting += [*self._settling, *(future for _, future in self._wanted)]
        for future in waiting:
            if not future.done():
                future.set_exception(failure)

    # --- maintenance ------------------------------------------------------------------------------------------------

    def _maintain(self, idle: bool) -> bool:
        """One slice of what is due, when idle; draining has its share of the time also otherwise. True if there is
        something due."""
        step = self._due()
        if step is None:
            return False
        if idle or (step == self._drain and self._pressing()) or isinstance(step, functools.partial):
            step()
        return True

    def _due(self) -> Callable[[], Any] | None:
        """The maintenance that is to be done next; None if there is none, or none that could be done now. What is only
        begun here, and done aside, is a `partial`."""
        if self._aside is not None or self._closed:
            return None  # what is aside calls when it is done
        waiting = self._no_more_builds or time.monotonic() < self._retry_at
        if self._wanted:
            return functools.partial(self._begin_wanted, *self._wanted[0])
        if not waiting and (reason := self._build_due()) is not None:
            return functools.partial(self._begin_build, self.spec, reason, Future())
        if self._structure is not None and self._structure.grows and len(self._tail):
            return self._drain
        if self._tail.worn:
            return self._tail.maintain
        if not waiting and self._save_due(
            max(self._tuning.save_rows_min, int(self._tuning.save_share * self._saved_rows))
        ):
            return functools.partial(self._begin, "saving", self._pools.builders, self._save_aside)
        return self._settled if self._settling else None

    def _settled(self) -> None:
        for future in self._settling:
            future.set_result(None)
        self._settling.clear()

    def _pressing(self) -> bool:
        """Whether the tail has grown so long that searches must wait for a slice of draining now and then."""
        rested_s = time.monotonic() - self._drained_at
        return len(self._tail) > self._tuning.tail_pressing and rested_s > 5 * self._tuning.slice_s

    def _build_due(self) -> str | None:
        if KINDS[self.spec.kind].make is None:
            return None
        rows_min = self._rows_min(self.spec)
        structure, tail = self._structure, len(self._tail)
        if structure is None:
            return None if tail < rows_min else "damaged" if self._damage else "growth"
        if structure.rows.dead > self._tuning.dead_share_max * structure.rows.count:
            return "compaction"
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
        budget_s = self._tuning.quiet_slice_s if quiet else self._tuning.slice_s
        labels, vectors = self._tail.take(max(1, int(budget_s / self._row_s[cores])))
        if len(labels):
            started = time.perf_counter()
            with native.threads(cores):
                self._structure.extend(labels, vectors)
            taken_s = (time.perf_counter() - started) / len(labels)
            self._row_s[cores] += 0.2 * (taken_s - self._row_s[cores])
        self._drained_at = time.monotonic()

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

    def _begin_wanted(self, spec: Spec, future: Future[Rebuilt]) -> None:
        self._wanted.popleft()
        if self._no_more_builds:
            future.set_exception(self._farewell)
        elif future.set_running_or_notify_cancel():
            self._begin_build(spec, "requested", future)

    def _begin_build(self, spec: Spec, reason: str, future: Future[Rebuilt]) -> None:
        work = functools.partial(self._build, spec, reason, future)
        self._begin(f"building: {reason}", self._pools.builders, work)

    def _end(self, failed: bool = False) -> None:
        self._aside = None
        self._removed.clear()
        self._retry_at = time.monotonic() + self._tuning.retry_s if failed else self._retry_at

    def _load(self) -> None:
        try:
            loaded = loading.load(self.spec, self._source, lambda: self._closed)
        except Exception as error:
            self._fail([], error)
            return
        self._adopt(loaded)
        with self._lock:
            self._schedule()

    def _adopt(self, loaded: Loaded) -> None:
        """The load is over. No turn touches anything before `_seq` is set, so this need not be on the strand."""
        self._structure, self._tail, self._damage = loaded.structure, loaded.tail, loaded.damage
        self._last_label = loaded.tail.last_label
        if loaded.structure is not None:
            self._saved_rows = loaded.structure.rows.count
            self._last_label = max(self._last_label, loaded.structure.rows.last_label)
        self._seq = loaded.seq
        self._aside = None

    def _build(self, spec: Spec, reason: str, future: Future[Rebuilt]) -> None:
        started = time.perf_counter()
        try:
            structure, last_label = loading.build(
                spec, self._source, self._rows_min(spec), lambda: self._no_more_builds, self._make_progress
            )
            vectors = self._call(functools.partial(self._swap, spec, structure, last_label)).result()
            native.give_memory_back()  # the old one's, and the tail's
            if KINDS[spec.kind].restore is None and self._source.path is not None:
                self._source.path.unlink(missing_ok=True)  # the old one's
            report = Rebuilt(spec, vectors, time.perf_counter() - started, reason)
            self._source.rebuilt(report)
        except Exception as error:
            if not self._no_more_builds:
                log.error("index not built", exc_info=error, extra={"kind": spec.kind, "reason": reason})
            self._call(functools.partial(self._end, failed=True))
            stopped = isinstance(error, loading.Stopped)
            future.set_exception(self._farewell if stopped else loading.failed(error))
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
        self._last_label = max(self._last_label, last_label)
        self.spec = spec
        self._saved_rows, self._damage = 0, None
        return rows

    def _save_aside(self) -> None:
        try:
            self._save()
        except OSError as error:
            log.error("snapshot not saved", exc_info=error)
            self._call(functools.partial(self._end, failed=True))
        else:
            self._call(self._end)

    def _save(self) -> None:
        assert self._structure is not None
        assert self._seq is not None
        loading.save(self.spec, self._source, self._structure, self._seq)
        self._saved_rows = self._structure.rows.count


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    """Does a call for whoever waits on the future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
