"""Connect to the daemon, and start it if it does not run."""

from __future__ import annotations

import os

from ..errors import Code, VecError
from ..settings import load, locate
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
    spawns = spawn and os.environ.get("VEC_NO_SPAWN", "") in ("", "0")
    data = None if settings.named else settings.data
    if sock is not None:
        try:
            return Client(sock, timeout_s=timeout_s, data=data)
        except VecError as error:
            if error.code != Code.CONNECTION_LOST or not spawns:
                raise  # otherwise the daemon died after it had accepted the connection
    load(socket=named)  # what a daemon would refuse is said here, and not in its log
    if not spawns:
        raise VecError(
            Code.NO_DAEMON,
            f"no daemon listens on {settings.socket}",
            "start it with `vec daemon start`, or remove --no-spawn and VEC_NO_SPAWN",
        )
    return Client(spawn_daemon(settings, notice), timeout_s=timeout_s, data=data)
