"""The writer's queue: writes by sender, taken in groups of one transaction each.

Senders share the writer fairly (fair_queue.py), and the writes of one sender keep their order. A group has a bounded
number of rows, so a write that arrives during a commit waits for a few hundredths of a second, and is then served first
if it is small.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from ..fair_queue import FairQueue


class Sized(Protocol):
    """A write with its approximate number of rows."""

    rows: int


W = TypeVar("W", bound=Sized)


class WriteQueue(Generic[W]):
    """A fair queue of writes. Thread-safe."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._changed = threading.Condition(threading.Lock())  # guards _queue and _ended
        self._queue: FairQueue[W] = FairQueue()
        self._ended = False

    def put(self, sender: Hashable, write: W) -> None:
        with self._changed:
            self._queue.put(sender, write, max(1, write.rows))
            self._changed.notify()

    def end(self) -> None:
        """Ends the queue: `take` returns the remaining writes, and then None."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, patience_s: float | None = None) -> list[W] | None:
        """The next writes, as many as fit a transaction; None at the end. Blocks until there is one; after `patience_s`
        returns an empty list."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue or self._ended, patience_s):
                return []
            if not self._queue:
                return None
            group = [self._queue.get()[1]]
            rows = max(1, group[0].rows)
            while self._queue and rows + self._queue.next_cost() <= self._rows_max:
                group.append(self._queue.get()[1])
                rows += max(1, group[-1].rows)
            return group

    def drain(self) -> list[W]:
        """Removes and returns all queued writes."""
        with self._changed:
            return [self._queue.get()[1] for _ in range(len(self._queue))]
