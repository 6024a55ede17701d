"""Who waits for the next commit."""

from __future__ import annotations

import asyncio


class Feed:
    """Wakes the watchers after a commit. Lives on the event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    @property
    def watchers(self) -> int:
        return len(self._waiting)

    def wake(self) -> None:
        for event in self._waiting:
            event.set()

    def join(self) -> asyncio.Event:
        """An event that is set after every commit until `leave`."""
        event = asyncio.Event()
        self._waiting.add(event)
        return event

    def leave(self, event: asyncio.Event) -> None:
        self._waiting.discard(event)
