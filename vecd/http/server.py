"""Serves the application: its own sockets and signals around uvicorn, and an orderly end.

Rules: a socket is bound before the daemon is asked for anything, and listens when the application is ready. At the end
no connection is accepted any more, requests that have been received are answered, and streams send their last event,
within `drain_s`; only then uvicorn is asked to exit, which would cut WebSockets off. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from .. import limits
from ..errors import Code, VecError
from ..logs import ReopeningHandler
from ..settings import Settings
from ..unixsocket import is_listening
from .access import Access
from .app import make_app
from .connections import Config, Connections, TlsListener
from .daemon_pool import DaemonPool
from .fan_out import FanOut
from .gateway import Gateway
from .hosts import Hosts
from .http_protocol import HttpProtocol
from .keys import KeyFile
from .settings import DEFAULT_LISTEN, Address, HttpSettings, parse_address
from .table import ENDPOINTS
from .tls import Certificate
from .websocket_protocol import WebSocketProtocol

_LOOK_S = 0.02


def run(
    settings: Settings,
    http: HttpSettings,
    *,
    spawn: bool = True,
    ready: Callable[[Sequence[str]], None] = lambda urls: None,
    lifeline: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, or until the descriptor `lifeline` ends. Calls `ready` with the URLs of all
    listeners. Raises VecError if it cannot begin."""
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        new_event_loop = importlib.import_module("uvloop").new_event_loop
    addresses = http.listen or (parse_address(DEFAULT_LISTEN, "the default"),)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_bound(each)) for each in addresses]
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_event_loop))
        runner.run(_serve(settings, http, addresses, sockets, spawn, ready, lifeline))


@contextlib.contextmanager
def _bound(address: Address) -> Iterator[socket.socket]:
    """A socket bound to the address, not listening yet. Raises VecError `invalid_settings` or `busy`."""
    made: socket.socket | None = None
    try:
        if address.path:
            _clear(address.path)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.bind(address.path)
            os.chmod(address.path, 0o600)
        else:
            family, kind, proto, _, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            made = socket.socket(family, kind, proto)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
    except OSError as error:
        if made is not None:
            made.close()
        raise _not_bound(address, error) from error
    made.setblocking(False)
    try:
        yield made
    finally:
        made.close()
        if address.path:
            with contextlib.suppress(OSError):
                os.unlink(address.path)


def _not_bound(address: Address, error: OSError) -> VecError:
    hint = "use another address: --listen, or listen in the table [http] of config.toml"
    if error.errno == errno.EADDRINUSE:
        hint = f"another process listens there, maybe the gateway that vecd runs: see `vec status`. Stop it, or {hint}"
    return VecError(Code.SETTINGS, f"cannot listen on {address.url()} ({error.strerror or error})", hint)


def _clear(path: str) -> None:
    """Removes a socket file on which no process listens. Raises VecError, OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise VecError(Code.SETTINGS, f"{path} exists and is not a socket", "remove it, or use another path")
        if is_listening(path):
            raise VecError(Code.BUSY, f"another process listens on {path}", "stop it, or use another path")
        os.unlink(path)


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers, on our sockets: those of the Unix domain have no TLS."""

    config: Config

    def __init__(self, config: Config, certificate: Certificate | None) -> None:
        super().__init__(config)
        self._certificate = certificate
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()

        def protocol() -> HttpProtocol:
            return HttpProtocol(self.config, self.server_state, self.lifespan.state)

        servers: list[Any] = []
        backlog = self.config.backlog
        for each in sockets or ():
            if each.family == socket.AF_UNIX:
                servers.append(await loop.create_unix_server(protocol, sock=each, backlog=backlog))
            elif self._certificate is None:
                servers.append(await loop.create_server(protocol, sock=each, backlog=backlog))
            else:
                each.listen(backlog)
                servers.append(TlsListener(self.config.connections, each, self._certificate.context, protocol))
        self.servers = servers
        self.started = True
        self.listening.set()

    async def end_streams(self, drain_s: float) -> None:
        """Accepts no more connections and no more requests, and waits until what has been received is answered."""
        for server in self.servers:
            server.close()
        deadline = asyncio.get_running_loop().time() + drain_s
        while asyncio.get_running_loop().time() < deadline:
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.shutdown()  # one that is idle closes; another closes when it has answered
            if not self.server_state.tasks:
                break
            await asyncio.sleep(_LOOK_S)


async def _serve(
    settings: Settings,
    http: HttpSettings,
    addresses: Sequence[Address],
    sockets: list[socket.socket],
    spawn: bool,
    ready: Callable[[Sequence[str]], None],
    lifeline: int | None,
) -> None:
    loop = asyncio.get_running_loop()
    hosts = Hosts(http.allow_hosts, http.allow_origins, http.trusted_proxies)
    access = Access(KeyFile.of(settings), hosts, http.requests_per_key)
    access.check_start((each.url(), each.loopback) for each in addresses)
    pool = DaemonPool(settings, spawn=spawn)
    gateway = Gateway(settings, http, pool, FanOut(pool, settings), access, ENDPOINTS)
    await gateway.pool.request("ping")
    certificate = Certificate(http.tls_cert, http.tls_key) if http.tls_cert or http.tls_key else None
    connections = Connections(hosts, http, settings.stall_s)
    server = _Server(_config(gateway, connections), certificate)

    def stop() -> None:
        if gateway.stopping.is_set():
            server.force_exit = server.should_exit = True
        gateway.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if not sys.stderr.isatty():  # at a terminal, it means that the terminal is gone
        loop.add_signal_handler(signal.SIGHUP, _hang_up, certificate)
    if lifeline is not None:
        loop.add_reader(lifeline, stop)
    watching = [loop.create_task(each.watch()) for each in (access, connections, certificate) if each is not None]
    serving = loop.create_task(server.serve(sockets))
    await _first(serving, server.listening.wait())
    if serving.done():
        await serving
        return
    ready([_url(address, sock, certificate is not None) for address, sock in zip(addresses, sockets, strict=True)])
    await _first(serving, gateway.stopping.wait())
    if lifeline is not None:
        loop.remove_reader(lifeline)
    gateway.fan_out.stop()
    if not serving.done():
        await server.end_streams(settings.drain_s)
        server.should_exit = True
    await serving
    for task in watching:
        task.cancel()
    await gateway.fan_out.close()
    await gateway.pool.close()


async def _first(task: asyncio.Task[None], other: Coroutine[Any, Any, Any]) -> None:
    """Waits until one of the two is done."""
    waiting = asyncio.ensure_future(other)
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _url(address: Address, sock: socket.socket, tls: bool) -> str:
    real = address if address.path else replace(address, port=sock.getsockname()[1])
    return real.url("https" if tls else "http")


def _hang_up(certificate: Certificate | None) -> None:
    """Reopens the log, which another program may have moved, and reads a new certificate."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ReopeningHandler):
            handler.reopen()
    if certificate is not None:
        certificate.reload()


def _config(gateway: Gateway, connections: Connections) -> Config:
    config = Config(
        make_app(gateway),
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=limits.FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        # Keeps proxies from closing a silent connection. A late answer ends nothing: it waits behind what a slow reader
        # has not read yet.
        ws_ping_interval=limits.WEBSOCKET_PING_S,
        ws_ping_timeout=None,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=limits.LISTEN_BACKLOG,
        timeout_keep_alive=limits.HTTP_IDLE_S,
        timeout_graceful_shutdown=limits.HTTP_CLOSE_S,
    )
    config.connections = connections
    return config
