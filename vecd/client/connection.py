"""One connection to the daemon: many requests at once, and their replies.

`submit` sends a request and returns a Pending at once; `Pending.result` waits. While it sends it also reads, because
the daemon may wait for us to read answers before it reads on. What arrives
for a stream while the client waits for another request is kept in memory: a stream that is left unread for long belongs
on a connection of its own. Not thread-safe: one thread, one connection.

An answer may take long, and silence is not a failure. But after SILENCE_S without a byte the client checks whether the
daemon is still at work, and ends the connection (`stalled`) if it is not; so no wait for a daemon that is stopped or
stuck lasts longer than that check.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import limits
from ..errors import Code, VecError
from ..wire.messages import ReplyMessage, decode, encode, parse_reply
from .greeting import HELLO, check_answer, lost_error
from .transport import ConnectionEndedError, SocketTransport, Transport


class Pending:
    """A request that has been sent, and its replies that have not been read."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self.number = number
        self.done = False  # the last reply is here
        self._replies: deque[ReplyMessage] = deque()
        self.warnings: list[str] = []  # of the answer, once it was read

    def result(self) -> dict[str, Any]:
        """Waits for the one answer. Raises the VecError that the daemon answered with."""
        reply = self.next()
        if reply is None or reply.kind not in ("result", "end"):
            raise VecError(Code.PROTOCOL_ERROR, "the daemon answered with a stream where one result was expected")
        return dict(reply.body)

    def parts(self) -> Iterator[ReplyMessage]:
        """The replies, each when it arrives: any number of `items`, then one `end` (or a single `result`)."""
        while (reply := self.next()) is not None:
            yield reply
            if reply.kind != "items":
                return

    @property
    def ready(self) -> bool:
        """Whether `next` has something to return without waiting."""
        return bool(self._replies) or self.done

    def next(self) -> ReplyMessage | None:
        """Waits for the next reply; None after the last. Raises VecError."""
        self._connection.wait_for(lambda: self.ready)
        if not self._replies:
            return None
        reply = self._replies.popleft()
        if reply.kind == "error":
            raise VecError.from_wire(reply.body)
        if reply.kind != "items" and reply.body.get("warnings"):
            self.warnings = list(reply.body["warnings"])
            self._connection.on_warnings(self.warnings)
        return reply

    def _take(self, reply: ReplyMessage) -> None:
        self._replies.append(reply)
        self.done = reply.kind != "items"


class Connection:
    """A connection that has said hello: requests go out, replies come in. `Client` adds a method for each op."""

    def __init__(
        self, transport: socket.socket | Transport, *, timeout_s: float | None = None, data: Path | None = None
    ) -> None:
        """Says hello, over a connected Unix socket or any other transport. With `data`, refuses a daemon that serves
        another data folder. Raises VecError."""
        self._transport: Transport = SocketTransport(transport) if isinstance(transport, socket.socket) else transport
        self._timeout_s = timeout_s
        self._pending: dict[int, Pending] = {}
        self._number = 0
        self._lost: VecError | None = None
        #: Called with an answer's warnings, each a sentence; for example, a filter names a field that no document has.
        self.on_warnings: Callable[[list[str]], None] = lambda warnings: None
        try:
            answer = self._hello()
            check_answer(answer, data)
        except BaseException:
            self.close()
            raise
        self.log: str = str(answer.get("log", ""))  # the log id, the first half of every cursor
        self.server: str = str(answer.get("server", ""))
        self.limits: dict[str, Any] = dict(answer.get("limits") or {})

    def _hello(self) -> dict[str, Any]:
        patience, self._timeout_s = self._timeout_s, min(self._timeout_s or limits.HELLO_S, limits.HELLO_S)
        pending = self._pending[0] = Pending(self, 0)
        self._send(HELLO)
        answer = pending.result()
        self._timeout_s = patience
        return answer

    # --- any op -----------------------------------------------------------------------------------------------------

    def submit(self, op: str, **fields: Any) -> Pending:
        """Sends a request and returns without waiting for its answer. Fields that are None are left out."""
        return self._submit(self._frame(op, **fields))

    def _frame(self, op: str, **fields: Any) -> bytes:
        """The next request, encoded."""
        message = {"op": op, "id": self._number + 1}
        message.update((key, value) for key, value in fields.items() if value is not None)
        return encode(message)

    def _submit(self, frame: bytes) -> Pending:
        """Sends the last result of `_frame`."""
        self._number += 1
        pending = self._pending[self._number] = Pending(self, self._number)
        self._send(frame)
        return pending

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises VecError."""
        return self.submit(op, **fields).result()

    def pages(self, op: str, **fields: Any) -> Generator[ReplyMessage, None, None]:
        """The replies of a stream, each when it arrives: any number of `items`, then one `end`; or a single `result`.

        Leaving the iterator early cancels the stream.
        """
        pending = self.submit(op, **fields)
        try:
            yield from pending.parts()
        finally:
            self.abandon(pending)

    def items(self, op: str, key: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """The items of an answer, whether it came as one result (its list `key`) or as a stream."""
        with contextlib.closing(self.pages(op, **fields)) as pages:
            for reply in pages:
                yield from reply.body if reply.kind == "items" else reply.body.get(key, ())

    # --- the transport ----------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """For select and poll: readable when `pump` has something to read."""
        return self._transport.fileno()

    def pump(self) -> None:
        """Reads what has arrived, without waiting. Raises VecError `connection_lost`."""
        self._step(0.0)

    def wait(self) -> None:
        """Waits until something arrives, and reads it. Raises VecError `connection_lost`."""
        self._step(self._timeout_s)

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Sends and receives until `reached()`. Raises VecError `timeout` or `connection_lost`."""
        if not self.wait_until(reached, self._timeout_s):
            raise VecError(Code.TIMEOUT, f"no answer within {self._timeout_s:g} s", "its outcome is unknown; try again")

    def wait_until(self, reached: Callable[[], bool], patience_s: float | None) -> bool:
        """The same for `patience_s` seconds (None: no bound); returns whether it was reached."""
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while not reached():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._step(left)
        return True

    def set_timeout(self, timeout_s: float | None) -> None:
        """Bounds the wait for each answer from now on (None: no bound)."""
        self._timeout_s = timeout_s

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def abandon(self, pending: Pending) -> None:
        """Cancels a request: the daemon is asked to stop, and replies that still arrive are ignored."""
        if self._pending.pop(pending.number, None) is not None and self._lost is None and not self._transport.closed:
            self.submit("cancel", target=pending.number)

    def _send(self, frame: bytes) -> None:
        self._transport.send(frame)
        self.wait_for(lambda: not self._transport.unsent)

    def _step(self, wait_s: float | None) -> None:
        """Sends and receives what can be, waiting up to `wait_s` for either to be possible."""
        if self._lost is not None:
            raise self._lost
        transport = self._transport
        try:
            if transport.unsent:
                transport.write()
                if not transport.unsent:
                    return  # progress; a caller that only sends must not wait for an answer
            if wait_s is None and not transport.unsent:
                payloads = transport.read(wait=True)
                silent = payloads is None
            else:
                bound_s = limits.SILENCE_S if wait_s is None else min(wait_s, limits.SILENCE_S)
                if transport.poll(bound_s):
                    payloads, silent = transport.read(wait=False), False
                else:
                    payloads, silent = None, bound_s == limits.SILENCE_S
        except ConnectionEndedError as end:
            self._lose(None, end.said)
        except (OSError, ValueError) as error:
            self._lose(error)
        else:
            if payloads:
                self._take(payloads)
            elif silent:
                self.check_daemon()
        if self._lost is not None:
            raise self._lost

    def check_daemon(self) -> None:
        """Call it after SILENCE_S without a byte. Raises VecError `stalled` if the daemon is not at work; then the
        connection is lost."""
        if self._lost is None and not self._transport.is_serving(HELLO):
            self._lose(None, self._transport.stalled(limits.SILENCE_S + limits.PROBE_S))
        if self._lost is not None:
            raise self._lost

    def _take(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            reply = parse_reply(decode(payload))
            if reply.id is None:
                self._lose(None, VecError.from_wire(reply.body))
                return
            if (pending := self._pending.get(reply.id)) is not None:
                pending._take(reply)
                if pending.done:
                    del self._pending[reply.id]

    def _lose(self, cause: Exception | None, said: VecError | None = None) -> None:
        """The connection has ended, with a reason that the daemon gave or without one."""
        if self._lost is None:
            self._lost = said or lost_error(cause)
