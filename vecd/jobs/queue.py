"""The queue of pending jobs: selects the next job that may run, by priority, then by age.

Rules: pure; it knows no clock, no thread, no store. To run, a job needs *resources*: a slot among all jobs, among those
of its kind, among those of its kind and library, and its lock. A job that needs a resource in use is parked at it, and
costs nothing until the resource is free: ten thousand jobs that wait for one lock do not slow down the others.

When a resource is free, the best of the jobs parked at it becomes ready; when a job leaves the heap of ready ones, the
next parked one follows. So no free resource stays unused, and no job is examined needlessly. There is a heap per kind,
because a worker may take jobs of some kinds only: a job that no worker takes does not block parked jobs of other kinds.

Jobs whose last attempt was lost run one at a time: if one of them crashes the daemon, only it is counted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

#: The number of jobs of a kind that may run at once: in total, and in one library; None: no bound.
Limits = Callable[[str], tuple[int | None, int | None]]
Resource = tuple[str, ...]
#: Whether a worker takes jobs of a kind.
Wants = Callable[[str], bool]

_ALL: Final[Resource] = ("all",)
_SUSPECT: Final[Resource] = ("suspect",)


class QueuedJob(NamedTuple):
    """A job in the queue."""

    job_id: int
    kind: str
    library: str | None = None
    priority: int = 0  # higher is sooner
    ready_us: int = 0  # due time, by the clock that `take` uses; 0: due
    lock_key: str | None = None
    waits: bool = False  # for other jobs
    suspect: bool = False  # its last attempt was lost: the daemon or the worker died
    brief: bool = False  # it takes no longer than a commit: several are claimed together
    stored_us: int = 0  # `ready_us` as the store has it, by the wall clock

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.job_id


_Item = tuple[tuple[int, int], int, QueuedJob]  # the number in the middle breaks ties
_Heaps = dict[str, list[_Item]]  # by kind


class Queue:
    """The pending jobs."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending: dict[int, QueuedJob] = {}
        self._ready: _Heaps = {}
        self._delayed: list[tuple[int, int, QueuedJob]] = []  # heap by time
        self._parked: dict[Resource, _Heaps] = {}
        self._held: Counter[Resource] = Counter()
        self._paused: set[str] = set()
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    def put(self, entry: QueuedJob) -> None:
        """Adds a pending job, or replaces it by its new state."""
        self._pending[entry.job_id] = entry
        if not entry.waits:
            self._serial += 1
            if entry.ready_us:
                heapq.heappush(self._delayed, (entry.ready_us, self._serial, entry))
            else:
                _push(self._ready, (entry.order, self._serial, entry))

    def remove(self, job_id: int) -> None:
        """The job is not pending any more. (Its items in the heaps are skipped when they come up.)"""
        self._pending.pop(job_id, None)

    def take(self, now_us: int, wants: Wants | None = None, *, brief: bool = False) -> QueuedJob | None:
        """Takes the next job of the wanted kinds (None: all), and holds its resources. None if no such job may run.
        With `brief`, only if the next job is brief."""
        while self._delayed and self._delayed[0][0] <= now_us:
            _, serial, entry = heapq.heappop(self._delayed)
            _push(self._ready, (entry.order, serial, entry))
        while (kind := self._next_kind(wants)) is not None:
            item = self._ready[kind][0]
            entry = item[2]
            needs = self._needs(entry)
            current = self._pending.get(entry.job_id) is entry
            taken = next((each for each in needs if not self._free(each)), None) if current else None
            if current and taken is None and brief and not entry.brief:
                return None
            _pop(self._ready, kind)
            if current and taken is not None:
                _push(self._parked.setdefault(taken, {}), item)
            elif current:
                del self._pending[entry.job_id]
                self._hold(needs)
            if self._parked:
                self._unpark(needs)
            if current and taken is None:
                return entry
        return None

    def release(self, entry: QueuedJob) -> None:
        """Releases the resources of a job that has stopped."""
        needs = self._needs(entry)
        for each in needs:
            self._held[each] -= 1
            if not self._held[each]:
                del self._held[each]
        if self._parked:
            self._unpark(needs)

    def hold(self, entry: QueuedJob) -> None:
        """Holds the resources of a running job, even beyond their bounds."""
        self._hold(self._needs(entry))

    def pause(self, kinds: Iterable[str]) -> None:
        """Takes no jobs of these kinds; `` stands for all."""
        self._paused.update(kinds)

    def resume(self, kinds: Iterable[str]) -> None:
        self._paused.difference_update(kinds)
        self._unpark([_ALL, *(("kind", kind) for kind in kinds)])

    def next_us(self) -> int | None:
        """The due time of the next delayed job; None if there is none."""
        while self._delayed and self._pending.get(self._delayed[0][2].job_id) is not self._delayed[0][2]:
            heapq.heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def delayed(self) -> list[QueuedJob]:
        """The pending jobs that have a due time."""
        return [entry for entry in self._pending.values() if entry.ready_us]

    def _next_kind(self, wants: Wants | None) -> str | None:
        """The kind of the best ready job of the wanted kinds."""
        if len(self._ready) == 1:
            (kind,) = self._ready
            return kind if wants is None or wants(kind) else None
        kinds = [kind for kind in self._ready if wants is None or wants(kind)]
        if len(kinds) > 1:
            return min(kinds, key=lambda kind: self._ready[kind][0])
        return kinds[0] if kinds else None

    def _needs(self, entry: QueuedJob) -> list[Resource]:
        needs: list[Resource] = [_ALL, ("kind", entry.kind)]
        if entry.library is not None:
            needs.append(("library", entry.kind, entry.library))
        if entry.lock_key is not None:
            needs.append(("lock", entry.lock_key))
        if entry.suspect:
            needs.append(_SUSPECT)
        return needs

    def _hold(self, needs: list[Resource]) -> None:
        for each in needs:
            self._held[each] += 1

    def _free(self, resource: Resource) -> bool:
        what = resource[0]
        if what == "all":
            return "" not in self._paused
        if what == "kind":
            bound = self._limits(resource[1])[0]
            return resource[1] not in self._paused and (bound is None or self._held[resource] < bound)
        bound = self._limits(resource[1])[1] if what == "library" else 1
        return bound is None or self._held[resource] < bound

    def _unpark(self, resources: Iterable[Resource]) -> None:
        """Makes the best parked job of each kind ready, at each of these resources that is free."""
        for each in resources:
            parked = self._parked.get(each)
            if parked and self._free(each):
                for kind in list(parked):
                    _push(self._ready, _pop(parked, kind))
                if not parked:
                    del self._parked[each]


def _push(heaps: _Heaps, item: _Item) -> None:
    heapq.heappush(heaps.setdefault(item[2].kind, []), item)


def _pop(heaps: _Heaps, kind: str) -> _Item:
    """Pops the best item of a kind. A kind without items has no heap."""
    item = heapq.heappop(heaps[kind])
    if not heaps[kind]:
        del heaps[kind]
    return item
