"""A TCP proxy between a client and a server under test, which misbehaves as a network does, when the test says so.

    with Proxy(("127.0.0.1", broker.port)) as network:
        …connect to network.address…
        network.black_hole()          # connections stay open, and nothing arrives
        network.heal()                # what was held arrives
        network.cut()                 # all connections are reset
        network.down()                # and new ones are refused, until heal()
        network.cut_after(100)        # reset after 100 more bytes of requests: in the middle of a message
        network.black_hole("replies") # the server gets requests, the client no reply; then cut(): the replies are lost
        network.delay_s = 0.05        # each way
        network.bytes_per_s = 10_000  # each way, of all connections together

Each method returns when it is in effect. The proxy runs on a thread of its own; its methods may be called from any
other thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal, Protocol, Self, TypeVar

T = TypeVar("T")

Way = Literal["requests", "replies"]
WAYS: Final[tuple[Way, Way]] = ("requests", "replies")

_HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 * 1024
#: Chunks that one connection holds in one direction while they are delayed; then it stops reading.
_HELD_MAX: Final = 64
_CONTROL_S: Final = 30.0
#: Closes with RST instead of FIN.
_RESET: Final = struct.pack("ii", 1, 0)


class Corrector(Protocol):
    """Changes the replies of one connection. One that needs whole messages holds back the others."""

    def request(self, data: bytes) -> None:
        """Sees what the client has sent."""

    def reply(self, data: bytes) -> bytes:
        """What the client gets when `data` has come. No data: the connection ends."""


class Proxy:
    """Forwards the connections to a free port of 127.0.0.1 to `target`. A context manager."""

    def __init__(
        self,
        target: tuple[str, int],
        *,
        rewrite: Mapping[bytes, bytes] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`rewrite` replaces bytes of replies by others, for servers that tell clients their own address (Kafka,
        tests/support/brokers/kafka.py); it may be set later. With `tls`, the proxy ends the TLS of its clients."""
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.connections = 0  # accepted so far
        self.forwarded: dict[Way, int] = dict.fromkeys(WAYS, 0)  # bytes so far
        self.rewrite = dict(rewrite or {})
        self.corrector: Callable[[], Corrector] | None = None  # of each connection; it comes before `rewrite`
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._open: dict[Way, asyncio.Event] = {}  # not set: held
        self._cut_at: dict[Way, int | None] = dict.fromkeys(WAYS)  # of `forwarded`
        self._links: set[_Link] = set()
        self._busy_until: dict[Way, float] = dict.fromkeys(WAYS, 0.0)  # of the throttled line

    # --- control -------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"{_HOST}:{self.port}"

    @property
    def open_connections(self) -> int:
        return self._call(lambda: len(self._links))

    def cut(self) -> int:
        """Resets all connections; what was held is lost. New ones are accepted. Returns how many there were."""
        return self._call(self._cut)

    def cut_after(self, count: int, way: Way = "requests") -> None:
        """Forwards `count` more bytes in that direction, then resets all connections. Once."""

        def arm() -> None:
            self._cut_at[way] = self.forwarded[way] + count

        self._call(arm)

    def down(self) -> None:
        """Resets all connections and refuses new ones, until `heal`."""

        def stop() -> None:
            self._close_listener()
            self._cut()

        self._call(stop)

    def black_hole(self, way: Way | None = None) -> None:
        """Holds all bytes (of one direction, or of both) of all connections, new ones too, until `heal`."""

        def hold() -> None:
            for each in [way] if way else WAYS:
                self._open[each].clear()

        self._call(hold)

    def heal(self) -> None:
        """Accepts connections, forwards what was held, and forgets `cut_after`; no delay, no throttle."""

        def restore() -> None:
            self.delay_s, self.bytes_per_s = 0.0, None
            for way in WAYS:
                self._cut_at[way] = None
                self._open[way].set()
            self._listen()

        self._call(restore)

    def __enter__(self) -> Self:
        self._thread.start()

        def begin() -> None:
            for way in WAYS:
                self._open[way] = asyncio.Event()
                self._open[way].set()
            self._listen()

        self._call(begin)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._close_listener()
            self._cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CONTROL_S)
        self._loop.close()

    # --- on the proxy's thread -------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self._run(run())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CONTROL_S)

    def _listen(self) -> None:
        """Always on the same port."""
        if self._listener is None:
            self._listener = socket.create_server((_HOST, self.port), backlog=100)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            self.connections += 1
            link = _Link()
            self._links.add(link)
            task = self._loop.create_task(self._serve(client, link))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    def _cut(self) -> int:
        links, self._links = self._links, set()
        for link in links:
            link.reset()
        return len(links)

    async def _serve(self, client: socket.socket, link: _Link) -> None:
        try:
            client.setblocking(False)
            reader = asyncio.StreamReader(_CHUNK_BYTES)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, client, ssl=self._tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            link.add(writer)
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.target, limit=_CHUNK_BYTES)
            link.add(upstream_writer)
            corrector = self.corrector() if self.corrector else None
            await asyncio.gather(
                self._pump(link, "requests", reader, upstream_writer, corrector),
                self._pump(link, "replies", upstream_reader, writer, corrector),
            )
        except OSError:  # the server is away: the client sees it at once, as if it had connected directly
            pass
        except asyncio.CancelledError:  # the end of the proxy
            pass
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(
        self,
        link: _Link,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        corrector: Corrector | None,
    ) -> None:
        """One direction of one connection, to its end. Reading goes on while what was read is delayed."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_MAX)
        reading = asyncio.create_task(self._read(way, reader, line, corrector))
        try:
            while True:
                due, data = await line.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._open[way].wait()
                if not data:
                    break
                await self._forward(way, writer, data)
            with contextlib.suppress(OSError):
                writer.write_eof() if writer.can_write_eof() else writer.close()  # TLS ends both directions
        except OSError:
            link.reset()
        finally:
            reading.cancel()

    async def _read(
        self,
        way: Way,
        reader: asyncio.StreamReader,
        line: asyncio.Queue[tuple[float, bytes]],
        corrector: Corrector | None,
    ) -> None:
        """Ends with an empty chunk."""
        rest = b""
        while True:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            last = not data
            if corrector and way == "requests":
                corrector.request(data)
            elif corrector:
                data = corrector.reply(data)
            if way == "replies" and self.rewrite:
                data, rest = self._rewritten(rest + data, last=last)
            if data:
                await line.put((self._loop.time() + self.delay_s, data))
            if last:
                await line.put((self._loop.time() + self.delay_s, b""))
                return

    def _rewritten(self, data: bytes, *, last: bool) -> tuple[bytes, bytes]:
        """The data with its replacements; and its end, if that may be the beginning of something to replace."""
        for old, new in self.rewrite.items():
            data = data.replace(old, new)
        if last:
            return data, b""
        for size in range(max(map(len, self.rewrite)) - 1, 0, -1):
            if any(old[:size] == data[-size:] for old in self.rewrite if size < len(old)):
                return data[:-size], data[-size:]
        return data, b""

    async def _forward(self, way: Way, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            limit = self._cut_at[way]
            part = data if limit is None else data[: max(0, limit - self.forwarded[way])]
            if self.bytes_per_s is not None:
                part = part[: max(1, int(self.bytes_per_s / 50))]
                begin = max(self._loop.time(), self._busy_until[way])
                self._busy_until[way] = begin + len(part) / self.bytes_per_s
                await asyncio.sleep(self._busy_until[way] - self._loop.time())
            writer.write(part)
            await writer.drain()
            self.forwarded[way] += len(part)
            data = data[len(part) :]
            if limit is not None and self.forwarded[way] >= limit:
                self._cut_at[way] = None
                while writer.transport.get_write_buffer_size():  # noqa: ASYNC110 -- it has no event
                    await asyncio.sleep(0.001)
                self._cut()
                return


class _Link:
    """Both sockets of a connection. Once it is reset, so is a socket that comes later."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []
        self._is_reset = False

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._is_reset:
            self.reset()

    def reset(self) -> None:
        self._is_reset = True
        for writer in self._writers:
            if not writer.transport.is_closing():
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
