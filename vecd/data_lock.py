"""The lock on the data folder: which daemon holds it, and whether that daemon is starting, ready or stopping.

Rules: a flock on `vecd.lock`, held as long as the daemon lives, decides which daemon owns the data; pid files may be
stale. Its content is information for other processes: `<pid> <socket>`, and on a second line the state. So a daemon can
be found when its socket file is gone. A lock file has mode 0600, because any process that can open it can hold it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import time
from pathlib import Path
from typing import Final, NamedTuple

from .errors import Code, VecError
from .settings import Settings

STARTING: Final = "starting"
READY: Final = "ready"
STOPPING: Final = "stopping"

_LOOK_S: Final = 0.02


class Holder(NamedTuple):
    """The daemon that holds a data folder, by what it wrote into its lock."""

    pid: int | None  # None in the moment before it is written
    socket: str
    state: str  # empty for a daemon of an older version


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, which only its owner may open. Raises VecError `invalid_settings`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise VecError(Code.SETTINGS, f"cannot open the lock {path} ({error.strerror})") from error
    about = os.fstat(fd)
    if about.st_uid == os.getuid() and stat.S_IMODE(about.st_mode) != 0o600:
        os.fchmod(fd, 0o600)
    return fd


def holder(settings: Settings) -> Holder | None:
    """The daemon that holds the data folder; None if there is none. Raises VecError `invalid_settings` if its lock
    cannot be read."""
    try:
        fd = os.open(settings.lock, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VecError(Code.SETTINGS, f"cannot open the lock {settings.lock} ({error.strerror})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    finally:
        os.close(fd)
    return None


def was_stopped(settings: Settings) -> bool:
    """Whether the last daemon that held the data folder had begun to stop: on purpose, or because its storage failed.
    False if it runs, was killed, or there was none."""
    try:
        fd = os.open(settings.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _read(fd).state == STOPPING
    finally:
        os.close(fd)


def _read(fd: int) -> Holder:
    lines = os.pread(fd, 4096, 0).decode("utf-8", "surrogateescape").split("\n")
    pid, _, socket = lines[0].partition(" ")
    return Holder(int(pid) if pid.isdecimal() else None, socket, lines[1].strip() if len(lines) > 1 else "")


def ask_to_stop(settings: Settings, held: Holder) -> bool:
    """Sends SIGTERM to the daemon that holds the data folder, and SIGCONT, without which a stopped one would not end.

    False if it is not certain which process that is: it may be one of another container.
    """
    if held.pid is None or not _has_open(held.pid, settings.lock):
        return False
    try:
        os.kill(held.pid, signal.SIGTERM)
        os.kill(held.pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        return False
    return True


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has this file open; true where the system does not say (other than Linux)."""
    folder = f"/proc/{pid}/fd"
    if not os.path.isdir("/proc/self/fd"):
        return True
    try:
        wanted = os.stat(path)
        for name in os.listdir(folder):
            try:
                found = os.stat(f"{folder}/{name}")
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:
        pass
    return False


def wait_until_free(settings: Settings, patience_s: float) -> bool:
    """Waits until no daemon holds the data folder; false if one still does after `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while holder(settings) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def folder_id(path: Path) -> str:
    """Identifies a folder, whatever the path to it. Raises OSError if there is none."""
    about = os.stat(path)
    return f"{about.st_dev}:{about.st_ino}"


class DataLock:
    """The lock in the daemon that holds it. Use as a context manager once it is taken."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.socket = os.fspath(settings.socket)  # a service manager may have passed another one
        self._fd = open_lock(settings.lock)
        about = os.fstat(self._fd)
        self._file = (about.st_dev, about.st_ino)
        self._missed = False

    def take(self) -> Holder | None:
        """Takes the lock and returns None; or returns the daemon that has it, without waiting."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(self._fd)
        self.tell(STARTING)
        return None

    def tell(self, state: str) -> None:
        """Writes our pid, socket and state. A reader never sees half of it: the text is one write, and all states are
        padded to one length."""
        first = f"{os.getpid()} {self.socket}\n".encode("utf-8", "surrogateescape")
        text = first + state.ljust(len(STARTING)).encode() + b"\n"
        with contextlib.suppress(OSError):  # as on a full disk: the lock holds without its text
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))

    def keep(self) -> bool:
        """Whether the lock's file is still where others look for it. Call it now and then: a file that was removed is
        made and locked again by the second call that misses it, as long as there is a store to protect.

        Raises VecError `busy` if another daemon holds the data folder meanwhile: two must not serve one store.
        """
        try:
            about = os.stat(self._settings.lock)
            in_place = (about.st_dev, about.st_ino) == self._file
        except OSError:
            in_place = False
        if in_place:
            self._missed = False
            return True
        if not self._settings.store.exists():
            return False  # the data folder was removed, and not the lock alone
        if not self._missed:  # or it is just being removed
            self._missed = True
            return False
        again = DataLock(self._settings)
        again.socket = self.socket
        if (other := again.take()) is not None:
            os.close(again._fd)
            raise VecError(
                Code.BUSY,
                f"the lock {self._settings.lock} was removed, and vecd with pid {other.pid or 'unknown'} has taken it",
                "the other daemon serves the data now; no acknowledged write is lost",
            )
        os.close(self._fd)
        self._fd, self._file, self._missed = again._fd, again._file, False
        self.tell(READY)
        return True

    def __enter__(self) -> DataLock:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
