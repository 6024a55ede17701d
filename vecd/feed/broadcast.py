"""A pulse: wakes all who wait, once. For one event loop."""

from __future__ import annotations

import asyncio


class Broadcast:
    """`wait` returns at the next beat."""

    def __init__(self) -> None:
        self.beats = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self, since: int | None = None) -> None:
        """With `since`, a number of beats, it returns at once if there has been one since."""
        if since is None or since == self.beats:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def beat(self) -> None:
        """Wakes all at once."""
        self.beats += 1
        waiting, self._waiting = self._waiting, []
        _wake(waiting)

    async def beat_gently(self, at_once: int) -> None:
        """Wakes so many at once, and returns when all have been; the loop does other things in between."""
        self.beats += 1
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), at_once):
            _wake(waiting[start : start + at_once])
            await asyncio.sleep(0)  # behind those who were woken


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():  # whoever waited may have gone
            future.set_result(None)
