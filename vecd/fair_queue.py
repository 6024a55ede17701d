"""A fair queue: who waits for a thread that all share, and who is next.

Work belongs to a flow, for instance all writes of one connection into one library. Flows share the thread in equal
parts of cost, whatever each has waiting; works of one flow keep their order. A flow that has used less than its share
goes first, and a small work goes before a large one, so a one-line write does not wait for a bulk load's backlog.

This is weighted fair queueing with equal weights (Demers, Keshav, Shenker, 1989, "Analysis and Simulation of a Fair
Queueing Algorithm"): the clock is the share that each flow that waits has had so far. A flow begins at the clock, and
pays for its works. The work is served that would be done first if all flows were served at the same time. A flow that
sends without end cannot starve another, and a flow that pauses saves nothing up.

Knows nothing of threads: its owner holds a lock around every call.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Idle flows that are remembered, at least, before those that owe nothing are forgotten.
_IDLE_MIN = 256


class _Flow(Generic[T]):
    """`used` is what it has paid, on the clock; `tag` is what it will have paid when its first work is done."""

    __slots__ = ("tag", "used", "works")

    def __init__(self) -> None:
        self.works: deque[tuple[T, float]] = deque()
        self.used = 0.0
        self.tag = 0.0


class FairQueue(Generic[T]):
    """Works by flow. A cost is any measure that all works of the queue share, such as seconds or rows; above 0."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._waiting: dict[Hashable, _Flow[T]] = {}
        self._idle: dict[Hashable, _Flow[T]] = {}
        self._idle_max = _IDLE_MIN  # looked through when there are more
        self._heap: list[tuple[float, int, Hashable]] = []  # by tag; an entry with another tag than its flow's is void
        self._entries = 0  # that were ever made: of equal tags the older one goes first
        self._length = 0

    def __len__(self) -> int:
        """Works that wait."""
        return self._length

    def put(self, flow: Hashable, work: T, cost: float, *, first: bool = False) -> None:
        """Adds a work behind those of its flow, or before them."""
        found = self._waiting.get(flow)
        fresh = found is None
        if found is None:
            found = self._idle.pop(flow) if flow in self._idle else _Flow()
            self._waiting[flow] = found
            found.used = max(found.used, self._clock)
        if first:
            found.works.appendleft((work, cost))
        else:
            found.works.append((work, cost))
        if fresh or first:
            self._enter(flow, found)
        self._length += 1

    def next_cost(self) -> float:
        """The cost of the work that `get` would return. Raises IndexError if none waits."""
        return self._waiting[self._first()].works[0][1]

    def get(self) -> tuple[Hashable, T]:
        """Takes the next work, and its flow pays for it. Raises IndexError if none waits."""
        key = self._first()
        heapq.heappop(self._heap)
        flow = self._waiting[key]
        work, cost = flow.works.popleft()
        self._length -= 1
        self._clock += cost / len(self._waiting)
        flow.used = flow.tag
        if flow.works:
            self._enter(key, flow)
        else:
            del self._waiting[key]
            self._idle[key] = flow
            if len(self._idle) > self._idle_max:
                self._idle = {each: idle for each, idle in self._idle.items() if idle.used > self._clock}
                self._idle_max = max(_IDLE_MIN, 2 * len(self._idle))
        return key, work

    def correct(self, flow: Hashable, more: float) -> None:
        """The work of this flow that was taken last cost so much more than was said; less, if it is negative."""
        self._clock += more / max(1, len(self._waiting))
        if (found := self._idle.get(flow)) is not None:
            found.used += more
        elif (found := self._waiting.get(flow)) is not None:
            found.used += more
            self._enter(flow, found)

    def _enter(self, key: Hashable, flow: _Flow[T]) -> None:
        flow.tag = flow.used + flow.works[0][1]
        self._entries += 1
        heapq.heappush(self._heap, (flow.tag, self._entries, key))

    def _first(self) -> Hashable:
        """The flow that is next; its entry is the heap's first."""
        while self._heap:
            tag, _, key = self._heap[0]
            flow = self._waiting.get(key)
            if flow is not None and flow.tag == tag:
                return key
            heapq.heappop(self._heap)
        raise IndexError("the queue is empty")
