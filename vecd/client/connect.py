"""Connect to the daemon: through its Unix socket, and start it if it does not run; or through a gateway, by URL."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Code, VecError
from ..settings import Settings, load, locate
from .client import Client
from .discovery import find_daemon

if TYPE_CHECKING:
    from .spawn import Notice


def connect(
    address: str | os.PathLike[str] | None = None,
    *,
    spawn: bool = True,
    timeout_s: float | None = None,
    notice: Notice = lambda text: None,
    key: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
) -> Client:
    """A connection to the daemon on the socket `address`, which is started if none answers and `spawn` is true; or, if
    `address` is a URL (`wss://host`), to the daemon behind the gateway there.

    Without an `address`, VEC_CONNECT in the environment is the URL, or else VEC_SOCKET the socket. `timeout_s` bounds
    the wait for each answer (None: as long as the daemon is at work). VEC_NO_SPAWN=1 in the environment forbids
    starting. `notice` is called with a sentence when the start takes long, and about a key that is sent unencrypted.

    For a gateway: `key` is an API key, by default that of VEC_KEY, or in the file VEC_KEY_FILE; `ca_file` has the
    certificates to trust instead of the system's, by default those in VEC_CA_FILE.

    Raises VecError `no_daemon`, `daemon_failed`, `version_mismatch`, `unauthorized`, `forbidden`, `invalid_settings`,
    `stalled` or `busy`.
    """
    named = os.fspath(address) if address is not None else None
    if (url := gateway_url(named)) is not None:
        return _connect_gateway(url, timeout_s, notice, key, ca_file)
    settings = locate(socket=named)
    sock = find_daemon(settings)
    spawns = spawn and may_spawn()
    data = data_of(settings)
    if sock is not None:
        try:
            return Client(sock, timeout_s=timeout_s, data=data)
        except VecError as error:
            if error.code != Code.CONNECTION_LOST:
                raise
            # The daemon died after it had accepted the connection: there is none now, or another one.
            if not spawns and (sock := find_daemon(settings)) is not None:
                return Client(sock, timeout_s=timeout_s, data=data)
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
    from .spawn import spawn_daemon

    return spawn_daemon(settings, notice)


def gateway_url(address: str | None = None) -> str | None:
    """The URL of the gateway that `connect(address)` would use; None if it would use a Unix socket."""
    if address is not None:
        return address if "://" in address else None
    return os.environ.get("VEC_CONNECT") or None


def _connect_gateway(
    url: str, timeout_s: float | None, notice: Notice, key: str | None, ca_file: str | os.PathLike[str] | None
) -> Client:
    from .websocket import Address, WebSocketTransport, checked_key, read_key

    env = os.environ
    if key is not None:
        key = checked_key(key, "the argument key")
    elif env.get("VEC_KEY"):
        key = checked_key(env["VEC_KEY"], "VEC_KEY")
    elif env.get("VEC_KEY_FILE"):
        key = read_key(env["VEC_KEY_FILE"])
    trusted = os.fspath(ca_file) if ca_file is not None else env.get("VEC_CA_FILE")
    gateway = Address.of(url, key, trusted or None)
    if key is not None and not gateway.secure and not gateway.is_loopback:
        notice(f"the key is sent unencrypted to {gateway.url}; use wss://, or a tunnel")
    return Client(WebSocketTransport(gateway), timeout_s=timeout_s)
