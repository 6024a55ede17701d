"""What a handler sees of a request and of the connection it came on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.core import Engine
from ..engine.turns import Turn
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
        """Sends a part of a stream, and waits until the peer has read enough of what was sent."""
        self.streamed = True
        self._session.send({"id": self.id, "items": items, **extra})
        await self._session.writable()

    def cancel(self, target: int) -> bool:
        return self._session.cancel(target)

    @property
    def stopping(self) -> bool:
        return self._session.draining
