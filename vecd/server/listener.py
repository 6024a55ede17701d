"""Listener: the listening Unix socket and the sessions of all its connections.

Rules: bind, chmod 0600, then listen, so that no one gets in between. A socket file on which no daemon answers is left
over and is replaced; one on which a daemon answers is not taken. A peer must be of our own user (or root): the kernel
says who it is. Programs that clear temporary folders remove the socket's file; then the listener binds again. Draining:
stop accepting, let every session answer what it was asked, close; within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import limits
from ..durable_files import file_id
from ..errors import Code, VecError
from ..ops.service import Service
from ..resources import own_descriptors
from ..settings import make_folder
from ..unixsocket import is_listening, peer_uid
from .frame_budget import FrameBudget
from .session import Session

log = logging.getLogger("vecd.listener")

_SYSTEMD_FIRST_FD = 3


def bind(path: str) -> socket.socket:
    """A socket bound to the path with mode 0600, not listening yet.

    Raises VecError `invalid_settings`, or `busy` if another daemon listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise VecError(Code.SETTINGS, f"{path} exists and is not a socket", "remove it, or use another path")
            if is_listening(path):
                raise VecError(Code.BUSY, f"another daemon listens on {path}", "stop it, or use another socket")
            os.unlink(path)
        make_folder(Path(path).parent)
        sock.bind(path)
        os.chmod(path, 0o600)
    except OSError as error:
        sock.close()
        raise VecError(Code.SETTINGS, f"cannot listen on {path} ({error.strerror or error})") from error
    except VecError:
        sock.close()
        raise
    return sock


def inherited() -> socket.socket | None:
    """The socket that systemd passed (sd_listen_fds(3)); None if it passed none."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sock = socket.socket(fileno=_SYSTEMD_FIRST_FD)
    os.set_inheritable(_SYSTEMD_FIRST_FD, False)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise VecError(Code.SETTINGS, "the socket that systemd passed is not a Unix stream socket", "see vecd.socket")
    return sock


class Listener:
    """Accepts connections and holds what they share."""

    def __init__(self, service: Service, sock: socket.socket, *, owned: bool = True) -> None:
        """`owned`: the socket's file is ours to remove, and not a service manager's."""
        self.service = service
        self.frames = FrameBudget(service.budget)
        service.budget.on_backlog_room.append(self._on_backlog_room)
        service.budget.on_unread_full.append(self._on_unread_full)
        self._sock = sock
        name = sock.getsockname()
        self.path: str = name if isinstance(name, str) else ""  # bytes: an abstract one, which has no file
        self._file = file_id(self.path)
        self._owned = owned
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._connections_max = min(
            limits.CONNECTIONS_MAX, descriptors - own_descriptors(service.engine.settings.workers)
        )
        self._sessions: set[Session] = set()
        self._empty = asyncio.Event()  # set when the last session has gone
        self._server: asyncio.Server
        self._sweeper: asyncio.Task[None]

    async def start(self) -> None:
        self._server = await self._listen(self._sock)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        # From 3.13 on, Python would remove the socket's file when it closes: also a service manager's.
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        return await asyncio.get_running_loop().create_unix_server(
            lambda: Session(self), sock=sock, backlog=limits.LISTEN_BACKLOG, **kept
        )

    async def keep_bound(self, data_in_place: Callable[[], bool]) -> None:
        """Binds again whenever the socket's file is gone or is another. Connections are not affected.

        Not if the data folder was removed too: then the user has removed the whole instance.
        """
        failed = ""  # what was logged last, so that it is logged once
        while self.path:
            await asyncio.sleep(limits.SOCKET_LOOK_S)
            if not data_in_place() or file_id(self.path) == self._file:
                continue
            try:
                sock = bind(self.path)
                before, self._server = self._server, await self._listen(sock)
            except (VecError, OSError) as error:
                if str(error) != failed:
                    log.error("the socket is gone, and cannot be bound again", extra={"error": str(error)})
                    failed = str(error)
                continue
            before.close()
            self._file, self._owned, failed = file_id(self.path), True, ""
            log.warning("the socket was removed, and is bound again", extra={"socket": self.path})

    def unbind(self) -> None:
        """Removes our socket, but not another one in its place."""
        if self._owned and self._file is not None and file_id(self.path) == self._file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def admit(self, session: Session) -> VecError | None:
        """Accepts a new session, or returns why it is refused."""
        sock = session._transport.get_extra_info("socket")
        uid = peer_uid(sock)
        if uid not in (os.getuid(), 0):
            return VecError(Code.FORBIDDEN, f"this daemon belongs to user {os.getuid()}, and you are user {uid}")
        if len(self._sessions) >= self._connections_max:
            return VecError(
                Code.BUSY,
                f"the daemon has reached its limit of {self._connections_max:,} connections",
                "try again later, or raise its limit of open files (ulimit -n)",
            )
        self._sessions.add(session)
        self.service.connections += 1
        self._empty.clear()
        return None

    def forget(self, session: Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            self.service.connections -= 1
        if not self._sessions:
            self._empty.set()

    def _on_backlog_room(self) -> None:
        self.frames.decode_next()
        for session in self._sessions:
            session.recheck_reading()

    def _on_unread_full(self) -> None:
        """Too many answers are unread, as counted when they were sent. If a recount confirms it, disconnects the
        sessions that hold most and read nothing for UNREAD_CROWDED_S."""
        self._update_unread(time.monotonic())
        if self.service.budget.unread_bytes > limits.UNREAD_BYTES_MAX:
            asyncio.get_running_loop().call_later(limits.UNREAD_CROWDED_S, self._disconnect_slowest)

    def _update_unread(self, now: float) -> None:
        for session in self._sessions:
            session.update_unread(now)

    def _disconnect_slowest(self) -> None:
        now = time.monotonic()
        self._update_unread(now)
        for session in sorted(self._sessions, key=lambda each: -each.unread_bytes):
            if self.service.budget.unread_bytes <= limits.UNREAD_BYTES_MAX:
                return
            if session.blocked_s(now) >= limits.UNREAD_CROWDED_S:
                message = f"{session.unread_bytes:,} bytes of answers are not read, and the daemon holds too many"
                session.disconnect(VecError(Code.STALLED, message, "read while you send"))
        if self.service.budget.unread_bytes > limits.UNREAD_BYTES_MAX:
            self._on_unread_full()

    async def drain(self, patience_s: float) -> None:
        """Ends all sessions: each when its requests are answered, at the latest after `patience_s` seconds."""
        self._sweeper.cancel()
        self._server.close()
        for session in list(self._sessions):
            session.drain()
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience_s)
        if self._sessions:
            log.warning("connections cut off", extra={"count": len(self._sessions)})
        for session in list(self._sessions):
            session.abort()
        await asyncio.sleep(0)
        self.frames.close()

    async def _sweep(self) -> None:
        """Disconnects stalled peers."""
        stall_s = self.service.engine.settings.stall_s
        while True:
            await asyncio.sleep(min(stall_s / 4, 5.0))
            now = time.monotonic()
            for session in list(self._sessions):
                if (reason := session.stall_reason(now, stall_s)) is not None:
                    session.disconnect(reason)
