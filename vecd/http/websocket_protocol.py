"""WebSockets on one connection: uvicorn's protocol on websockets' sans-I/O core, with bounds for what it reads.

websockets bounds the bytes of a message; uvicorn reads the next message when the application has taken the last. Added:
- what is parsed at once: FRAMES_AT_ONCE_BYTES. A frame may be two bytes long and costs some hundred in memory;
- the fragments of a message: FRAGMENTS_MAX. Empty ones cost no bytes of the message, and there may be any number;
- the bytes of incomplete messages over all connections: BODIES_BYTES_MAX; and the time that each takes to arrive, by
  `stall_s` and FRAME_BYTES_S_MIN, without the time in which the gateway did not read;
- no reading while the client does not read: every ping is answered with a pong, and they would pile up;
- no log lines for what a client does wrong, which would fill a disk.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from .. import limits
from .connections import Config

#: Close codes of RFC 6455 and its registry.
_POLICY, _TOO_BIG, _TRY_AGAIN = 1008, 1009, 1013
#: Incomplete messages up to this size always have space.
_SMALL_BYTES = 64 * limits.KIB
#: What uvicorn logs as errors although it is the client's: text that is not UTF-8, and a handshake that is refused.
_OF_CLIENTS = ("Invalid UTF-8 sequence received", "ASGI callable returned without completing handshake")


def _is_ours(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OF_CLIENTS)


logging.getLogger("uvicorn.error").addFilter(_is_ours)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = config.connections
        self._held: deque[bytes] = deque()  # received, and not parsed yet
        self._pending_bytes = 0  # of an incomplete message
        self._waited_s = 0.0  # for the rest of it, while the connection was read
        self._counted_until = time.monotonic()  # in _waited_s
        self._fragments_bytes = 0
        self._choked = False  # the client does not read

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._shared.serve(transport, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.remove(self.transport)
        self._shared.pending_bytes -= self._pending_bytes
        self._pending_bytes = 0
        self._held.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._count_time(time.monotonic())
        self._choked = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._count_time(time.monotonic())
        self._choked = False
        self._read_on()

    # --- reading ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)  # the whole head
            if not self.handshake_initiated:  # websockets has bounds of its own for it
                self.transport.write(
                    b"HTTP/1.1 431 Headers Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                )
                self.transport.close()
            return
        size = limits.FRAMES_AT_ONCE_BYTES
        self._held.extend(data[start : start + size] for start in range(0, len(data), size))
        self._parse()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.queue.empty():
            self._parse()
        return message

    def _parse(self) -> None:
        """Parses what is held until there is a message for the application."""
        while self._held and self._wants_more and not self.transport.is_closing():
            super().data_received(self._held.popleft())
            self._count()
        if self._held:
            self._count_time(time.monotonic())
            self.read_paused = True
            self.transport.pause_reading()
        elif self._wants_more:
            self._read_on()

    @property
    def _wants_more(self) -> bool:
        """Whether the application has taken the last message; or closes, and the client's answer to that is awaited."""
        return self.close_sent or self.queue.empty()

    def _read_on(self) -> None:
        if self._choked or self._held or not self._wants_more or self.transport.is_closing():
            return
        self._count_time(time.monotonic())
        self.read_paused = False
        self.transport.resume_reading()

    def _count(self) -> None:
        pending = len(self.conn.reader.buffer) + self._fragments_bytes
        self._shared.pending_bytes += pending - self._pending_bytes
        if not pending or not self._pending_bytes:
            self._restart_time()
        self._pending_bytes = pending
        if pending > _SMALL_BYTES and self._shared.pending_bytes > limits.BODIES_BYTES_MAX:
            self._fail(_TRY_AGAIN, "too many large messages at once")

    def handle_text(self, event: Frame) -> None:
        self._begin(event)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._begin(event)
        super().handle_bytes(event)

    def _begin(self, event: Frame) -> None:
        self._fragments_bytes = 0 if event.fin else len(event.data)

    def handle_cont(self, event: Frame) -> None:
        self._fragments_bytes = 0 if event.fin else self._fragments_bytes + len(event.data)
        super().handle_cont(event)
        if len(self.frames) > limits.FRAGMENTS_MAX:
            self._fail(_TOO_BIG, f"over {limits.FRAGMENTS_MAX:,} fragments")

    def send_receive_event_to_app(self) -> None:
        self._restart_time()  # what is pending from here on belongs to the next message
        super().send_receive_event_to_app()

    # --- the clock ----------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        self._count_time(now)
        return self._waited_s > self._shared.stall_s + self._pending_bytes / limits.FRAME_BYTES_S_MIN

    def _restart_time(self) -> None:
        self._waited_s, self._counted_until = 0.0, time.monotonic()

    def _count_time(self, now: float) -> None:
        """Counts the time since the last call. Called before reading begins or ends, and once a second."""
        if self._pending_bytes and not (self.read_paused or self._choked):
            self._waited_s += now - self._counted_until
        self._counted_until = now

    def expire(self) -> None:
        self._fail(_POLICY, "the rest of a message did not arrive in time")

    def abort(self) -> None:
        self.disconnected = True
        self.writable.set()
        self.transport.abort()

    def _fail(self, code: int, reason: str) -> None:
        """Closes the connection with a close frame."""
        if self.close_sent or self.transport.is_closing():
            return
        self.frames = []
        self._held.clear()
        self.conn.fail(code, reason)
        self.handle_parser_exception()
