"""Starting a daemon when none answers.

Rules: a lock file lets one of many callers start the daemon while the others wait for the lock and then simply find
it; a pipe tells the caller that the daemon is ready, so that nobody polls; when it does not come up, the error carries
the end of its log. `subprocess` is slow to import, so only a start does.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import time
from pathlib import Path

from . import limits
from .dial import dial
from .errors import Code, VecError
from .settings import Settings, private_folder

_LOG_TAIL_BYTES = 2_000


def launch(settings: Settings) -> socket.socket:
    """Starts a daemon for these settings unless somebody else is at it; returns a connected socket.

    Raises VecError `daemon_failed` with what the daemon said, or `invalid_settings` for folders that cannot be used.
    """
    for folder in (settings.runtime, settings.data, settings.log.parent):
        private_folder(folder)
    with open(settings.runtime / "launch.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever held the lock before us has probably started it.
        sock = dial(settings)
        if sock is None:
            _start(settings)
            sock = dial(settings)
    if sock is None:
        raise VecError(Code.DAEMON_FAILED, f"vecd says it is ready, but nobody listens on {settings.socket}")
    return sock


def _start(settings: Settings) -> None:
    import subprocess

    read_end, write_end = os.pipe()
    log_from = settings.log.stat().st_size if settings.log.exists() else 0
    command = [sys.executable, "-P", "-m", "vecd"]
    command += ["--socket", str(settings.socket), "--log-file", str(settings.log), "--ready-fd", str(write_end)]
    try:
        with open(settings.log, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(write_end,),
                start_new_session=True,  # a Ctrl-C at our terminal is not meant for it
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
        process.returncode = 0  # it outlives us on purpose; keeps Popen from warning about a running child
        return
    if said is None:
        process.terminate()
        reason = f"vecd was not ready within {limits.START_S:g} s"
    else:
        reason = f"vecd did not start (exit status {process.wait()})"
    raise VecError(Code.DAEMON_FAILED, reason + _tail(settings.log, log_from), f"its log is {settings.log}")


def _environment(settings: Settings) -> dict[str, str]:
    """Ours, but for what a service manager told us about ourselves, and with VEC_HOME absolute."""
    env = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET" and not key.startswith("LISTEN_")}
    if settings.home is not None:
        env["VEC_HOME"] = str(settings.home)
    return env


def _await_ready(fd: int, patience_s: float) -> bytes | None:
    """What the daemon wrote before it closed the pipe; None if time ran out."""
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
