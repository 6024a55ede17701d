"""Detects that the store's files were removed, replaced or overwritten, and that a folder has lost its store.

An open file outlives its name: after `rm`, or a rename onto it, SQLite continues to write to a file that can never be
opened again. So before the writer acknowledges a transaction, it compares device and inode of each name, which takes a
few microseconds. A copy over the file in place keeps both, but changes the header: that of a backup, an empty file or
another program's file differs from that of an open store in fields that no write of ours changes.

A folder that has held a store keeps a marker, `vec.id`, besides other files that only a daemon with a store creates.
If the store is missing from such a folder, the daemon does not create an empty one.

Knows paths and their status, not SQL.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from ..errors import Code, VecError

#: Bytes of SQLite's header that do not change while a store is open: the magic string, the page size, and the journal
#: mode (a backup has no write-ahead log).
_CONSTANT_BYTES: Final = 24


class FileIdentity:
    """The identity of the store's file, its write-ahead log and its shared memory. `open`, `check`, `close`. Only the
    writer uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = (os.fspath(path), f"{path}-wal", f"{path}-shm")
        # Stays open until SQLite's descriptors are closed: closing any one drops all POSIX locks of this process.
        self._fd = -1
        self._known: list[tuple[int, int]] = []
        self._modified_ns = 0
        self._header = b""

    def open(self) -> None:
        """Records the current files as the right ones. SQLite must have all three open. Raises VecError
        `storage_failed`."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise VecError(Code.STORAGE_FAILED, f"cannot read {self._path} ({error.strerror})") from error
        self._known = self._look()
        self._modified_ns = os.fstat(self._fd).st_mtime_ns
        self._header = self._read_header()

    def check(self) -> None:
        """Raises VecError `storage_failed` if a file was removed, replaced or overwritten."""
        if self._look() != self._known:
            raise self._lost("was removed or replaced")
        modified_ns = os.fstat(self._fd).st_mtime_ns
        if modified_ns != self._modified_ns:  # by a checkpoint, mostly
            if self._read_header() != self._header:
                raise self._lost("was overwritten")
            self._modified_ns = modified_ns

    def close(self) -> None:
        """Closes the descriptor. Call it after SQLite's connections are closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_header(self) -> bytes:
        return os.pread(self._fd, _CONSTANT_BYTES, 0)

    def _look(self) -> list[tuple[int, int]]:
        """Device and inode of each name."""
        try:
            return [(status.st_dev, status.st_ino) for status in map(os.stat, self._names)]
        except OSError as error:
            raise self._lost("was removed or replaced") from error

    def _lost(self, what: str) -> VecError:
        return VecError(
            Code.STORAGE_FAILED,
            f"the store {self._path} {what} while vecd had it open; nothing more is written",
            "put the files back, or restore a backup: vec restore FILE",
        )


def marker(path: Path) -> Path:
    """The marker file: it shows that the store at `path` was created once."""
    return path.with_name("vec.id")


def mark(path: Path, log_id: str) -> None:
    """Writes the marker of the store, with its log id for people to read. Raises OSError."""
    text = f"{log_id}\n"
    file = marker(path)
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if file.read_text("ascii") == text:
            return
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as made:
        made.write(text)
        made.flush()
        os.fsync(made.fileno())


def refuse_loss(path: Path) -> None:
    """Raises VecError `storage_failed` if the store is missing or empty, but the folder has held one."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:
            return
    if not (found := evidence(path)):
        return
    raise VecError(
        Code.STORAGE_FAILED,
        f"the store {path} is {'empty' if path.exists() else 'missing'}, and {path.parent} has held one: there is"
        f" {found}",
        f"restore a backup: vec restore FILE; or, to begin with an empty store: mv {path.parent} {path.parent}.old",
    )


def evidence(path: Path) -> str:
    """The files that show that there was a store at `path`, for people to read; empty if there are none."""
    folder = path.parent
    signs = (marker(path), Path(f"{path}-wal"), folder / "reserve", folder / "indexes", folder / "spool")
    return ", ".join(sign.name for sign in signs if _says_something(sign))


def _says_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except FileNotFoundError:
        return False
