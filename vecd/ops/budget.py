"""Budget: how much memory all requests of all senders together may hold.

- The backlog: requests that have no answer yet, at what they take as objects, in bytes. A transport takes no request
  while it is full, except one from a sender that has none: the limit is exceeded by that much at most.
- Unread answers, in bytes: what waits in send buffers. Answers are made only while there is room, a few at a time. When
  it is full, transports disconnect the peers that hold most and do not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import limits


class Budget:
    """A service has one. Transports append their callbacks to the lists."""

    def __init__(self) -> None:
        self.backlog_bytes = 0
        self.unread_bytes = 0
        self.on_backlog_room: list[Callable[[], None]] = []  # called when the backlog has room again
        self.on_unread_full: list[Callable[[], None]] = []  # called when too much is unread
        self._readers_keep_up = asyncio.Event()
        self._readers_keep_up.set()
        self._making = asyncio.Semaphore(limits.ANSWERS_AT_ONCE)

    @property
    def backlog_full(self) -> bool:
        return self.backlog_bytes >= limits.BACKLOG_BYTES_MAX

    def request_taken(self, size: int) -> None:
        """A request of `size` bytes waits for its answer."""
        self.backlog_bytes += size

    def request_answered(self, size: int) -> None:
        """A request of `size` bytes is answered, and its memory is free."""
        full = self.backlog_full
        self.backlog_bytes -= size
        if full and not self.backlog_full:
            for look in self.on_backlog_room:
                look()

    def unread_changed(self, change: int) -> None:
        """Send buffers have grown by `change` bytes, or shrunk."""
        self.unread_bytes += change
        if self.unread_bytes <= limits.UNREAD_BYTES_MAX:
            self._readers_keep_up.set()
        elif self._readers_keep_up.is_set():
            self._readers_keep_up.clear()
            for relieve in self.on_unread_full:
                relieve()

    async def wait_for_readers(self) -> None:
        """Waits until the unread answers are within their limit."""
        await self._readers_keep_up.wait()

    async def begin_answer(self) -> None:
        """Waits until one more answer may be made. Call `end_answer` when it has been sent or dropped."""
        await self._making.acquire()

    def end_answer(self) -> None:
        self._making.release()
