"""Which pending job is next: by priority, then by age, among those that may run.

Rules: pure; it knows no clock, no thread, no store. What a job needs to run are *resources*: room among all jobs, among
those of its kind, among those of its kind and library, its lock. A job that finds one of them taken is parked there,
and costs nothing until there is room: so ten thousand jobs behind one lock do not slow the others.

Of the jobs parked at a resource that has room, the best is in the heap of those that are ready; whoever leaves the heap
sends in the next one. So no room is left unused, and no jobs are looked at in vain.

A job that the daemon has died of runs alone among its like: what runs beside it by chance is not to die with it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

#: What the jobs of a kind may take at once: of the kind, and of the kind in one library; None: as many as there are.
Limits = Callable[[str], tuple[int | None, int | None]]
Resource = tuple[str, ...]

_ALL: Final[Resource] = ("all",)
_SUSPECT: Final[Resource] = ("suspect",)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A pending job, as the queue sees it."""

    job_id: int
    kind: str
    library: str | None = None
    priority: int = 0  # higher is sooner
    ready_us: int = 0  # not before, by the clock whose time `take` is given; 0: at once
    lock_key: str | None = None
    waits: bool = False  # for other jobs
    suspect: bool = False  # the daemon died of it
    brief: bool = False  # it takes no longer than a commit: several are claimed together
    stored_us: int = 0  # `ready_us` as the store has it, by the wall clock

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.job_id


class Queue:
    """The pending jobs."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending: dict[int, Entry] = {}
        self._ready: list[tuple[tuple[int, int], int, Entry]] = []  # heap; the number in the middle breaks ties
        self._delayed: list[tuple[int, int, Entry]] = []  # heap by time
        self._parked: dict[Resource, list[tuple[tuple[int, int], int, Entry]]] = {}  # heaps
        self._held: Counter[Resource] = Counter()
        self._paused: set[str] = set()
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def paused(self) -> frozenset[str]:
        return frozenset(self._paused)

    def put(self, entry: Entry) -> None:
        """Adds a pending job, or what has become of one."""
        self._pending[entry.job_id] = entry
        if not entry.waits:
            self._serial += 1
            if entry.ready_us:
                heapq.heappush(self._delayed, (entry.ready_us, self._serial, entry))
            else:
                heapq.heappush(self._ready, (entry.order, self._serial, entry))

    def remove(self, job_id: int) -> None:
        """The job is not pending any more. (Its places in the heaps are passed over when they come up.)"""
        self._pending.pop(job_id, None)

    def take(self, now_us: int, brief: bool = False) -> Entry | None:
        """The next job, whose resources are held from now on; None if none may run. With `brief`, only if it is."""
        while self._delayed and self._delayed[0][0] <= now_us:
            _, serial, entry = heapq.heappop(self._delayed)
            heapq.heappush(self._ready, (entry.order, serial, entry))
        while self._ready:
            place = self._ready[0]
            entry = place[2]
            current = self._pending.get(entry.job_id) is entry
            full = next((each for each in self._needs(entry) if not self._room(each)), None) if current else None
            if current and full is None and brief and not entry.brief:
                return None
            heapq.heappop(self._ready)
            if current and full is not None:
                heapq.heappush(self._parked.setdefault(full, []), place)
            elif current:
                del self._pending[entry.job_id]
                self._held.update(self._needs(entry))
            self._send_in(self._needs(entry))
            if current and full is None:
                return entry
        return None

    def release(self, entry: Entry) -> None:
        """The job does not run any more: what it held is free."""
        for each in self._needs(entry):
            self._held[each] -= 1
            if not self._held[each]:
                del self._held[each]
        self._send_in(self._needs(entry))

    def hold(self, entry: Entry) -> None:
        """Takes a release back."""
        self._held.update(self._needs(entry))

    def pause(self, kinds: Iterable[str]) -> None:
        """No job of these kinds is taken; the kind `` is all of them."""
        self._paused.update(kinds)

    def resume(self, kinds: Iterable[str]) -> None:
        self._paused.difference_update(kinds)
        self._send_in([_ALL, *(("kind", kind) for kind in kinds)])

    def next_us(self) -> int | None:
        """When the next delayed job may run; None if there is none."""
        while self._delayed and self._pending.get(self._delayed[0][2].job_id) is not self._delayed[0][2]:
            heapq.heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def delayed(self) -> list[Entry]:
        """The pending jobs that have a due time."""
        return [entry for entry in self._pending.values() if entry.ready_us]

    def _needs(self, entry: Entry) -> list[Resource]:
        needs: list[Resource] = [_ALL, ("kind", entry.kind)]
        if entry.library is not None:
            needs.append(("library", entry.kind, entry.library))
        if entry.lock_key is not None:
            needs.append(("lock", entry.lock_key))
        if entry.suspect:
            needs.append(_SUSPECT)
        return needs

    def _room(self, resource: Resource) -> bool:
        what = resource[0]
        if what == "all":
            return "" not in self._paused
        if what == "kind":
            bound = self._limits(resource[1])[0]
            return resource[1] not in self._paused and (bound is None or self._held[resource] < bound)
        bound = self._limits(resource[1])[1] if what == "library" else 1
        return bound is None or self._held[resource] < bound

    def _send_in(self, resources: Iterable[Resource]) -> None:
        """Of the jobs parked at each of these that has room, the best one becomes ready."""
        for each in resources:
            parked = self._parked.get(each)
            if parked and self._room(each):
                heapq.heappush(self._ready, heapq.heappop(parked))
                if not parked:
                    del self._parked[each]
