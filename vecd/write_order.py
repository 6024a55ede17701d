"""WriteOrder: one sender's writes take effect in the order they were sent, however long each takes to prepare.

A sender has one WriteOrder. Each of its writes takes a WriteSlot when it arrives, is prepared concurrently with the
others, and is submitted to the store inside `async with slot`. A write that is given up frees its slot, and the next
one still waits for all before it.

Known to the engine and to jobs, which write, and to ops, which gives every sender its order: so it stands below them.
All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class WriteOrder:
    """The queue of one sender's writes."""

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None
        self._last_library: asyncio.Future[None] | None = None

    def take(self, *, makes_libraries: bool = False) -> WriteSlot:
        """The next slot. The caller must `release` it, whatever happens, when the write is done or given up.

        `makes_libraries`: the write creates or deletes a library; those behind it are prepared by what it leaves.
        """
        slot = WriteSlot(self, self._last, self._last_library)
        self._last = slot.passed
        if makes_libraries:
            self._last_library = slot.finished
        return slot


class WriteSlot:
    """One write's place in its sender's order. `async with slot:` waits until all earlier writes are in the store's
    queue; at its end, this one is."""

    def __init__(
        self, sender: WriteOrder, before: asyncio.Future[None] | None, library: asyncio.Future[None] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.sender = sender  # the store's queue keeps the writes of one sender in order
        self._before = before
        self._library = library
        self.passed: asyncio.Future[None] = loop.create_future()  # the write is in the store's queue, or given up
        self.finished: asyncio.Future[None] = loop.create_future()  # the write is done, or given up

    async def libraries_settled(self) -> None:
        """Waits until no earlier write of the sender is creating or deleting a library."""
        if self._library is not None:
            await asyncio.shield(self._library)
            self._library = None

    async def wait(self) -> None:
        """Waits until all earlier writes of the sender are in the store's queue."""
        if self._before is not None:
            await asyncio.shield(self._before)

    async def __aenter__(self) -> None:
        await self.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._pass()

    def release(self) -> None:
        """The write is done or given up. A second call does nothing."""
        if not self.finished.done():
            self.finished.set_result(None)
        self._pass()

    def _pass(self) -> None:
        """Lets the next write go, now or when those before this one have passed."""
        if self.passed.done():
            return
        if self._before is not None and not self._before.done():
            self._before.add_done_callback(lambda _: self._pass())
        else:
            self._before = None  # a chain of finished slots must not be kept alive
            self.passed.set_result(None)
