"""What a handler sees of a request and of the connection it came on."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..engine.engine import Engine
from ..errors import Code, VecError
from ..feed.watch import Watch
from ..jobs.jobs import Jobs
from ..jobs.scheduler import Scheduler
from ..wire.messages import Part, Request
from ..write_order import WriteSlot
from .fields import Fields

if TYPE_CHECKING:
    from ..server.listener import Listener
    from ..server.session import Session


class Call:
    """One request, as a handler sees it."""

    def __init__(self, session: Session, request: Request, slot: WriteSlot | None) -> None:
        self._session = session
        self._slot = slot
        self.id = request.id
        self.op = request.op
        self.fields = Fields(request.op, request.fields)
        self.engine: Engine = session.listener.engine
        self.jobs: Jobs = session.listener.jobs
        self.scheduler: Scheduler = session.listener.clock
        self.listener: Listener = session.listener
        self.streamed = False  # the reply is a stream, and ends with `end`
        self._room: bool | None = None  # whether it has room of its own connection `alone`; None: it has none

    @property
    def slot(self) -> WriteSlot:
        """This write's place in the order of its sender's writes; only ops that the table calls writes have one."""
        assert self._slot is not None
        return self._slot

    async def room(self, *, alone: bool = False) -> None:
        """Waits until an answer, or the next page of one, may be read and held; before every reading of what may be
        large. The next send gives the room back. `alone`: only this connection's room counts, for pages that are read
        for many at once.

        Between this and the send, wait for nothing but the reading: others wait for the room.
        """
        if self._room is None:
            await self._session.room(alone=alone)
            self._room = alone

    def release(self) -> None:
        """Gives the room back, if the call has some."""
        if self._room is not None:
            alone, self._room = self._room, None
            self._session.release_room(alone=alone)

    @property
    def holds_room(self) -> bool:
        return self._room is not None

    @property
    def is_read(self) -> bool:
        """Whether the peer has read enough of what it was sent before."""
        return self._session.is_writable

    async def items(self, items: list[Any], **extra: Any) -> int:
        """Sends a part of a stream, in as many messages as it takes, and waits until the peer has read enough of it.
        Returns their bytes.

        Raises VecError `too_large` for a single item that fits no frame.
        """
        self.streamed = True
        try:
            size = self._session.send_page({"id": self.id, "items": items, **extra})
        except VecError as error:
            if error.code != Code.FRAME_TOO_LARGE:
                raise
            if len(items) == 1:
                raise VecError(Code.TOO_LARGE, f"an item of the answer cannot be sent: {error.message}") from error
            middle = len(items) // 2
            return await self.items(items[:middle]) + await self.items(items[middle:], **extra)
        self.release()
        await self._session.writable()
        return size

    async def part(self, body: Sized) -> None:
        """Sends a part of a stream that has been encoded for all who get the same, and waits as `items` does."""
        assert isinstance(body, Part)
        self._session.send_part(self.id, body)
        self.release()
        if not self.is_read or self._session.closed:
            await self._session.writable()

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""
        return self._session.peer

    @contextmanager
    def subscribed(self, watch: Watch) -> Iterator[None]:
        """The connection knows the watch by this request's number until the block ends."""
        self._session.watches[self.id] = watch
        try:
            yield
        finally:
            del self._session.watches[self.id]

    def subscription(self, target: int) -> Watch | None:
        """The connection's watch with that number."""
        return self._session.watches.get(target)

    def cancel(self, target: int) -> bool:
        return self._session.cancel(target)

    @property
    def stopping(self) -> bool:
        return self._session.draining


def warned(warnings: list[str]) -> dict[str, Any]:
    """What an answer says about doubts: `warnings`, if there are any."""
    return {"warnings": warnings} if warnings else {}
