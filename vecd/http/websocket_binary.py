"""The subprotocol `vec.msgpack`: the protocol of the Unix socket over a WebSocket, for clients on other machines.

A binary message is the payload of one frame of vec-protocol(7), without its length. Each WebSocket has a daemon
connection of its own, which gets the client's requests and answers them: so everything that the protocol promises (the
order of writes, fair shares, bounds, hello first) holds here too.

Rules:
- A request is checked against the principal before the daemon gets it, unless the principal may do everything. It is
  decoded as the daemon decodes it, so both read the same op and libraries.
- Memory is bounded by back-pressure: a message is read when the daemon has taken the last, and the daemon is read when
  the client has taken what came before.
- When the gateway stops, the daemon answers what it has been asked, and subscriptions end with `shutting_down`, as when
  the daemon stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.websockets import WebSocketDisconnect

from .. import limits
from ..client.connect import may_spawn, start
from ..client.discovery import find_daemon
from ..errors import Code, VecError
from ..wire.frames import FrameDecoder, frame_header
from ..wire.messages import decode, encode, parse_reply, parse_request
from .closing import UNSUPPORTED_DATA, close
from .op_access import check_op, may_do_everything
from .problems import problem_answer

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send
    from starlette.websockets import WebSocket

    from .gateway import Gateway

SUBPROTOCOL: Final = "vec.msgpack"

#: Bytes of the daemon's frames that wait for the client; beyond it the daemon is not read. One frame may exceed it.
_UNSENT_BYTES_MAX: Final = 256 * limits.KIB


class DaemonFrames(asyncio.Protocol):
    """A connection to the daemon that knows frames, and nothing of what is in them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._decoder = FrameDecoder()
        self._payloads: deque[bytes] = deque()
        self._payload_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.lost: VecError | None = None

    @classmethod
    async def connect(cls, gateway: Gateway) -> DaemonFrames:
        """Raises VecError if there is no daemon, and none can be started."""
        sock = await asyncio.to_thread(_find, gateway)
        sock.setblocking(False)
        _, made = await asyncio.get_running_loop().create_unix_connection(cls, sock=sock)
        return made

    async def send(self, payload: bytes) -> None:
        """Sends a frame, once the daemon has taken most of what was sent before."""
        if self._writable is not None:
            await self._writable
        if self.lost is None:
            self._transport.write(frame_header(len(payload)) + payload)

    async def receive(self) -> bytes | None:
        """Waits for the next payload; None after the last."""
        while not self._payloads:
            if self.lost is not None:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        payload = self._payloads.popleft()
        self._payload_bytes -= len(payload)
        if self._paused and self._payload_bytes <= _UNSENT_BYTES_MAX:
            self._paused = False
            if self.lost is None:
                self._transport.resume_reading()
        return payload

    def finish(self) -> None:
        """No more requests: the daemon answers those that it has, ends the subscriptions, and closes the connection."""
        if self.lost is None and self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._decoder.feed(data):
                self._payloads.append(payload)
                self._payload_bytes += len(payload)
        except VecError as error:
            self.lost = error
            self._transport.abort()
        if self._payload_bytes > _UNSENT_BYTES_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or VecError(Code.CONNECTION_LOST, "the connection to the daemon was lost")
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _find(gateway: Gateway) -> socket.socket:
    settings = gateway.settings
    return find_daemon(settings) or start(settings, gateway.pool.spawns and may_spawn(), lambda text: None)


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serves one WebSocket whose client offers the subprotocol."""
    principal = websocket.scope.get("state", {}).get("principal")
    try:
        if principal is not None and not principal.scopes:
            principal.check("read")  # nobody gets no connection to the daemon
        if gateway.stopping.is_set():
            raise VecError(Code.SHUTTING_DOWN, "the gateway is stopping", "try again later")
        daemon = await DaemonFrames.connect(gateway)
    except VecError as error:
        await websocket.send_denial_response(problem_answer(error))
        return
    try:
        await websocket.accept(SUBPROTOCOL)
        await _relay(websocket.receive, websocket.send, daemon, principal, gateway)
    finally:
        daemon.close()


async def _relay(receive: Receive, send: Send, daemon: DaemonFrames, principal: Any, gateway: Gateway) -> None:
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_requests(receive, send, daemon, principal))
        down = group.create_task(_replies(send, daemon, gateway))
        stop = group.create_task(gateway.stopping.wait())
        await asyncio.wait((up, down, stop), return_when=asyncio.FIRST_COMPLETED)
        if stop.done() and not up.done() and not down.done():
            up.cancel()
            daemon.finish()
            await asyncio.wait((down,))
        for task in (up, down, stop):
            task.cancel()


async def _requests(receive: Receive, send: Send, daemon: DaemonFrames, principal: Any) -> None:
    """Passes the client's requests to the daemon, until the client has closed the connection."""
    trusted = may_do_everything(principal)
    while True:
        message: Message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        payload = message.get("bytes")
        if payload is None:
            error = VecError(Code.PROTOCOL_ERROR, f"{SUBPROTOCOL} has binary messages only")
            await close(send, error, UNSUPPORTED_DATA)
            return
        if not trusted:
            try:
                request = parse_request(decode(payload))
            except VecError as error:
                await close(send, error)
                return
            try:
                check_op(principal, request.op, request.fields)
            except VecError as error:
                refusal = encode({"id": request.id, "error": error.to_wire()})
                await send({"type": "websocket.send", "bytes": refusal[4:]})
                continue
        await daemon.send(payload)


async def _replies(send: Send, daemon: DaemonFrames, gateway: Gateway) -> None:
    """Passes the daemon's replies to the client, until the daemon has closed the connection; then closes this one."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # Starlette's, for one that was closed meanwhile
        while (payload := await daemon.receive()) is not None:
            if gateway.stopping.is_set():
                payload = _stopping(payload)
            await send({"type": "websocket.send", "bytes": payload})
        assert daemon.lost is not None
        stopping = VecError(Code.SHUTTING_DOWN, "the gateway is stopping")
        await close(send, stopping if gateway.stopping.is_set() else daemon.lost)


def _stopping(payload: bytes) -> bytes:
    """A reply while the gateway stops: to the daemon, subscriptions end because their client has gone, but to the
    client they end because of the stop."""
    reply = parse_reply(decode(payload))
    if reply.kind != "end" or reply.body.get("reason") != "cancelled":
        return payload
    body = {**reply.body, "reason": "shutting_down"}
    return encode({**reply.extra, "id": reply.id, "end": body})[4:]
