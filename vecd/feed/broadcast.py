"""Broadcast: wakes all tasks that wait for it, on one event loop.

Unlike an asyncio.Condition it needs no lock, and it can wake many tasks in groups. Unlike an asyncio.Event it never
needs to be cleared: a task that waits gives the generation that it has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Broadcast:
    """`wait` returns at the next notification."""

    def __init__(self) -> None:
        self.generation = 0  # notifications so far
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, seen: int | None = None) -> None:
        """With `seen`, a generation, it returns at once if there has been a notification since."""
        if seen is None or seen == self.generation:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def notify(self) -> None:
        """Wakes all tasks at once."""
        _wake(self._take())

    def _take(self) -> list[asyncio.Future[None]]:
        self.generation += 1
        waiting, self._waiting = self._waiting, []
        return waiting


async def notify_in_groups(broadcasts: Iterable[tuple[Broadcast, int]], count_max: int, size_max: int) -> None:
    """Notifies broadcasts, each with the size of what its tasks do when they wake. `count_max` tasks, or tasks of
    `size_max` together, are woken at a time; the loop does other things in between."""
    count = size = 0
    for broadcast, its_size in broadcasts:
        for future in broadcast._take():
            _wake([future])
            count, size = count + 1, size + its_size
            if count >= count_max or size >= size_max:
                await asyncio.sleep(0)  # the tasks that were woken run first
                count = size = 0
    if count:
        await asyncio.sleep(0)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():  # the task may have been cancelled
            future.set_result(None)
