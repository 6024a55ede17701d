"""Call: one request as its handler sees it: fields, engine and jobs, the sender, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from ..errors import Code, VecError
from ..feed.watch import Watch
from ..wire.messages import Request
from ..write_order import WriteSlot
from .fields import Fields
from .reply import Reply
from .sender import Sender
from .service import Service


class Call:
    """One request, as a handler sees it."""

    def __init__(
        self, service: Service, sender: Sender, request: Request, reply: Reply, slot: WriteSlot | None
    ) -> None:
        self.service = service
        self.engine = service.engine
        self.jobs = service.jobs
        self.scheduler = service.scheduler
        self.id = request.id
        self.op = request.op
        self.fields = Fields(request.op, request.fields)
        self.streamed = False  # the answer is a stream, and ends with `end`
        self._sender = sender
        self._reply = reply
        self._slot = slot
        self._room: bool | None = None  # the room it holds: None: none; True: its sender's; False: the budget's as well

    # --- the sender -------------------------------------------------------------------------------------------------

    @property
    def slot(self) -> WriteSlot:
        """This write's place in the order of its sender's writes; only ops that the table calls writes have one."""
        assert self._slot is not None
        return self._slot

    @property
    def peer(self) -> str:
        """A readable name of the sender."""
        return self._sender.name

    @property
    def stopping(self) -> bool:
        """Whether the daemon, or the sender's connection, is being drained."""
        return self._sender.stopping

    @contextmanager
    def register_watch(self, watch: Watch) -> Iterator[None]:
        """The sender's other requests find the watch by this request's number until the block ends."""
        self._sender.watches[self.id] = watch
        try:
            yield
        finally:
            del self._sender.watches[self.id]

    def find_watch(self, target: int) -> Watch | None:
        """The sender's watch with that number."""
        return self._sender.watches.get(target)

    def cancel(self, target: int) -> bool:
        """Cancels a stream of the sender. False if there is none of that number."""
        return self._sender.cancel(target)

    # --- the answer -------------------------------------------------------------------------------------------------

    async def wait_for_room(self, *, alone: bool = False) -> None:
        """Waits until an answer, or its next page, may be held in memory: the sender has read what it was sent, and few
        answers are in progress, for it and for all. Call it before reading anything large. The next send gives the room
        back. `alone`: only this sender's limit counts, for pages that are read once for many.

        Between this and the send, await only the read: other requests wait for the room.
        Raises CancelledError if the sender is gone.
        """
        if self._room is not None:
            return
        sender, reply, budget = self._sender, self._reply, self.service.budget
        await sender.answers.acquire()
        try:
            while True:
                await reply.writable()
                if reply.unread_bytes:  # a sender that has read everything need not wait for others to read
                    await budget.wait_for_readers()
                if not alone:
                    await budget.begin_answer()
                if reply.is_writable:
                    break
                if not alone:
                    budget.end_answer()
        except BaseException:
            sender.answers.release()
            raise
        self._room = alone

    def release_room(self) -> None:
        """Gives the room back, if the call holds it."""
        if self._room is not None:
            alone, self._room = self._room, None
            self._sender.answers.release()
            if not alone:
                self.service.budget.end_answer()

    @property
    def is_writable(self) -> bool:
        """Whether the sender has read enough of what it was sent before."""
        return self._reply.is_writable

    @property
    def encode_part(self) -> Callable[[dict[str, Any]], Sized]:
        """Encodes what `part` sends. Any thread."""
        return self._reply.encode_part

    async def result(self, body: dict[str, Any]) -> bool:
        """Sends the whole answer. If a list makes it too large for one message, sends that list as a stream, removes it
        from `body` (the rest is to end the stream), and returns True.
        """
        if self._room is None:
            await self._reply.writable()
        try:
            self._reply.result(body)
        except VecError as error:
            lists = [key for key, value in body.items() if isinstance(value, list)]
            if error.code != Code.FRAME_TOO_LARGE or len(lists) != 1:
                raise
            await self.items(body.pop(lists[0]))
            return True
        return False

    async def items(self, items: list[Any], **extra: Any) -> int:
        """Sends a part of a stream, in as many messages as it takes, and waits until the sender has read enough of it.
        Returns their bytes.

        Raises VecError `too_large` for a single item that fits no message.
        """
        self.streamed = True
        self._sender.paged.add(self.id)
        try:
            size = self._reply.items(items, extra)
        except VecError as error:
            if error.code != Code.FRAME_TOO_LARGE:
                raise
            if len(items) == 1:
                raise VecError(Code.TOO_LARGE, f"an item of the answer cannot be sent: {error.message}") from error
            middle = len(items) // 2
            return await self.items(items[:middle]) + await self.items(items[middle:], **extra)
        self.release_room()
        await self._reply.writable()
        return size

    async def part(self, body: Sized) -> None:
        """Sends a part of a stream that `encode_part` made for several senders, and waits as `items` does."""
        self._reply.part(body)
        self.release_room()
        if not self._reply.is_writable:
            await self._reply.writable()


def warnings_field(warnings: list[str]) -> dict[str, Any]:
    """The field `warnings` of an answer, if there are any."""
    return {"warnings": warnings} if warnings else {}
