"""Detects that the store's files were removed, replaced or overwritten, and that a folder has lost its store.

An open file outlives its name: after `rm`, or a rename onto it, SQLite continues to write to a file that can never be
opened again. So before the writer acknowledges a transaction, it compares device and inode of each name, which takes a
few microseconds. A copy over the file in place keeps both, but changes the header: that of a backup, an empty file or
another program's file differs from that of an open store in fields that no write of ours changes. A write-ahead log
that is truncated in place keeps both too, and SQLite writes on after the gap. It shows in the headers of two frames:
the last one, and the one that was last at the previous check. They have the log's salt, and a gap has zeros.

If only the name of the write-ahead log is missing, nothing is lost yet: a checkpoint copies the log, which SQLite still
has open, into the store. The writer does that (database.py).

A folder that has held a store keeps a marker, `vec.id`, besides other files that only a daemon with a store creates.
If the store is missing from such a folder, the daemon does not create an empty one.

Knows paths and their status, not SQL.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from struct import Struct
from typing import Final

from ..errors import Code, VecError

#: Bytes of SQLite's header that do not change while a store is open: the magic string, the page size, and the journal
#: mode (a backup has no write-ahead log).
_CONSTANT_BYTES: Final = 24
#: The index of the write-ahead log, as https://sqlite.org/walformat.html describes it: format, unused, changes, whether
#: it is in use, byte order of checksums, size of a page, frames, pages, checksum, salt.
_INDEX: Final = Struct("=IIIBBHII8s8s")
_INDEX_FORMAT: Final = 3_007_000
#: Where it says how many frames have been copied into the store.
_COPIED: Final = Struct("=I")
_COPIED_AT: Final = 96
#: The header of the log, and that of a frame in it: page, pages, salt, checksum.
_LOG_HEADER_BYTES: Final = 32
_FRAME: Final = Struct(">II8s8s")


class FileIdentity:
    """The identity of the store's file, its write-ahead log and its shared memory. `open`, `check`, `close`. Only the
    writer uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = (os.fspath(path), f"{path}-wal", f"{path}-shm")
        # They stay open until SQLite's descriptors are closed: closing any one drops all POSIX locks of this process.
        self._fds: list[int] = []
        self._known: list[tuple[int, int]] = []
        self._modified_ns = 0
        self._header = b""
        self._last_frame = (b"", 0)  # of the write-ahead log at the last check: its salt, and the frame's number

    def open(self) -> None:
        """Records the current files as the right ones. SQLite must have all three open. Raises VecError
        `storage_failed`."""
        try:
            for name in self._names:
                self._fds.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise VecError(Code.STORAGE_FAILED, f"cannot read {error.filename} ({error.strerror})") from error
        self._known = self._look()
        self._modified_ns = os.fstat(self._fds[0]).st_mtime_ns
        self._header = self._read_header()

    def check(self) -> None:
        """Raises VecError `storage_failed` if a file was removed, replaced, overwritten or cut short."""
        if self._look() != self._known:
            raise self._lost("was removed or replaced")
        modified_ns = os.fstat(self._fds[0]).st_mtime_ns
        if modified_ns != self._modified_ns:  # by a checkpoint, mostly
            if self._read_header() != self._header:
                raise self._lost("was overwritten")
            self._modified_ns = modified_ns
        if self._log_is_cut():
            raise VecError(
                Code.STORAGE_FAILED,
                f"the write-ahead log {self._names[1]} was truncated while vecd had it open: what was written since the"
                " last checkpoint may be lost; nothing more is written",
                "restore a backup: vec restore FILE; or start vecd again with what is left",
            )

    @property
    def only_log_is_removed(self) -> bool:
        """Whether all that is wrong is that the log, or its index, has no name any more: SQLite still has it open."""
        store, *others = map(_identity, self._names)
        if store != self._known[0] or self._read_header() != self._header or None not in others:
            return False
        replaced = any(found not in (None, known) for found, known in zip(others, self._known[1:], strict=True))
        return not replaced and not self._log_is_cut()

    def close(self) -> None:
        """Closes the descriptors. Call it after SQLite's connections are closed."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _read_header(self) -> bytes:
        return os.pread(self._fds[0], _CONSTANT_BYTES, 0)

    def _look(self) -> list[tuple[int, int]]:
        """Device and inode of each name."""
        found = [identity for name in self._names if (identity := _identity(name)) is not None]
        if len(found) < len(self._names):
            raise self._lost("was removed or replaced")
        return found

    def _log_is_cut(self) -> bool:
        """Whether frames are missing that SQLite has written and not copied into the store."""
        while True:
            index = os.pread(self._fds[2], _COPIED_AT + _COPIED.size, 0)
            if len(index) < _COPIED_AT + _COPIED.size:
                return False
            form, _, _, used, _, page_bytes, frames, _, _, salt = _INDEX.unpack_from(index)
            (copied,) = _COPIED.unpack_from(index, _COPIED_AT)
            before, self._last_frame = self._last_frame, (salt, frames)
            if form != _INDEX_FORMAT or not used or copied >= frames:
                return False
            wanted = {frames, before[1]} if before[0] == salt and 0 < before[1] < frames else {frames}
            frame_bytes = _FRAME.size + (page_bytes if page_bytes > 1 else 65_536)
            if all(self._has_frame(number, frame_bytes, salt) for number in wanted):
                return False
            if os.pread(self._fds[2], len(index), 0) == index:
                return True
            # Another program has made a checkpoint meanwhile.

    def _has_frame(self, number: int, frame_bytes: int, salt: bytes) -> bool:
        header = os.pread(self._fds[1], _FRAME.size, _LOG_HEADER_BYTES + (number - 1) * frame_bytes)
        return len(header) == _FRAME.size and bool(_FRAME.unpack(header)[2] == salt)

    def _lost(self, what: str) -> VecError:
        return VecError(
            Code.STORAGE_FAILED,
            f"the store {self._path} {what} while vecd had it open; nothing more is written",
            "put the files back, or restore a backup: vec restore FILE",
        )


def _identity(name: str) -> tuple[int, int] | None:
    """Device and inode of the file with that name; None if there is none that can be found."""
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
