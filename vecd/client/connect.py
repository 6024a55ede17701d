"""Connect to the daemon, and start it if it does not run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..errors import Code, VecError
from ..settings import Settings, load, locate
from .client import Client
from .discovery import find_daemon
from .spawn import Notice, spawn_daemon


def connect(
    socket_path: str | os.PathLike[str] | None = None,
    *,
    spawn: bool = True,
    timeout_s: float | None = None,
    notice: Notice = lambda text: None,
) -> Client:
    """A connection to the daemon, which is started if none answers and `spawn` is true.

    `timeout_s` bounds the wait for each answer (None: as long as the daemon is at work). VEC_NO_SPAWN=1 in the
    environment forbids starting. `notice` is called with a sentence when the start takes long.
    Raises VecError `no_daemon`, `daemon_failed`, `version_mismatch`, `forbidden`, `invalid_settings`, `stalled` or
    `busy`.
    """
    named = os.fspath(socket_path) if socket_path is not None else None
    settings = locate(socket=named)
    sock = find_daemon(settings)
    spawns = spawn and may_spawn()
    data = data_of(settings)
    if sock is not None:
        try:
            return Client(sock, timeout_s=timeout_s, data=data)
        except VecError as error:
            if error.code != Code.CONNECTION_LOST or not spawns:
                raise  # otherwise the daemon died after it had accepted the connection
    load(socket=named)  # what a daemon would refuse is said here, and not in its log
    return Client(start(settings, spawns, notice), timeout_s=timeout_s, data=data)


def may_spawn() -> bool:
    """Whether the environment lets a client start a daemon."""
    return os.environ.get("VEC_NO_SPAWN", "") in ("", "0")


def data_of(settings: Settings) -> Path | None:
    """The data folder that the daemon on the instance's socket must serve; None if a socket was named: then any."""
    return None if settings.named else settings.data


def start(settings: Settings, spawns: bool, notice: Notice = lambda text: None) -> socket.socket:
    """A socket connected to a daemon that is started now. Raises VecError `no_daemon` unless `spawns`."""
    if not spawns:
        raise VecError(
            Code.NO_DAEMON,
            f"no daemon listens on {settings.socket}",
            "start it with `vec daemon start`, or remove --no-spawn and VEC_NO_SPAWN",
        )
    return spawn_daemon(settings, notice)
