"""How the gateway ends a WebSocket: a close code, and a reason that begins with the code of an error.

1000  the client has closed the connection
1001  shutting_down: the gateway stops; another connection continues
1002  protocol_error: what the client sent is not the protocol
1003  protocol_error: a text message where the subprotocol has binary ones, or the reverse
1007  a text message is not UTF-8
1008  forbidden: the client may not do this at all
1009  frame_too_large: a message is over the limit
1011  internal: a bug; the gateway's log has the traceback
1013  busy, no_daemon: try again later
4000  connection_lost: the daemon has ended; unanswered requests can be sent again
4001  stalled: the daemon does not answer
4401  unauthorized: the key has expired or was revoked (access.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import Code, VecError

if TYPE_CHECKING:
    from starlette.types import Send

_CODES: Final = {
    Code.SHUTTING_DOWN: 1001,
    Code.PROTOCOL_ERROR: 1002,
    Code.FORBIDDEN: 1008,
    Code.FRAME_TOO_LARGE: 1009,
    Code.TOO_LARGE: 1009,
    Code.BUSY: 1013,
    Code.NO_DAEMON: 1013,
    Code.DAEMON_FAILED: 1013,
    Code.CONNECTION_LOST: 4000,
    Code.STALLED: 4001,
}

UNSUPPORTED_DATA: Final = 1003
_INTERNAL: Final = 1011
#: Of a close frame: 125 bytes, of which the code takes two.
_REASON_BYTES_MAX: Final = 123


async def close(send: Send, error: VecError, code: int | None = None) -> None:
    """Closes an accepted WebSocket because of an error."""
    reason = f"{error.code}: {error.message}".encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
    number = code or _CODES.get(error.code, _INTERNAL)
    await send({"type": "websocket.close", "code": number, "reason": reason})
