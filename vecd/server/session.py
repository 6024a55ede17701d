"""Session: one connection: frames in, replies out, back-pressure.

Rules:
- What a request means is `vecd/ops/`'s business: the session decodes it and gives it to its Runner. A reply is one or
  more frames with the request's number.
- Back-pressure: the session stops reading while the runner takes no more requests (too much is unanswered, here or in
  all) or too much of its output is unread.
- What grows with a request does not run on the event loop: large frames are decoded off it, in their order, and read
  only when there is room for them (frame_budget.py).
- Bytes that are not the protocol end the connection, with the reason as its last message (id nil).
- The listener's sweep disconnects a peer that leaves its hello, half a frame or our replies waiting for `stall_s`. A
  connection with a subscription, or with an answer that comes in pages, may be read as slowly as its reader likes:
  what waits for it is bounded, and a slow watcher harms no one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sized
from typing import Any, Protocol, cast

from .. import PROTOCOL, __version__, limits
from ..errors import Code, VecError
from ..ops.runner import Runner
from ..ops.service import Service
from ..unixsocket import peer_pid
from ..wire.frames import FrameDecoder
from ..wire.messages import EncodedPart, Request, check_protocol, encode, encode_part, frame_of
from .frame_budget import Decoded, FrameBudget, Undecoded, decode_at_once

log = logging.getLogger("vecd.session")


class Owner(Protocol):
    """What a session needs of its listener."""

    service: Service
    frames: FrameBudget

    def admit(self, session: Session) -> VecError | None:
        """Accepts a new session, or returns why it is refused."""

    def forget(self, session: Session) -> None:
        """The session is over."""


class FrameReply:
    """A Reply (ops/reply.py) as frames of one connection, with the request's number."""

    __slots__ = ("_id", "_session")

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._id = number

    def result(self, body: dict[str, Any]) -> None:
        self._session.send({"id": self._id, "result": body})

    def items(self, items: list[Any], extra: dict[str, Any]) -> int:
        return self._session.send({"id": self._id, "items": items, **extra})

    def part(self, body: Sized) -> None:
        assert isinstance(body, EncodedPart)
        self._session.send_part(self._id, body)

    def end(self, body: dict[str, Any]) -> None:
        self._session.send({"id": self._id, "end": body})

    def error(self, error: VecError) -> None:
        self._session.send({"id": self._id, "error": error.to_wire()})

    @property
    def encode_part(self) -> Callable[[dict[str, Any]], Sized]:
        return encode_part

    @property
    def is_writable(self) -> bool:
        return self._session.is_writable

    async def writable(self) -> None:
        await self._session.writable()

    @property
    def unread_bytes(self) -> int:
        return self._session.unread_bytes


class Session(asyncio.Protocol):
    """A connection's protocol object; all of it runs on the event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._frame_budget = owner.frames
        self._budget = owner.service.budget
        self._runner = Runner(owner.service, self._runner_changed)
        self._transport: asyncio.Transport
        self._decoder = FrameDecoder()
        self._frames: deque[tuple[bytes, int]] = deque()  # complete and not taken yet, and the room that each holds
        self._room_bytes = 0  # that the frame which is arriving holds of the daemon's
        self._awaits_room = False  # it will go on when there is room for it
        self._since_frame = 0.0  # when it began
        self._decoding: tuple[bytes, int] | None = None  # of _frames, the one that is being decoded off the loop
        self._ended = False  # the peer has said all it will
        self._greeted = False
        self._closed = False
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        now = time.monotonic()
        self._since_hello = now  # when the connection was made
        self._since_read = now  # when bytes last arrived
        self._since_blocked: float | None = None  # when our output was last taken, as far as known, if it is stuck
        self.unread_bytes = 0  # of our output, when it was last counted: so it stands in the daemon's budget

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(limits.SEND_BUFFER_BYTES_MAX)
        if (refusal := self._owner.admit(self)) is not None:
            self._end(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._writable.set()
        self._runner.abandon()
        self._drop_input()
        self._count_unread(0)
        self._owner.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self._since_read = time.monotonic()
        try:
            for payload in self._decoder.feed(data):
                self._frames.append((payload, self._room_bytes))
                self._room_bytes = 0
                self._since_frame = self._since_read
        except VecError as error:
            self._end(error)
            return
        announced = self._decoder.announced_bytes
        if self._decoder.pending_bytes == len(data):
            self._since_frame = self._since_read  # it has just begun
        if announced > limits.FRAME_BYTES_AT_ONCE and not self._room_bytes and not self._awaits_room:
            if self._frame_budget.admit(self, announced):
                self._room_bytes = announced
            else:
                self._awaits_room = True
        self._work()
        self._update_reading()

    def room_for_frame(self, size: int) -> None:
        """The frame that waited may arrive."""
        self._awaits_room, self._room_bytes = False, size
        self._since_frame = time.monotonic()
        self._update_reading()

    def _work(self) -> None:
        """Takes the requests that have arrived, while there is room for more."""
        while self._frames and self._takes() and not self._closed:
            payload, room = self._frames.popleft()
            at_once = limits.FRAME_BYTES_TINY if self._budget.backlog_full else limits.FRAME_BYTES_AT_ONCE
            self._decoding = payload, room
            if len(payload) > at_once:
                self._frame_budget.decode(self, payload)
            else:
                self._take_decoded(decode_at_once(payload))
        if self._ended and not self._frames and self._decoding is None and not self._runner.stopping:
            self.drain()

    def decoded(self, found: Decoded) -> None:
        """What was decoded off the event loop."""
        if not self._closed:
            self._take_decoded(found)
            self._work()
            self._update_reading()

    def _take_decoded(self, found: Decoded) -> None:
        assert self._decoding is not None
        (_, room), self._decoding = self._decoding, None
        if room:
            self._frame_budget.free(room)
        try:
            if not isinstance(found, Undecoded):
                self._take(*found)
            elif self._greeted and found.id is not None:
                self.send({"id": found.id, "error": found.error.to_wire()})
            else:
                self._end(found.error)
        except VecError as error:
            self._end(error)

    def _drop_input(self) -> None:
        """Drops frames that have arrived, and gives their room back."""
        self._frame_budget.forget(self)
        waiting = [*self._frames, *([self._decoding] if self._decoding is not None else [])]
        held = self._room_bytes + sum(room for _, room in waiting)
        self._room_bytes, self._awaits_room, self._decoding = 0, False, None
        self._frames.clear()
        self._decoder = FrameDecoder()
        if held:
            self._frame_budget.free(held)

    def eof_received(self) -> bool:
        """The peer sends no more. It may still read: what was asked is answered before the connection closes."""
        try:
            self._decoder.eof()
        except VecError as error:
            self._end(error)
            return False
        self._ended = True
        self._work()
        return True

    def pause_writing(self) -> None:
        self._since_blocked = time.monotonic()
        self._writable.clear()
        self._update_reading()

    def resume_writing(self) -> None:
        self._since_blocked = None
        self.count_unread()
        self._writable.set()
        self._update_reading()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _take(self, request: Request, size: int) -> None:
        if self._greeted:
            self._runner.run(request, FrameReply(self, request.id), size)
        else:
            self._greet(request)

    def _runner_changed(self) -> None:
        self._update_reading()
        if self._runner.stopping:
            self._close_when_done()

    def _greet(self, request: Request) -> None:
        if request.op != "hello":
            raise VecError(Code.PROTOCOL_ERROR, f"the first request must be hello, not {request.op!r:.60}")
        check_protocol(request.fields.get("protocol"), who="client")
        self._greeted = True
        pid = peer_pid(self._transport.get_extra_info("socket"))
        client = request.fields.get("client")
        self._runner.sender.name = f"{client if isinstance(client, str) else 'a client':.80}" + (
            f", process {pid}" if pid else ""
        )
        service = self._owner.service
        known = {
            "frame_bytes_max": limits.FRAME_BYTES_MAX,
            "batch_documents_max": limits.BATCH_DOCUMENTS_MAX,
            "unanswered_max": limits.UNANSWERED_MAX,
            "heartbeat_s": service.engine.settings.heartbeat_s,
            "create": service.engine.settings.create,
            "chunk_chars": service.engine.settings.chunk_chars,
        }
        answer = {"protocol": PROTOCOL, "server": f"vecd {__version__}", "log": service.engine.database.log_id}
        self.send({"id": request.id, "result": {**answer, **service.about, "limits": known}})

    # --- output and back-pressure -----------------------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> int:
        """Writes a message, unless the peer is gone; returns its bytes. Raises VecError
        `frame_too_large`."""
        if self._closed:
            return 0
        data = encode(message)
        self._transport.write(data)
        self.count_unread()
        return len(data)

    def send_part(self, number: int, part: EncodedPart) -> None:
        """Writes a part of a subscription as it was encoded."""
        if not self._closed:
            self._transport.writelines(frame_of(number, part))
            self.count_unread()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_writable(self) -> bool:
        """Whether the peer is connected, and has read enough of what it was sent."""
        return self._writable.is_set() and not self._closed

    def update_unread(self, now: float) -> None:
        """Recounts what the peer has not read. asyncio reports it only below the buffer's low-water mark."""
        before = self.unread_bytes
        self.count_unread()
        if self.unread_bytes < before and self._since_blocked is not None:
            self._since_blocked = now  # slow, but it moves

    def count_unread(self) -> None:
        self._count_unread(self._transport.get_write_buffer_size())

    def _count_unread(self, size: int) -> None:
        if size != self.unread_bytes:
            change, self.unread_bytes = size - self.unread_bytes, size
            self._budget.unread_changed(change)

    async def writable(self) -> None:
        """Waits until the peer has read enough. Raises CancelledError if the connection is gone."""
        await self._writable.wait()
        if self._closed:
            raise asyncio.CancelledError

    def _takes(self) -> bool:
        """Whether one more request may be taken."""
        return self._decoding is None and self._writable.is_set() and self._runner.takes_more

    def _update_reading(self) -> None:
        if self._closed:
            return
        wanted = self._takes() and not self._awaits_room
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            now = time.monotonic()
            self._since_read = now
            if wanted:
                self._since_frame = now
                self._transport.resume_reading()
                asyncio.get_running_loop().call_soon(self._work)
            else:
                self._transport.pause_reading()

    def recheck_reading(self) -> None:
        """The backlog of all requests has room again: resumes reading if this session may."""
        self._update_reading()

    # --- the end ----------------------------------------------------------------------------------------------------

    def stall_reason(self, now: float, stall_s: float) -> VecError | None:
        """Why the peer counts as stalled and is to be disconnected; None if it is not."""
        if not self._greeted and now - self._since_hello > stall_s:
            return VecError(Code.STALLED, f"no hello within {stall_s:g} s")
        if self._reading and (pending_bytes := self._decoder.pending_bytes):
            if now - self._since_read > stall_s:
                return VecError(
                    Code.STALLED, f"a frame has been {pending_bytes} bytes long for more than {stall_s:g} s"
                )
            took_s, patience_s = now - self._since_frame, stall_s + pending_bytes / limits.FRAME_BYTES_S_MIN
            if self._room_bytes and self._frame_budget.frames_wait:
                patience_s = min(stall_s, limits.FRAME_CROWDED_S)
            if took_s > patience_s:
                return VecError(
                    Code.STALLED, f"a frame has {pending_bytes} bytes after {took_s:.0f} s: that is too slow"
                )
        self.update_unread(now)
        if self._transport.is_closing() and self._since_blocked is None:
            self._since_blocked = now  # it closes when all is read, however little that is
        patient = self._runner.is_streaming and not (self._blocks_others or self._transport.is_closing())
        if self._since_blocked is not None and not patient and now - self._since_blocked > stall_s:
            return VecError(Code.STALLED, f"replies have not been read for {stall_s:g} s")
        return None

    @property
    def _blocks_others(self) -> bool:
        """Whether others wait for room that this connection holds: for a frame that is not taken, or for large requests
        that have no answer because the peer does not read."""
        if self._budget.backlog_full and self._runner.unanswered_bytes > limits.FRAME_BYTES_AT_ONCE:
            return True
        return self._frame_budget.frames_wait and (bool(self._room_bytes) or any(room for _, room in self._frames))

    def blocked_s(self, now: float) -> float:
        """For how long the peer has taken nothing, as far as known; 0 if little waits for it."""
        return 0.0 if self._since_blocked is None else now - self._since_blocked

    def disconnect(self, reason: VecError) -> None:
        """Disconnects a stalled peer, and drops what it has not read."""
        self._end(reason)
        self._transport.abort()
        self._count_unread(0)

    def drain(self) -> None:
        """Takes no more requests, ends the streams, and closes when the rest is answered."""
        self._runner.drain()
        self._close_when_done()

    def abort(self) -> None:
        """Closes at once; unanswered requests are cancelled."""
        self._runner.cancel_all()
        self._transport.abort()

    def _close_when_done(self) -> None:
        if self._runner.is_idle and not self._closed:
            self._transport.close()  # after what is in its buffer has been sent

    def _end(self, reason: VecError) -> None:
        """Sends the reason and closes."""
        if self._closed:
            return
        log.warning("connection ended", extra={"code": reason.code, "reason": reason.message})
        with contextlib.suppress(VecError):
            self._transport.write(encode({"id": None, "error": reason.to_wire()}))
        self._closed = True
        self._drop_input()
        self._runner.abandon()
        self._transport.close()
