"""One connection.

Rules:
- Every request becomes a task and is answered once: `result`, or `items` … `end`, or `error`. A bug in a handler is
  answered `internal` and logged; it ends neither the connection nor the daemon.
- Writes take a slot of the WriteOrder when they arrive, so they take effect in the order in which they were sent.
- Back-pressure: with too many requests unanswered (count or bytes, this connection's or all connections' together), or
  too much of our output unread, the session stops reading. Streams wait for the peer to read before they go on, and
  what is large is made only when there is room for it (`room`; budget.py has what all connections share).
- What grows with a request does not run on the event loop: large frames are decoded off it, in their order.
- Bytes that are no protocol end the connection, with the reason as its last message (id nil).
- A peer that leaves its hello, half a frame or our replies lying for `stall_s` is ended by the listener's sweep. A
  connection with a subscription, or with an answer that comes in pages, may be read as slowly as its reader likes:
  what waits for it is bounded, and a slow watcher harms nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from .. import PROTOCOL, __version__, limits
from ..errors import Code, VecError
from ..feed.watch import Watch
from ..ops.call import Call
from ..ops.table import OPS, Handler, Now
from ..resources import exhausted
from ..unixsocket import peer_pid
from ..wire.frames import FrameDecoder
from ..wire.messages import Part, Request, check_protocol, encode, frame_of
from ..write_order import WriteOrder, WriteSlot
from .budget import Decoded, Undecoded, decode_at_once

if TYPE_CHECKING:
    from .listener import Listener

log = logging.getLogger("vecd.session")


class Session(asyncio.Protocol):
    """A connection's protocol object; all of it runs on the event loop."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._budget = listener.budget
        self.draining = False
        self._transport: asyncio.Transport
        self._decoder = FrameDecoder()
        self._frames: deque[tuple[bytes, int]] = deque()  # complete and not taken yet, and the room that each holds
        self._room_bytes = 0  # that the frame which is arriving holds of the daemon's
        self._awaits_room = False  # it will go on when there is room for it
        self._since_frame = 0.0  # when it began
        self._decoding: tuple[bytes, int] | None = None  # of _frames, the one that is being decoded off the loop
        self._answers = asyncio.Semaphore(limits.CONNECTION_ANSWERS_AT_ONCE)
        self._ended = False  # the peer has said all it will
        self._order = WriteOrder()
        self._greeted = False
        self._closed = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.watches: dict[int, Watch] = {}  # of _tasks, by number
        self.peer = "somebody"
        self._streams: set[int] = set()  # of _tasks, those that may be cancelled and are not back-pressure
        self._paged: set[int] = set()  # of _tasks, answers that come in pages, each sent when there is room for it
        self._unanswered = 0
        self._unanswered_bytes = 0
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
        if (refusal := self.listener.admit(self)) is not None:
            self._end(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._writable.set()
        for number in self._streams:
            self._tasks[number].cancel()
        self._drop_input()
        self._count_unread(0)
        self.listener.forget(self)

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
            if self._budget.admit_frame(self, announced):
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
        """Takes the requests that have arrived, as long as there is room for more."""
        while self._frames and self._takes() and not self._closed:
            payload, room = self._frames.popleft()
            at_once = limits.FRAME_BYTES_TINY if self._budget.backlog_full else limits.FRAME_BYTES_AT_ONCE
            self._decoding = payload, room
            if len(payload) > at_once:
                self._budget.decode(self, payload)
            else:
                self._take_decoded(decode_at_once(payload))
        if self._ended and not self._frames and self._decoding is None and not self.draining:
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
            self._budget.frame_done(room)
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
        """No more is taken: gives back what is held of what arrives."""
        self._budget.forget(self)
        waiting = [*self._frames, *([self._decoding] if self._decoding is not None else [])]
        held = self._room_bytes + sum(room for _, room in waiting)
        self._room_bytes, self._awaits_room, self._decoding = 0, False, None
        self._frames.clear()
        self._decoder = FrameDecoder()
        if held:
            self._budget.frame_done(held)

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
        if not self._greeted:
            self._greet(request)
            return
        op = OPS.get(request.op)
        if op is None:
            known = "this daemon may be older than the client: vec daemon restart"
            self._refuse(request, VecError(Code.UNSUPPORTED, f"unknown op {request.op!r:.60}", known))
        elif self.draining:
            self._refuse(request, VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later"))
        elif request.id in self._tasks:
            self._refuse(
                request, VecError(Code.INVALID_REQUEST, f"request {request.id} has not been answered yet", field="id")
            )
        elif isinstance(op, Now):
            self._answer_now(op, Call(self, request, None))
        elif op.stream and len(self._streams) >= limits.STREAMS_MAX:
            self._refuse(
                request, VecError(Code.BUSY, f"this connection has {limits.STREAMS_MAX} streams", "cancel some")
            )
        else:
            slot = self._order.take(makes_libraries=op.makes_libraries) if op.write else None
            call = Call(self, request, slot)
            call.streamed = op.stream
            if op.stream:
                self._streams.add(request.id)
            else:
                self._unanswered += 1
                self._unanswered_bytes += size
                self._budget.taken(size)
                self._update_reading()
            done = partial(self._done, call, slot, size, op.stream)
            task = asyncio.get_running_loop().create_task(self._answer(op.handler, call, done))
            self._tasks[request.id] = task
            task.add_done_callback(lambda task: self._never_began(call, done) if task.cancelled() else None)

    def _answer_now(self, op: Now, call: Call) -> None:
        try:
            self.send({"id": call.id, "result": op.handler(call)})
        except Exception as error:
            self._send_error(call, error)

    async def _answer(self, handler: Handler, call: Call, done: Callable[[], None]) -> None:
        try:
            body = await handler(call)
            if not call.streamed:
                body = await self._send_result(call, body)
            if call.streamed:
                self.send({"id": call.id, "end": body})
        except asyncio.CancelledError:
            self._send_cancelled(call)
        except Exception as error:
            self._send_error(call, error)
        finally:
            done()  # in the same step as the answer: whoever has it may use its number again

    def _never_began(self, call: Call, done: Callable[[], None]) -> None:
        """Cancelled before its first step: nothing of `_answer` has run."""
        self._send_cancelled(call)
        done()

    async def _send_result(self, call: Call, body: dict[str, Any]) -> dict[str, Any]:
        """Sends a result. One that is too large for a frame because of its one list goes as a stream of that list's
        items; then what is left of the body is returned, for the stream's end."""
        if not call.holds_room:
            await self.writable()
        try:
            self.send({"id": call.id, "result": body})
        except VecError as error:
            lists = [key for key, value in body.items() if isinstance(value, list)]
            if error.code != Code.FRAME_TOO_LARGE or len(lists) != 1:
                raise
            await call.items(body.pop(lists[0]))
        return body

    def _send_cancelled(self, call: Call) -> None:
        if call.id in self._streams:
            self.send({"id": call.id, "end": {"reason": "shutting_down" if self.draining else "cancelled"}})
        else:  # cut off by a drain that ran out of patience
            self._send_error(call, VecError(Code.SHUTTING_DOWN, "the daemon is stopping"))

    def _send_error(self, call: Call, error: Exception) -> None:
        error = exhausted(error) or error
        if not isinstance(error, VecError):
            log.error("a handler failed", exc_info=error, extra={"op": call.op})
            bug = f"a bug in the daemon: {type(error).__name__}: {error}"
            error = VecError(Code.INTERNAL, bug, "the daemon's log has more; please report it")
        self.send({"id": call.id, "error": error.to_wire()})

    def _done(self, call: Call, slot: WriteSlot | None, size: int, stream: bool) -> None:
        if slot is not None:
            slot.release()
        call.release()
        del self._tasks[call.id]
        self._paged.discard(call.id)
        if stream:
            self._streams.discard(call.id)
        else:
            self._unanswered -= 1
            self._unanswered_bytes -= size
            self._budget.answered(size)  # not before, though the peer may be gone: until now it was held in memory
        self._update_reading()
        if self.draining:
            self._close_when_done()

    def _greet(self, request: Request) -> None:
        if request.op != "hello":
            raise VecError(Code.PROTOCOL_ERROR, f"the first request must be hello, not {request.op!r:.60}")
        check_protocol(request.fields.get("protocol"), who="client")
        self._greeted = True
        pid = peer_pid(self._transport.get_extra_info("socket"))
        client = request.fields.get("client")
        self.peer = f"{client if isinstance(client, str) else 'a client':.80}" + (f", process {pid}" if pid else "")
        known = {
            "frame_bytes_max": limits.FRAME_BYTES_MAX,
            "batch_documents_max": limits.BATCH_DOCUMENTS_MAX,
            "unanswered_max": limits.UNANSWERED_MAX,
            "heartbeat_s": limits.HEARTBEAT_S,
        }
        answer = {"protocol": PROTOCOL, "server": f"vecd {__version__}", "log": self.listener.engine.database.log_id}
        self.send({"id": request.id, "result": {**answer, **self.listener.about, "limits": known}})

    def cancel(self, target: int) -> bool:
        """Ends a stream; false if there is none of that number."""
        if target not in self._streams:
            return False
        return self._tasks[target].cancel()

    # --- output and back-pressure -----------------------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> int:
        """Writes a message, if there is still somebody to write to; returns its bytes. Raises VecError
        `frame_too_large`."""
        if self._closed:
            return 0
        data = encode(message)
        self._transport.write(data)
        self.count_unread()
        return len(data)

    def send_page(self, message: dict[str, Any]) -> int:
        """Writes a part of a stream. Who sends the next waits until the peer has read enough of it, however long that
        takes: somebody may be reading page by page at a terminal, and what waits for them is bounded."""
        size = self.send(message)
        if message["id"] in self._tasks:
            self._paged.add(message["id"])
        return size

    def send_part(self, number: int, part: Part) -> None:
        """Writes a part of a subscription as it was encoded."""
        if not self._closed:
            self._transport.writelines(frame_of(number, part))
            self.count_unread()

    async def room(self, *, alone: bool) -> None:
        """Waits until an answer, or a page of one, may be made for this peer: it has read what was sent before, few are
        being made for it, and (if not `alone`) few for all. `release_room` when it has been sent.

        Raises CancelledError if the connection is gone.
        """
        await self._answers.acquire()
        try:
            while True:
                await self.writable()
                if self.unread_bytes:  # who has read everything need not wait for those who have not
                    await self._budget.uncrowded()
                if not alone:
                    await self._budget.begin_answer()
                if self._writable.is_set() and not self._closed:
                    return
                if not alone:
                    self._budget.end_answer()
        except BaseException:
            self._answers.release()
            raise

    def release_room(self, *, alone: bool) -> None:
        self._answers.release()
        if not alone:
            self._budget.end_answer()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_writable(self) -> bool:
        """Whether the peer has read enough of what was sent."""
        return self._writable.is_set()

    def look_at_output(self, now: float) -> None:
        """Counts what the peer has read since the last count. The transport tells of it only when much was waiting and
        little is left."""
        before = self.unread_bytes
        self.count_unread()
        if self.unread_bytes < before and self._since_blocked is not None:
            self._since_blocked = now  # slow, but it moves

    def count_unread(self) -> None:
        self._count_unread(self._transport.get_write_buffer_size())

    def _count_unread(self, size: int) -> None:
        if size != self.unread_bytes:
            change, self.unread_bytes = size - self.unread_bytes, size
            self._budget.unread(change)

    async def writable(self) -> None:
        """Waits until the peer has read enough. Raises CancelledError if the connection is gone."""
        await self._writable.wait()
        if self._closed:
            raise asyncio.CancelledError

    def _refuse(self, request: Request, error: VecError) -> None:
        self.send({"id": request.id, "error": error.to_wire()})

    def _takes(self) -> bool:
        """Whether one more request may be taken."""
        return (
            self._decoding is None
            and self._writable.is_set()
            and (
                self._unanswered == 0
                or (
                    self._unanswered < limits.UNANSWERED_MAX
                    and self._unanswered_bytes < limits.UNANSWERED_BYTES_MAX
                    and not self._budget.backlog_full
                )
            )
        )

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

    def look_again(self) -> None:
        """The daemon's backlog has shrunk: this session may read on."""
        self._update_reading()

    # --- the end ----------------------------------------------------------------------------------------------------

    def overdue(self, now: float, stall_s: float) -> VecError | None:
        """Why the peer should be ended, if it should."""
        if not self._greeted and now - self._since_hello > stall_s:
            return VecError(Code.STALLED, f"no hello within {stall_s:g} s")
        if self._reading and (pending_bytes := self._decoder.pending_bytes):
            if now - self._since_read > stall_s:
                return VecError(
                    Code.STALLED, f"a frame has been {pending_bytes} bytes long for more than {stall_s:g} s"
                )
            took_s, patience_s = now - self._since_frame, stall_s + pending_bytes / limits.FRAME_BYTES_S_MIN
            if self._room_bytes and self._budget.frames_wait:
                patience_s = min(stall_s, limits.FRAME_CROWDED_S)
            if took_s > patience_s:
                return VecError(
                    Code.STALLED, f"a frame has {pending_bytes} bytes after {took_s:.0f} s: that is too slow"
                )
        self.look_at_output(now)
        if self._transport.is_closing() and self._since_blocked is None:
            self._since_blocked = now  # it closes when all is read, however little that is
        patient = (self._streams or self._paged) and not (self._is_in_the_way or self._transport.is_closing())
        if self._since_blocked is not None and not patient and now - self._since_blocked > stall_s:
            return VecError(Code.STALLED, f"replies have not been read for {stall_s:g} s")
        return None

    @property
    def _is_in_the_way(self) -> bool:
        """Whether others wait for room that this connection holds: for a frame that is not taken, or for large requests
        that have no answer because the peer does not read."""
        if self._budget.backlog_full and self._unanswered_bytes > limits.FRAME_BYTES_AT_ONCE:
            return True
        return self._budget.frames_wait and (bool(self._room_bytes) or any(room for _, room in self._frames))

    def blocked_s(self, now: float) -> float:
        """For how long the peer has taken nothing, as far as known; 0 if little waits for it."""
        return 0.0 if self._since_blocked is None else now - self._since_blocked

    def end_stalled(self, reason: VecError) -> None:
        """Ends a peer that does not move; what it has not read is thrown away."""
        self._end(reason)
        self._transport.abort()
        self._count_unread(0)

    def drain(self) -> None:
        """Takes no more requests, ends the streams, closes when all the rest is answered."""
        self.draining = True
        for number in self._streams:
            self._tasks[number].cancel()
        self._close_when_done()

    def cut(self) -> None:
        """Closes now, whatever is unanswered."""
        for task in self._tasks.values():
            task.cancel()
        self._transport.abort()

    def _close_when_done(self) -> None:
        if not self._tasks and not self._closed:
            self._transport.close()  # after what is in its buffer has been sent

    def _end(self, reason: VecError) -> None:
        """Says why and closes; nobody else notices."""
        if self._closed:
            return
        log.warning("connection ended", extra={"code": reason.code, "reason": reason.message})
        with contextlib.suppress(VecError):
            self._transport.write(encode({"id": None, "error": reason.to_wire()}))
        self._closed = True
        self._drop_input()
        for number in self._streams:
            self._tasks[number].cancel()
        self._transport.close()
