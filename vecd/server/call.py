"""What a handler sees of a request and of the connection it came on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.core import Engine
from ..engine.turns import Turn
from ..errors import Code, VecError
from ..wire.messages import Request
from .fields import Fields

if TYPE_CHECKING:
    from .listener import Listener
    from .session import Session


class Call:
    """One request, as a handler sees it."""

    def __init__(self, session: Session, request: Request, turn: Turn | None) -> None:
        self._session = session
        self._turn = turn
        self.id = request.id
        self.op = request.op
        self.fields = Fields(request.op, request.fields)
        self.engine: Engine = session.listener.engine
        self.listener: Listener = session.listener
        self.streamed = False  # the reply is a stream, and ends with `end`

    @property
    def turn(self) -> Turn:
        """This write's turn; only ops that the table calls writes have one."""
        assert self._turn is not None
        return self._turn

    async def items(self, items: list[Any], **extra: Any) -> None:
        """Sends a part of a stream, in as many messages as it takes, and waits until the peer has read enough of it.

        Raises VecError `too_large` for a single item that fits no frame.
        """
        self.streamed = True
        try:
            await self._session.send_page({"id": self.id, "items": items, **extra})
        except VecError as error:
            if error.code != Code.FRAME_TOO_LARGE:
                raise
            if len(items) == 1:
                raise VecError(Code.TOO_LARGE, f"an item of the answer cannot be sent: {error.message}") from error
            middle = len(items) // 2
            await self.items(items[:middle])
            await self.items(items[middle:], **extra)

    def cancel(self, target: int) -> bool:
        return self._session.cancel(target)

    @property
    def stopping(self) -> bool:
        return self._session.draining
