"""Broadcast: wakes all tasks that wait for it, on one event loop.

Unlike an asyncio.Condition it needs no lock, and it can wake many tasks in groups. Unlike an asyncio.Event it never
needs to be cleared: a task that waits gives the generation that it has seen.
"""

from __future__ import annotations

import asyncio


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

    async def notify_in_groups(self, group_size: int) -> None:
        """Wakes `group_size` tasks at a time and returns when all are awake; the loop does other things in between."""
        waiting = self._take()
        for start in range(0, len(waiting), group_size):
            _wake(waiting[start : start + group_size])
            await asyncio.sleep(0)  # the tasks that were woken run first

    def _take(self) -> list[asyncio.Future[None]]:
        self.generation += 1
        waiting, self._waiting = self._waiting, []
        return waiting


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():  # the task may have been cancelled
            future.set_result(None)
