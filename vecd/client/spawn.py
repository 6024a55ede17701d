"""Start a daemon when none runs.

Rules: of many callers, one takes a lock file and starts the daemon; the others wait for the lock and then find that
daemon. A pipe reports that the daemon is ready, without polling. If it does not start, the error has the end of its
log. The daemon starts with a process state of its own (process.py). Every wait has a bound, and one that a person may
notice is reported. `subprocess` is slow to import, so only a start imports it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .. import limits
from ..data_lock import holder, open_lock
from ..errors import Code, VecError
from ..process import default_stack_size, environment_for_daemon
from ..settings import Settings, private_folder
from .discovery import connect_socket, find_daemon

#: Called with a sentence when a wait takes long.
Notice = Callable[[str], None]

T = TypeVar("T")

_LOG_TAIL_BYTES = 2_000
_LOOK_S = 0.03


def spawn_daemon(settings: Settings, notice: Notice = lambda text: None) -> socket.socket:
    """Starts a daemon for these settings unless another process is already doing so; returns a connected socket.

    Raises VecError `daemon_failed` with what the daemon said; `busy` if another process keeps the start-up lock or the
    data; `invalid_settings` for folders that cannot be used; and what `find_daemon` raises.
    """
    for folder in (settings.runtime, settings.data, settings.log.parent):
        private_folder(folder)
    path = settings.runtime / "launch.lock"
    lock = open_lock(path)
    try:
        bound_s = limits.LAUNCH_S + limits.START_S
        got = _until(
            lambda: _locked(lock) or connect_socket(settings), bound_s, notice, f"another vec that has locked {path}"
        )
        if isinstance(got, socket.socket):
            return got
        if got is None:
            raise VecError(
                Code.BUSY,
                f"another process has locked {path} for more than {bound_s:g} s, and no daemon is ready",
                f"find it with `fuser {path}`, and stop it",
            )
        return _find_or_start(settings, notice)
    finally:
        os.close(lock)


def _find_or_start(settings: Settings, notice: Notice) -> socket.socket:
    """With the start-up lock held: no other vec starts a daemon now, but one may be starting or stopping by itself."""
    while True:
        if (sock := find_daemon(settings)) is not None:
            return sock
        held = holder(settings)
        if held is None:
            break
        who = f"the daemon, process {held.pid}, which is {held.state or 'starting'}"
        got = _until(lambda: connect_socket(settings) or holder(settings) is None, limits.LAUNCH_S, notice, who)
        if isinstance(got, socket.socket):
            return got
        if not got:
            raise VecError(Code.BUSY, f"waited {limits.LAUNCH_S:g} s for {who}", f"its log is {settings.log}")
    _start(settings)
    sock = connect_socket(settings)
    if sock is None:
        raise VecError(Code.DAEMON_FAILED, f"vecd reports that it is ready, but does not listen on {settings.socket}")
    return sock


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(reached: Callable[[], T], patience_s: float, notice: Notice, what: str) -> T | None:
    """Waits until `reached` returns something true, and returns that; None after `patience_s` seconds."""
    began, noticed = time.monotonic(), False
    while not (found := reached()):
        waited_s = time.monotonic() - began
        if waited_s > patience_s:
            return None
        if waited_s > limits.NOTICE_S and not noticed:
            notice(f"waiting for {what}")
            noticed = True
        time.sleep(_LOOK_S)
    return found


def _start(settings: Settings) -> None:
    import subprocess

    read_end, write_end = os.pipe()
    log_from = settings.log.stat().st_size if settings.log.exists() else 0
    command = [sys.executable, "-P", "-m", "vecd", "--fresh", "--detach"]
    command += ["--socket", str(settings.socket), "--log-file", str(settings.log), "--ready-fd", str(write_end)]
    try:
        with open(settings.log, "ab", opener=_private) as log, default_stack_size():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(write_end,),
                start_new_session=True,  # a Ctrl-C at our terminal must not end it
                env=_environment(settings),
            )
    except OSError as error:
        os.close(read_end)
        raise VecError(Code.DAEMON_FAILED, f"cannot start vecd: {error}") from error
    finally:
        os.close(write_end)
    try:
        said = _await_ready(read_end, limits.START_S)
    finally:
        os.close(read_end)
    if said == b"ready":
        process.wait()  # the daemon runs in another process by now, which is no child of ours
        return
    if said is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # the daemon too: it is in the same process group
        process.wait()
        reason = f"vecd was not ready within {limits.START_S:g} s"
    else:
        reason = f"vecd did not start (exit status {process.wait()})"
    # On a full disk there may be no log.
    why = _tail(settings.log, log_from) or (f": {said.decode('utf-8', 'replace')}" if said else "")
    raise VecError(Code.DAEMON_FAILED, reason + why, f"its log is {settings.log}")


def _private(path: str, flags: int) -> int:
    """A file that only its user may read; vecd opens it again, so the umask must not take that away."""
    before = os.umask(0o077)
    try:
        return os.open(path, flags, 0o600)
    finally:
        os.umask(before)


def _environment(settings: Settings) -> dict[str, str]:
    """The daemon's environment: part of ours, with an absolute VEC_HOME."""
    env = environment_for_daemon(os.environ)
    if settings.home is not None:
        env["VEC_HOME"] = str(settings.home)
    return env


def _await_ready(fd: int, patience_s: float) -> bytes | None:
    """What the daemon wrote before it closed the pipe: `ready`, or why it does not start; None if time ran out."""
    deadline, said = time.monotonic() + patience_s, b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            piece = os.read(fd, 64)
            if not piece:
                return said
            said += piece
    return None


def _tail(log: Path, start: int) -> str:
    """The end of what was logged since `start`, indented, for an error message."""
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return "; it said:\n  " + "\n  ".join(text.splitlines()) + "\n" if text else ""
