"""FairQueue: fair queueing by flow, for a shared thread.

Each item belongs to a flow, for example all writes of one connection into one library. Flows share the thread equally
by cost, however long their backlogs are; items of one flow keep their order. A flow that has used less than its share
goes first, and a small item goes before a large one, so a one-line write does not wait for the backlog of a bulk load.

This is weighted fair queueing with equal weights (Demers, Keshav, Shenker, 1989, "Analysis and Simulation of a Fair
Queueing Algorithm"): the virtual clock is the share that each waiting flow has had so far. A flow starts at the clock
and pays for its items. The next item is the one that would finish first if all flows were served at the same time. A
flow that never stops sending cannot starve another, and an idle flow saves no credit.

Not thread-safe: its owner holds a lock around every call.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

#: The minimum number of remembered idle flows, before those without debt are dropped.
_IDLE_MIN = 256


class _Flow(Generic[T]):
    """`used` is its virtual time; `tag` is its virtual finish time after its first item."""

    __slots__ = ("items", "tag", "used")

    def __init__(self) -> None:
        self.items: deque[tuple[T, float]] = deque()
        self.used = 0.0
        self.tag = 0.0


class FairQueue(Generic[T]):
    """Items by flow. Costs are positive numbers in any common unit, such as seconds or rows."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._waiting: dict[Hashable, _Flow[T]] = {}
        self._idle: dict[Hashable, _Flow[T]] = {}
        self._idle_max = _IDLE_MIN  # when there are more, those without debt are dropped
        self._heap: list[tuple[float, int, Hashable]] = []  # by tag; an entry whose tag differs from its flow's is void
        self._entries = 0  # ever made: of equal tags the older one goes first
        self._length = 0

    def __len__(self) -> int:
        """The number of waiting items."""
        return self._length

    def put(self, flow: Hashable, item: T, cost: float, *, first: bool = False) -> None:
        """Adds an item after those of its flow, or before them with `first`."""
        found = self._waiting.get(flow)
        fresh = found is None
        if found is None:
            found = self._idle.pop(flow) if flow in self._idle else _Flow()
            self._waiting[flow] = found
            found.used = max(found.used, self._clock)
        if first:
            found.items.appendleft((item, cost))
        else:
            found.items.append((item, cost))
        if fresh or first:
            self._enter(flow, found)
        self._length += 1

    def next_cost(self) -> float:
        """The cost of the item that `get` would return. Raises IndexError if the queue is empty."""
        return self._waiting[self._first()].items[0][1]

    def get(self) -> tuple[Hashable, T]:
        """Removes the next item and charges its flow; returns the flow and the item. Raises IndexError if the queue is
        empty."""
        key = self._first()
        heapq.heappop(self._heap)
        flow = self._waiting[key]
        item, cost = flow.items.popleft()
        self._length -= 1
        self._clock += cost / len(self._waiting)
        flow.used = flow.tag
        if flow.items:
            self._enter(key, flow)
        else:
            del self._waiting[key]
            self._idle[key] = flow
            if len(self._idle) > self._idle_max:
                self._idle = {each: idle for each, idle in self._idle.items() if idle.used > self._clock}
                self._idle_max = max(_IDLE_MIN, 2 * len(self._idle))
        return key, item

    def correct(self, flow: Hashable, more: float) -> None:
        """Corrects the cost of the last item taken from this flow by `more`, which may be negative."""
        self._clock += more / max(1, len(self._waiting))
        if (found := self._idle.get(flow)) is not None:
            found.used += more
        elif (found := self._waiting.get(flow)) is not None:
            found.used += more
            self._enter(flow, found)

    def _enter(self, key: Hashable, flow: _Flow[T]) -> None:
        flow.tag = flow.used + flow.items[0][1]
        self._entries += 1
        heapq.heappush(self._heap, (flow.tag, self._entries, key))

    def _first(self) -> Hashable:
        """The next flow; its entry is then the first of the heap."""
        while self._heap:
            tag, _, key = self._heap[0]
            flow = self._waiting.get(key)
            if flow is not None and flow.tag == tag:
                return key
            heapq.heappop(self._heap)
        raise IndexError("the queue is empty")
