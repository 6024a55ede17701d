"""The asynchronous client: one connection to the daemon, on an asyncio event loop.

    client = await AsyncClient.connect(locate())
    first, second = client.submit("ingest", documents=a), client.submit("ingest", documents=b)
    await first.result(), await second.result()
    async for reply in client.submit("list").parts(): ...

`submit` puts the request on the wire at once, so writes keep the order of the calls; any number of them may be
unanswered. There is no task per request: replies are distributed where they arrive.

Back-pressure: what arrives for a stream waits in a buffer until it is read, and the connection is not read while a
stream's buffer is full. So a stream that may be read slowly belongs on a connection of its own. In the other direction,
`drain` waits until the daemon has taken most of what was sent.

Liveness is as in the blocking client (connection.py): after SILENCE_S without a byte while a reply is awaited, the
daemon is probed, and the connection ends with `stalled` if it does not answer. A probe blocks, and runs on a thread;
connections to the same daemon share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from .. import limits
from ..errors import Code, VecError
from ..settings import Settings
from ..unixsocket import peer_pid
from ..wire.frames import FrameDecoder
from ..wire.messages import ReplyMessage, decode, encode, parse_reply
from .connect import data_of, may_spawn, start
from .discovery import find_daemon, is_answering, stalled_error
from .greeting import HELLO, check_answer, lost_error
from .spawn import Notice

T = TypeVar("T")

#: Bytes of a stream's replies that wait to be read; beyond it the connection is not read. A single reply may exceed it.
_UNREAD_BYTES_MAX: Final = 256 * limits.KIB

#: Probes in progress, by event loop and socket.
_probes: dict[tuple[asyncio.AbstractEventLoop, str | bytes], asyncio.Task[bool]] = {}


class AsyncPending:
    """A request that has been sent, and its replies that have not been read. One task reads it."""

    __slots__ = ("_client", "_replies", "_unread_bytes", "_waiter", "done", "number", "warnings")

    def __init__(self, client: AsyncClient, number: int) -> None:
        self._client = client
        self._replies: deque[tuple[ReplyMessage, int]] = deque()  # each with its bytes
        self._unread_bytes = 0  # of the parts of a stream
        self._waiter: asyncio.Future[None] | None = None
        self.number = number
        self.done = False  # the last reply is here
        self.warnings: list[str] = []  # of the answer, once it was read

    async def result(self) -> dict[str, Any]:
        """Waits for the one answer. Raises the VecError that the daemon answered with."""
        reply = await self.next()
        if reply is None or reply.kind not in ("result", "end"):
            raise VecError(Code.PROTOCOL_ERROR, "the daemon answered with a stream where one result was expected")
        return dict(reply.body)

    async def parts(self) -> AsyncGenerator[ReplyMessage, None]:
        """The replies, each when it arrives: any number of `items`, then one `end` (or a single `result`). Leaving
        the iterator early (aclose) cancels the request."""
        try:
            while (reply := await self.next()) is not None:
                yield reply
                if reply.kind != "items":
                    return
        finally:
            self.cancel()

    @property
    def ready(self) -> bool:
        """Whether `next` returns, or raises, without waiting."""
        return bool(self._replies) or self.done or self._client.lost is not None

    async def next(self) -> ReplyMessage | None:
        """Waits for the next reply; None after the last. Raises VecError."""
        while not self._replies:
            if self.done:
                return None
            if (lost := self._client.lost) is not None:
                raise _again(lost)
            assert self._waiter is None, "one task reads the replies of a request"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        reply, size = self._replies.popleft()
        if reply.kind == "error":
            raise VecError.from_wire(reply.body)
        if reply.kind == "items":
            before, self._unread_bytes = self._unread_bytes, self._unread_bytes - size
            if before > _UNREAD_BYTES_MAX >= self._unread_bytes:
                self._client._stream_emptied()
        elif reply.body.get("warnings"):
            self.warnings = list(reply.body["warnings"])
        return reply

    def cancel(self) -> None:
        """Asks the daemon to stop, and ignores replies that still arrive. Does nothing if the last reply is here."""
        self._client.cancel(self)

    def _take(self, reply: ReplyMessage, size: int) -> None:
        self._replies.append((reply, size))
        if reply.kind == "items":
            before, self._unread_bytes = self._unread_bytes, self._unread_bytes + size
            if before <= _UNREAD_BYTES_MAX < self._unread_bytes:
                self._client._stream_filled()
        else:
            self.done = True
        self._wake()

    def _drop(self) -> None:
        """Forgets replies that nobody will read."""
        self._replies.clear()
        if self._unread_bytes > _UNREAD_BYTES_MAX:
            self._client._stream_emptied()
        self._unread_bytes = 0
        self.done = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class AsyncClient(asyncio.Protocol):
    """A connection that has said hello. Use `connect`. All of it runs on one event loop."""

    def __init__(self, address: str | bytes, pid: int | None) -> None:
        """`address` is the daemon's Unix socket, `pid` its process, if known. `connect` makes it."""
        self._address, self._pid = address, pid
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._decoder = FrameDecoder()
        self._number = 0
        self._greeting = AsyncPending(self, 0)
        self._pending: dict[int, AsyncPending] = {0: self._greeting}
        self._full_streams = 0  # whose buffers are full: the connection is read while there is none
        self._writable: asyncio.Future[None] | None = None  # done when writing may go on; None: it may
        self.closed: asyncio.Future[None] = self._loop.create_future()  # done when the socket is closed
        self._heard_at = self._loop.time()  # when bytes last arrived, or reading was resumed
        self._watchdog: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None
        self.lost: VecError | None = None  # why the connection has ended
        self.log = ""  # the log id, the first half of every cursor
        self.server = ""
        self.limits: dict[str, Any] = {}

    @classmethod
    async def connect(
        cls, settings: Settings, *, spawn: bool = True, notice: Notice = lambda text: None
    ) -> AsyncClient:
        """A connection to the instance's daemon, which is started if none answers, `spawn` is true and VEC_NO_SPAWN is
        not set. `notice` is called on another thread with a sentence when the start takes long.

        Raises VecError `no_daemon`, `daemon_failed`, `version_mismatch`, `forbidden`, `invalid_settings`, `stalled`,
        `connection_lost`, `timeout` or `busy`.
        """
        spawns = spawn and may_spawn()
        sock = await _off_loop(lambda: _greeted(find_daemon(settings)))
        if sock is not None:
            try:
                return await cls._open(sock, data_of(settings))
            except VecError as error:
                if error.code != Code.CONNECTION_LOST:
                    raise
                # The daemon died after it had accepted the connection: there is none now, or another one.
                if not spawns and (sock := await _off_loop(lambda: _greeted(find_daemon(settings)))) is not None:
                    return await cls._open(sock, data_of(settings))
        sock = await _off_loop(lambda: _greeted(start(settings, spawns, notice)))
        assert sock is not None
        return await cls._open(sock, data_of(settings))

    @classmethod
    async def _open(cls, sock: socket.socket, data: Path | None) -> AsyncClient:
        """Takes over a socket on which hello has been said."""
        loop = asyncio.get_running_loop()
        try:
            client = cls(sock.getpeername(), peer_pid(sock))
            sock.setblocking(False)
            await loop.create_unix_connection(lambda: client, sock=sock)
        except OSError as error:
            sock.close()
            raise lost_error(error) from error
        except BaseException:
            sock.close()
            raise
        try:
            try:
                async with asyncio.timeout(limits.HELLO_S):
                    answer = await client._greeting.result()
            except TimeoutError:
                raise VecError(Code.TIMEOUT, f"no answer within {limits.HELLO_S:g} s", "try again") from None
            check_answer(answer, data)
        except BaseException:
            client.close()
            raise
        client.log = str(answer.get("log", ""))
        client.server = str(answer.get("server", ""))
        client.limits = dict(answer.get("limits") or {})
        return client

    # --- requests ---------------------------------------------------------------------------------------------------

    def submit(self, op: str, **fields: Any) -> AsyncPending:
        """Sends a request, behind all that were submitted before. Fields that are None are left out.

        Raises VecError: why the connection has ended, or `invalid_request` or `frame_too_large` for fields that cannot
        be encoded.
        """
        if self.lost is not None:
            raise _again(self.lost)
        message: dict[str, Any] = {"op": op, "id": self._number + 1}
        message.update((key, value) for key, value in fields.items() if value is not None)
        frame = encode(message)
        self._number += 1
        pending = self._pending[self._number] = AsyncPending(self, self._number)
        self._transport.write(frame)
        self._watch_silence()
        return pending

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises VecError."""
        pending = self.submit(op, **fields)
        try:
            return await pending.result()
        finally:
            pending.cancel()  # if the caller was cancelled

    def cancel(self, pending: AsyncPending) -> None:
        """Asks the daemon to stop, and ignores replies that still arrive."""
        if self._pending.pop(pending.number, None) is not None and self.lost is None:
            self.submit("cancel", target=pending.number)
        if not pending.done or pending._replies:
            pending._drop()

    async def drain(self) -> None:
        """Waits until the daemon has taken most of what was sent. Raises VecError."""
        while self._writable is not None and self.lost is None:
            await asyncio.shield(self._writable)
        if self.lost is not None:
            raise _again(self.lost)

    @property
    def unanswered(self) -> int:
        """How many requests wait for replies."""
        return len(self._pending)

    def close(self) -> None:
        """Closes the connection; unanswered requests fail with `connection_lost`."""
        self._lose(VecError(Code.CONNECTION_LOST, "the connection to the daemon was closed"))
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Returns when the connection has ended."""
        await asyncio.shield(self.closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._watch_silence()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for payload in self._decoder.feed(data):
                reply = parse_reply(decode(payload))
                if reply.id is None:
                    self._fail(VecError.from_wire(reply.body))
                    return
                if (pending := self._pending.get(reply.id)) is not None:
                    if reply.kind != "items":
                        del self._pending[reply.id]
                    pending._take(reply, len(payload))
        except VecError as error:  # not the protocol
            self._fail(error)

    def eof_received(self) -> bool:
        return False  # the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(lost_error(exc))
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _stream_filled(self) -> None:
        self._full_streams += 1
        if self._full_streams == 1 and self.lost is None:
            self._transport.pause_reading()

    def _stream_emptied(self) -> None:
        self._full_streams -= 1
        if self._full_streams == 0 and self.lost is None:
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _fail(self, error: VecError) -> None:
        self._lose(error)
        self._transport.abort()

    def _lose(self, error: VecError) -> None:
        """Ends the connection: replies that have arrived can still be read, and then the error is raised."""
        if self.lost is not None:
            return
        self.lost = error
        if self._watchdog is not None:
            self._watchdog.cancel()
        self.resume_writing()
        for pending in self._pending.values():
            pending._wake()
        self._pending.clear()

    def _watch_silence(self) -> None:
        if self._watchdog is None and self._probe is None:
            self._watchdog = self._loop.call_later(limits.SILENCE_S, self._silence)

    def _silence(self) -> None:
        self._watchdog = None
        if self.lost is not None or not self._pending:
            return
        left_s = self._heard_at + limits.SILENCE_S - self._loop.time()
        if self._full_streams or left_s > 0:
            # Or the request is younger than the last byte; it is then looked at once more.
            self._watchdog = self._loop.call_later(max(left_s, 0.1) if left_s > 0 else limits.SILENCE_S, self._silence)
        else:
            self._probe = self._loop.create_task(self._check_daemon())

    async def _check_daemon(self) -> None:
        heard_at = self._heard_at
        key = self._loop, self._address
        if (probe := _probes.get(key)) is None:
            probe = self._loop.create_task(
                asyncio.to_thread(is_answering, self._address, self._pid, HELLO, limits.PROBE_S)
            )
            _probes[key] = probe
            probe.add_done_callback(lambda _: _probes.pop(key, None))
        answers = await asyncio.shield(probe)
        self._probe = None
        if not answers and self._heard_at == heard_at:
            self._fail(stalled_error(self._pid, limits.SILENCE_S + limits.PROBE_S))
        elif self.lost is None:
            self._watch_silence()


def _again(error: VecError) -> VecError:
    """The same error, to be raised by one more of those that wait: they must not share a traceback."""
    copy = VecError(error.code, error.message, error.hint, **error.details)
    copy.__cause__ = error.__cause__
    return copy


def _greeted(sock: socket.socket | None) -> socket.socket | None:
    """Says hello on a blocking socket. Before the event loop reads it, so that the reason of a daemon that has closed
    the connection already can still be read."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.sendall(HELLO)
    return sock


async def _off_loop(connect: Callable[[], socket.socket | None]) -> socket.socket | None:
    """Runs what blocks on a thread. If the caller is cancelled, the socket is closed when it is there, also if the
    event loop has ended by then."""
    lock = threading.Lock()  # guards the two
    made: list[socket.socket] = []
    abandoned = False

    def work() -> None:
        if (sock := connect()) is None:
            return
        with lock:
            if abandoned:
                sock.close()
            else:
                made.append(sock)

    try:
        await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with lock:
            abandoned = True
            for sock in made:
                sock.close()
        raise
    return made[0] if made else None
