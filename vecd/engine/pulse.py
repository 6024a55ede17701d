"""A pulse: wakes all who wait, once. For one event loop."""

from __future__ import annotations

import asyncio


class Pulse:
    """`wait` returns at the next `beat`."""

    def __init__(self) -> None:
        self.beats = 0
        self._event = asyncio.Event()

    async def wait(self, since: int | None = None) -> None:
        """With `since`, a number of beats, it returns at once if there has been one since."""
        if since is None or since == self.beats:
            await self._event.wait()

    def beat(self) -> None:
        self.beats += 1
        self._event.set()  # those who wait are woken by this, whatever comes next
        self._event.clear()
