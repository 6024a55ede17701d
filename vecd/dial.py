"""Reaching a daemon's socket, and knowing who is at the other end. Shared by the client and the daemon."""

from __future__ import annotations

import os
import socket
import struct
import sys

from .errors import Code, VecError
from .settings import Settings, check_folder

_LOCAL_PEERCRED, _SOL_LOCAL = 1, 0  # <sys/un.h> of macOS and the BSDs; Python does not name them
_XUCRED = struct.Struct("=II")  # cr_version, cr_uid, …


def dial(settings: Settings) -> socket.socket | None:
    """A connected socket, or None if nobody listens there.

    Raises VecError `invalid_settings` if the folder that nobody named is somebody else's, who might want our documents;
    `no_daemon` for any other trouble.
    """
    if settings.home is None and settings.socket.parent == settings.runtime:
        check_folder(settings.runtime)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(os.fspath(settings.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise VecError(Code.NO_DAEMON, f"cannot connect to {settings.socket} ({error.strerror})") from error
    return sock


def answers(path: str) -> bool:
    """Whether somebody listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    if sys.platform == "linux":
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)
    _, uid = _XUCRED.unpack_from(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76))
    return int(uid)


def peer_pid(sock: socket.socket) -> int | None:
    """The process at the other end, where the kernel knows it."""
    if sys.platform == "linux":
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
    return None
