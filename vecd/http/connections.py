"""The TCP connections of the gateway: how many, whose, and for how long a slow or silent client may keep one.

uvicorn bounds none of this with httptools: it has no limit for connections, for the time or the size of headers, for
pipelined requests, or for a client that does not read its answer. Here is what concerns all connections; the two
protocols, http_protocol.py and websocket_protocol.py, have what concerns one.

Rules:
- A connection counts from accept(2), also during its TLS handshake, until its socket is closed.
- At the bound, the connection that has been idle longest is closed for a new one. So a client that opens connections
  and does nothing cannot keep others out.
- Once a second, each connection says whether it has been waiting for its client for too long (`overdue`).
- A client that reads nothing of its answer for STALL_S is cut off, also while the connection closes; and so is one that
  has not read the rest within CLOSE_S. It is cut off with a reset: after a plain close, the kernel would keep what is
  unread, some megabytes, for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol, cast

import uvicorn

from .. import limits
from ..errors import Code, VecError
from .hosts import Hosts, is_loopback
from .settings import HttpSettings

log = logging.getLogger("vecd.http.connections")

_LOOK_S = 1.0
#: SO_LINGER of 0 s: close(2) resets the connection.
_RESET = struct.pack("ii", 1, 0)


class Served(Protocol):
    """What a connection's protocol tells about itself."""

    def overdue(self, now: float) -> bool:
        """Whether its client has been too slow; called once a second."""

    def abort(self) -> None:
        """Cuts the connection, which is not read or not closed by its client."""

    def expire(self) -> None:
        """Closes the connection because of that, with an answer if that is possible."""


class Connection:
    """One TCP connection."""

    __slots__ = ("address", "closing_since", "served", "transport", "unread", "unread_since")

    def __init__(self, transport: asyncio.Transport, address: str | None) -> None:
        self.transport = transport
        self.address = address  # None: a Unix socket
        self.served: Served | None = None  # None during a TLS handshake
        self.closing_since: float | None = None
        self.unread, self.unread_since = 0, 0.0  # bytes that the client has not read, and since when there are as many

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            made = self.transport.get_extra_info("socket")
            if made is not None and self.address is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if self.served is not None:
            self.served.abort()
        else:
            self.transport.abort()


class Connections:
    """All connections of one gateway."""

    def __init__(self, hosts: Hosts, http: HttpSettings, stall_s: float) -> None:
        """Raises VecError `invalid_settings` if there are too few file descriptors."""
        self.connections_max = _connections_max(http.connections)
        self.head_s = http.head_s
        self._of_address_max = http.connections_per_address
        self.refused: Counter[str] = Counter()  # by reason
        self.pending_bytes = 0  # of incomplete WebSocket messages
        self.stall_s = stall_s
        self._hosts = hosts
        self._all: dict[asyncio.Transport, Connection] = {}
        self._of_address: Counter[str] = Counter()
        self._idle: dict[asyncio.Transport, None] = {}  # the one that has been idle longest first

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, transport: asyncio.Transport) -> VecError | None:
        """Counts a new connection; or returns why it is refused."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else None
        if self._of_address[address or ""] >= self._of_address_max and self._is_bounded(address):
            self.refused["address"] += 1
            return VecError(
                Code.BUSY,
                f"the address {address} has {self._of_address_max:,} connections open",
                "close some, or try again later",
            )
        if len(self._all) >= self.connections_max:
            if not self._idle:
                self.refused["connections"] += 1
                return VecError(Code.BUSY, f"{len(self._all):,} connections are open, the limit", "try again later")
            oldest = next(iter(self._idle))
            self.refused["idle"] += 1
            self.remove(oldest)
            oldest.abort()
        self._all[transport] = Connection(transport, address)
        self._of_address[address or ""] += 1
        with contextlib.suppress(OSError):  # finds a peer that is gone while nothing is sent to it
            made = transport.get_extra_info("socket")
            if made is not None and address is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return None

    def serve(self, transport: asyncio.Transport, served: Served) -> None:
        """Sets the protocol of an admitted connection."""
        if (connection := self._all.get(transport)) is not None:
            connection.served = served

    def replace(self, transport: asyncio.Transport, tls: asyncio.Transport) -> None:
        """Puts the TLS transport in the place of the one below it."""
        if (connection := self._all.pop(transport, None)) is not None:
            connection.transport = tls
            self._all[tls] = connection
        self.busy(transport)

    def idle(self, transport: asyncio.Transport) -> None:
        """Notes that a connection waits for a request."""
        if transport in self._all:
            self._idle[transport] = None

    def busy(self, transport: asyncio.Transport) -> None:
        """Notes that a connection has a request, or is a WebSocket."""
        self._idle.pop(transport, None)

    def remove(self, transport: asyncio.Transport) -> None:
        """Notes that a connection is closed."""
        self._idle.pop(transport, None)
        connection = self._all.pop(transport, None)
        if connection is not None:
            address = connection.address or ""
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    async def watch(self) -> None:
        """Closes overdue connections; runs as long as the gateway."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            for connection in list(self._all.values()):
                try:
                    self._look(connection, now)
                except Exception:
                    log.exception("a connection could not be checked")
                    connection.abort()

    def _look(self, connection: Connection, now: float) -> None:
        transport = connection.transport
        unread = transport.get_write_buffer_size()
        if unread == 0 or unread != connection.unread:
            connection.unread, connection.unread_since = unread, now
        elif now - connection.unread_since > self.stall_s:
            self.refused["stalled"] += 1
            connection.abort()
            return
        if transport.is_closing():
            if connection.closing_since is None:
                connection.closing_since = now
            elif now - connection.closing_since > limits.CLOSE_S:
                connection.abort()
            return
        if connection.served is not None and connection.served.overdue(now):
            self.refused["overdue"] += 1
            connection.served.expire()

    def _is_bounded(self, address: str | None) -> bool:
        return address is not None and not is_loopback(address) and not self._hosts.trusts(address)


class Config(uvicorn.Config):
    """uvicorn's configuration, which both protocols get, with the connections."""

    connections: Connections


class TlsListener:
    """Accepts connections on a listening socket, and hands them to the HTTP protocol when their TLS handshake is done.

    A server of asyncio would admit a connection after its handshake, which a client may never finish. And
    `loop.start_tls` on a connection that has been accepted can come too late: the loop may have read the client's first
    bytes already.
    """

    def __init__(
        self,
        connections: Connections,
        listening: socket.socket,
        context: Callable[[], ssl.SSLContext],
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        """`context` is asked for each connection. `listening` is closed by its owner, after `close`."""
        self._connections, self._context, self._make = connections, context, make
        self._handshakes: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept(listening))

    def close(self) -> None:
        """Accepts no more connections, and ends handshakes that are not done."""
        for task in (self._task, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Returns when the tasks have ended, after `close`."""
        await asyncio.wait((self._task, *self._handshakes))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:  # no file descriptor is left, or the client has left
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("cannot accept connections", extra={"error": str(error)})
                    await asyncio.sleep(_LOOK_S)
                continue
            task = loop.create_task(self._secure(accepted, peer))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _secure(self, accepted: socket.socket, peer: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        arriving = cast("asyncio.Transport", _Arriving(accepted, peer, task))
        if self._connections.admit(arriving) is not None:
            accepted.close()  # an answer would take a handshake
            return
        self._connections.idle(arriving)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Secured(self._connections, arriving, self._make),
                accepted,
                ssl=self._context(),
                ssl_handshake_timeout=self._connections.head_s,
            )
        except (OSError, ssl.SSLError):  # plain HTTP, a scanner, or a client that left
            pass
        finally:
            self._connections.remove(arriving)  # unless the handshake is done: then it is not there


class _Arriving:
    """A connection until its TLS handshake is done, with what Connections uses of a transport."""

    def __init__(self, accepted: socket.socket, peer: object, task: asyncio.Task[None]) -> None:
        self._info = {"socket": accepted, "peername": peer}
        self._task = task

    def get_extra_info(self, name: str) -> object:
        return self._info.get(name)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._task.cancel()


class _Secured(asyncio.Protocol):
    """Puts the HTTP protocol in its own place when the handshake is done."""

    def __init__(
        self, connections: Connections, arriving: asyncio.Transport, make: Callable[[], asyncio.Protocol]
    ) -> None:
        self._connections, self._arriving, self._make = connections, arriving, make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = cast("asyncio.Transport", transport)  # uvloop's have no common base with asyncio's
        self._connections.replace(self._arriving, tls)
        protocol = self._make()
        tls.set_protocol(protocol)
        protocol.connection_made(tls)


def _connections_max(wanted: int) -> int:
    """As many connections as wanted, or as there are file descriptors for, two for each. Raises the soft limit.

    Raises VecError `invalid_settings` if there are too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + limits.HTTP_OWN_DESCRIPTORS
    if soft < needed:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(wanted, (soft - limits.HTTP_OWN_DESCRIPTORS) // 2)
    if count < 1:
        raise VecError(
            Code.SETTINGS,
            f"the gateway may open {soft} files and needs {limits.HTTP_OWN_DESCRIPTORS}, and two for each connection",
            "raise the limit (ulimit -n)",
        )
    return count
