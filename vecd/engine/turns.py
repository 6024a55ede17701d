"""One sender's writes take effect in the order they were sent, however long each takes to prepare.

A sender has one Turns; each of its writes takes a Turn when it arrives, prepares whenever it likes, and submits to the
store inside `async with turn`. A turn that is given up passes on only when all before it have passed.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Turns:
    """The queue of one sender's writes."""

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None
        self._last_library: asyncio.Future[None] | None = None

    def take(self, *, makes_libraries: bool = False) -> Turn:
        """The next turn. Whoever takes one must `release` it, whatever happens, when the write is done or given up.

        Writes that make or delete libraries say so: those behind them are prepared by what they leave.
        """
        turn = Turn(self, self._last, self._last_library)
        self._last = turn.passed
        if makes_libraries:
            self._last_library = turn.finished
        return turn


class Turn:
    """`async with turn:` waits for all earlier turns of the sender to have passed, and passes at its end."""

    def __init__(
        self, sender: Turns, before: asyncio.Future[None] | None, library: asyncio.Future[None] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.sender = sender  # whose turn it is: what the store's queue keeps in order
        self._before = before
        self._library = library
        self.passed: asyncio.Future[None] = loop.create_future()  # it is in the store's queue
        self.finished: asyncio.Future[None] = loop.create_future()  # it is done

    async def libraries_settled(self) -> None:
        """Until no earlier write of the sender is making or deleting a library."""
        if self._library is not None:
            await asyncio.shield(self._library)
            self._library = None

    async def wait(self) -> None:
        """Until all earlier turns of the sender have passed: their writes are in the store's queue."""
        if self._before is not None:
            await asyncio.shield(self._before)

    async def __aenter__(self) -> None:
        await self.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._pass()

    def release(self) -> None:
        """The write is done or given up. Doing it again does nothing."""
        if not self.finished.done():
            self.finished.set_result(None)
        self._pass()

    def _pass(self) -> None:
        """Lets the next turn on, now or when the turns before it have passed."""
        if self.passed.done():
            return
        if self._before is not None and not self._before.done():
            self._before.add_done_callback(lambda _: self._pass())
        else:
            self._before = None  # a chain of finished turns must not be kept alive
            self.passed.set_result(None)
