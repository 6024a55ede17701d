"""The writer's queue: writes by sender, taken in groups, one transaction for each group.

Senders share the writer fairly (fair_queue.py), and the work of one sender stays in its order. A group is bounded in
rows, so that a write that arrives while a group is being committed waits for a few hundredths of a second, and then
goes first if it is small.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from ..fair_queue import FairQueue


class Sized(Protocol):
    """A work, and about how many rows it writes."""

    rows: int


W = TypeVar("W", bound=Sized)


class WriteQueue(Generic[W]):
    """Thread-safe."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._changed = threading.Condition(threading.Lock())  # guards the two
        self._queue: FairQueue[W] = FairQueue()
        self._ended = False

    def put(self, sender: Hashable, work: W) -> None:
        with self._changed:
            self._queue.put(sender, work, max(1, work.rows))
            self._changed.notify()

    def end(self) -> None:
        """`take` returns what waits, and then None."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, patience_s: float | None = None) -> list[W] | None:
        """The next works, as many as a transaction takes; None behind the end. Blocks until there is one: with a
        `patience_s` for so long at most, and then the list is empty."""
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
        """All that waits."""
        with self._changed:
            return [self._queue.get()[1] for _ in range(len(self._queue))]
