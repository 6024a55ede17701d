"""Runs one server for as long as somebody uses it: `python keeper.py LOCK COMMAND…`.

A user of the server holds a shared lock on the file LOCK. When nobody holds it any more, whether they closed it or were
killed, the keeper ends the server and all processes that the server left behind (RabbitMQ's epmd is one), and empties
the file. It prints the server's pid, and exits with the server's status. It is a script that loads nothing of the
project.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds that a server may take to end after SIGTERM.
_GRACE_S = 10.0


def _become_subreaper() -> None:
    """Orphans of the server become children of this process."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux they are left
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stop_when_unused(lock: str, server: subprocess.Popen[bytes]) -> None:
    try:
        fd = os.open(lock, os.O_RDWR)
    except FileNotFoundError:  # with its folder: nobody uses it
        fd = None
    if fd is not None:
        fcntl.flock(fd, fcntl.LOCK_EX)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGCONT)
        os.killpg(server.pid, signal.SIGTERM)
    threading.Event().wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def _kill_orphans() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (left := children.read_text().split()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(pid), 0)


def main() -> int:
    lock, *command = sys.argv[1:]
    _become_subreaper()
    server = subprocess.Popen(command, stdout=2, start_new_session=True)
    print(server.pid, flush=True)
    threading.Thread(target=_stop_when_unused, args=(lock, server), daemon=True).start()
    status = server.wait()
    _kill_orphans()
    with contextlib.suppress(FileNotFoundError):
        os.truncate(lock, 0)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
