"""Unix sockets: whether a process listens on one, which process and user is at its other end, and bounded waits.

Shared by the client and the daemon.
"""

from __future__ import annotations

import socket
import struct
import sys

_LOCAL_PEERCRED, _SOL_LOCAL = 1, 0  # <sys/un.h> of macOS and the BSDs; Python does not name them
_XUCRED = struct.Struct("=II")  # cr_version, cr_uid, …
_TIMEVAL = struct.Struct("@ll")


def is_listening(path: str) -> bool:
    """Whether somebody listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # its queue is full
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
    """The process at the other end, where the kernel knows it. For a socket that a service manager listens on, in the
    client: that manager."""
    if sys.platform == "linux":
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid) or None
    return None


def bound_reads(sock: socket.socket, seconds: float) -> None:
    """A blocking read that gets nothing for so long raises BlockingIOError (0: no bound). One system call a read still
    does, where Python's own timeouts take two."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def bound_waits(sock: socket.socket, seconds: float) -> None:
    """The same for reads, writes, and the wait for room in the other end's queue of connections."""
    bound_reads(sock, seconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
