"""Runner: runs the requests of one sender, from arrival to answer. A transport drives it.

Rules:
- Every request is answered once: `result`, or `items` … `end`, or `error`. A bug in a handler is answered `internal`
  and logged; it ends neither the sender's connection nor the daemon.
- Writes take their slot when they arrive, so they take effect in the order in which they were sent.
- A request counts as unanswered until its task is done, also after the sender left: it is held in memory.
- The runner refuses only streams beyond their limit. Otherwise the transport stops taking requests while `takes_more`
  is false. `changed` is called whenever that may have changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from .. import limits
from ..errors import Code, VecError
from ..resources import exhausted
from ..wire.messages import Request
from .call import Call
from .reply import Reply
from .sender import Sender
from .service import Service
from .table import OPS, Handler, Immediate, Op

log = logging.getLogger("vecd.ops")


class Runner:
    """One sender's requests, from their arrival to their answer."""

    def __init__(self, service: Service, changed: Callable[[], None], ops: Mapping[str, Op | Immediate] = OPS) -> None:
        self.sender = Sender()
        self.unanswered_bytes = 0  # of requests, as objects
        self._unanswered = 0
        self._service = service
        self._budget = service.budget
        self._changed = changed
        self._ops = ops

    def run(self, request: Request, reply: Reply, size: int = 0) -> None:
        """Begins a request, which takes `size` bytes; answers it at once if it is refused, or an op that is
        answered at once."""
        sender = self.sender
        op = self._ops.get(request.op)
        if op is None:
            hint = "this daemon may be older than the client: vec daemon restart"
            reply.error(VecError(Code.UNSUPPORTED, f"unknown op {request.op!r:.60}", hint))
        elif sender.stopping:
            reply.error(VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later"))
        elif request.id in sender.tasks:
            reply.error(VecError(Code.INVALID_REQUEST, f"request {request.id} has not been answered yet", field="id"))
        elif isinstance(op, Immediate):
            try:
                reply.result(op.handler(Call(self._service, sender, request, reply, None)))
            except Exception as error:
                reply.error(_reported(error, request.op))
        elif op.stream and len(sender.streams) >= limits.STREAMS_MAX:
            reply.error(VecError(Code.BUSY, f"this connection has {limits.STREAMS_MAX} streams", "cancel some"))
        else:
            self._begin(op, request, reply, size)

    @property
    def takes_more(self) -> bool:
        """Whether the transport may take one more request. A sender with nothing unanswered always may."""
        return self._unanswered == 0 or (
            self._unanswered < limits.UNANSWERED_MAX
            and self.unanswered_bytes < limits.UNANSWERED_BYTES_MAX
            and not self._budget.backlog_full
        )

    @property
    def stopping(self) -> bool:
        """Whether it is being drained."""
        return self.sender.stopping

    @property
    def is_idle(self) -> bool:
        """Whether everything is answered."""
        return not self.sender.tasks

    @property
    def is_streaming(self) -> bool:
        """Whether an answer is in progress that may be read as slowly as the sender likes: its buffer is bounded."""
        return bool(self.sender.streams or self.sender.paged)

    def drain(self) -> None:
        """Takes no more requests and ends the streams. The others are answered; `changed` is called for each."""
        self.sender.stopping = True
        self.sender.cancel_streams()

    def abandon(self) -> None:
        """The sender has disconnected: ends the streams. Its other requests still take effect."""
        self._changed = _ignore
        self.sender.cancel_streams()

    def cancel_all(self) -> None:
        """Cancels what a drain has left."""
        for task in self.sender.tasks.values():
            task.cancel()

    # --- one request ------------------------------------------------------------------------------------------------

    def _begin(self, op: Op, request: Request, reply: Reply, size: int) -> None:
        slot = self.sender.order.take(makes_libraries=op.makes_libraries) if op.write else None
        call = Call(self._service, self.sender, request, reply, slot)
        call.streamed = op.stream
        if op.stream:
            self.sender.streams.add(request.id)
        else:
            self._unanswered += 1
            self.unanswered_bytes += size
            self._budget.request_taken(size)
            self._changed()
        done = partial(self._done, call, op, size)
        task = asyncio.get_running_loop().create_task(self._answer(op.handler, call, reply, done))
        self.sender.tasks[request.id] = task
        task.add_done_callback(lambda task: self._never_began(call, reply, done) if task.cancelled() else None)

    async def _answer(self, handler: Handler, call: Call, reply: Reply, done: Callable[[], None]) -> None:
        try:
            body = await handler(call)
            if call.streamed or await call.result(body):
                reply.end(body)
        except asyncio.CancelledError:
            self._answer_cancelled(call, reply)
        except Exception as error:
            reply.error(_reported(error, call.op))
        finally:
            done()  # in the same step as the answer: a sender that has it may use its number again

    def _never_began(self, call: Call, reply: Reply, done: Callable[[], None]) -> None:
        """Cancelled before its first step: nothing of `_answer` has run."""
        self._answer_cancelled(call, reply)
        done()

    def _answer_cancelled(self, call: Call, reply: Reply) -> None:
        if call.id in self.sender.streams:
            reply.end({"reason": "shutting_down" if self.sender.stopping else "cancelled"})
        else:  # a drain has reached its time limit
            reply.error(VecError(Code.SHUTTING_DOWN, "the daemon is stopping"))

    def _done(self, call: Call, op: Op, size: int) -> None:
        if op.write:
            call.slot.release()
        call.release_room()
        del self.sender.tasks[call.id]
        self.sender.paged.discard(call.id)
        if op.stream:
            self.sender.streams.discard(call.id)
        else:
            self._unanswered -= 1
            self.unanswered_bytes -= size
            self._budget.request_answered(size)
        self._changed()


def _ignore() -> None:
    pass


def _reported(error: Exception, op: str) -> VecError:
    """The error that the sender gets. A bug is logged."""
    error = exhausted(error) or error
    if isinstance(error, VecError):
        return error
    log.error("a handler failed", exc_info=error, extra={"op": op})
    bug = f"a bug in the daemon: {type(error).__name__}: {error}"
    return VecError(Code.INTERNAL, bug, "see the daemon's log, and report this bug")
