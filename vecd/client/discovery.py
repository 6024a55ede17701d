"""Find the daemon of a home, and connect to its socket.

Rules: no wait here is without a bound, because a stopped daemon neither accepts nor answers. Nothing is sent before the
kernel has said that the other end is our own user, or root: another user may have made the socket's folder first.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from .. import limits
from ..data_lock import READY, Holder, holder
from ..errors import Code, VecError
from ..process import is_stopped
from ..settings import Settings, check_folder
from ..unixsocket import bound_waits, is_listening, peer_pid, peer_uid

_LOOK_S = 0.05


def find_daemon(settings: Settings) -> socket.socket | None:
    """A connected socket, or None if no daemon is ready for these settings.

    A daemon that has this home's data is found by its lock, wherever it listens, unless the caller named another
    socket. One whose socket file was removed binds again within a second or so; `find_daemon` waits for that.

    Raises VecError `no_daemon` if the daemon that has the data does not listen where it should; `stalled` if it is
    stopped; and what `connect_socket` raises.
    """
    deadline = time.monotonic() + limits.REBIND_S
    while (sock := connect_socket(settings)) is None:
        held = holder(settings)
        if held is None or held.pid is None or held.state not in ("", READY):
            return None
        elsewhere = held.socket != os.fspath(settings.socket) and is_listening(held.socket)
        if elsewhere and not settings.named:
            return connect_socket(settings._replace(socket=Path(held.socket)))
        if elsewhere or time.monotonic() > deadline:
            raise _not_there(settings, held, elsewhere)
        time.sleep(_LOOK_S)
    return sock


def _not_there(settings: Settings, held: Holder, elsewhere: bool) -> VecError:
    what = f"no daemon listens on {settings.socket}, and the data folder {settings.data} is in use by vecd with pid"
    if elsewhere:
        return VecError(
            Code.NO_DAEMON,
            f"{what} {held.pid}, on {held.socket}",
            "use that daemon's socket (VEC_SOCKET or --socket), or stop it",
        )
    if held.pid is not None and is_stopped(held.pid):
        return stalled_error(held.pid, limits.REBIND_S)
    return VecError(Code.NO_DAEMON, f"{what} {held.pid}, whose socket was removed", "stop it: vec daemon stop")


def connect_socket(settings: Settings) -> socket.socket | None:
    """A connected socket, or None if no process listens there.

    Raises VecError `invalid_settings` if another user owns the socket's folder or may write to it; `forbidden` if the
    daemon is another user's; `stalled` if it accepts no connection; `no_daemon` for any other error.
    """
    if settings.socket.parent == settings.runtime:
        check_folder(settings.runtime)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound_waits(sock, limits.DIAL_S)
        sock.connect(os.fspath(settings.socket))
        if (uid := peer_uid(sock)) not in (os.getuid(), 0):
            raise VecError(
                Code.FORBIDDEN,
                f"the daemon on {settings.socket} belongs to user {uid}, and you are user {os.getuid()}",
                "set VEC_HOME to a folder of your own, or set VEC_SOCKET to the socket of your daemon",
            )
        bound_waits(sock, 0)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BlockingIOError:  # a Unix socket's queue is full
        sock.close()
        held = holder(settings)
        raise stalled_error(held.pid if held else None, limits.DIAL_S) from None
    except OSError as error:
        sock.close()
        raise VecError(Code.NO_DAEMON, f"cannot connect to {settings.socket} ({error.strerror})") from error
    except BaseException:
        sock.close()
        raise
    return sock


def is_serving(sock: socket.socket, hello: bytes, patience_s: float) -> bool:
    """Whether the daemon at the other end of a silent connection is still at work.

    It is not if its process is stopped, or if a second connection, which says `hello`, gets no byte of an answer within
    `patience_s` seconds. If that is unknown, it counts as true: the kernel reports a process that has ended.
    """
    try:
        address = sock.getpeername()
    except OSError:
        return True
    return is_answering(address, peer_pid(sock), hello, patience_s)


def is_answering(address: str | bytes, pid: int | None, hello: bytes, patience_s: float) -> bool:
    """The same for the daemon with this pid (None: unknown) that listens on this Unix socket."""
    if pid is not None and is_stopped(pid):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as second:
        try:
            bound_waits(second, patience_s)
            second.connect(address)
            second.sendall(hello)
            second.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def stalled_error(pid: int | None, silence_s: float) -> VecError:
    """The error for a daemon that does not answer."""
    who = f"the daemon, process {pid}," if pid else "the daemon"
    if pid and is_stopped(pid):
        return VecError(Code.STALLED, f"{who} is stopped", f"resume it with `kill -CONT {pid}`")
    return VecError(
        Code.STALLED,
        f"{who} has not answered for {silence_s:g} s",
        "see `vec daemon logs`; stop it with `vec daemon stop`",
    )
