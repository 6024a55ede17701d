"""Writes the input of an ingest job to the spool, from which the daemon reads it.

The file is synced in pieces, so that little is left to sync at the end, and locked until the job has been submitted, so
that a starting daemon does not delete it. The daemon sets bounds: the size of the spool for all jobs together, and how
much of the disk stays free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Any, Self

from .. import limits
from ..errors import Code, VecError
from ..units import size_text

#: Bytes that may not be synced yet.
_SYNC_BYTES = 8 * limits.MIB


class SpoolFile:
    """A new file of the spool. A context manager, which releases the lock; if the block raises, it deletes the file,
    unless the job may have been submitted. Its methods block."""

    def __init__(self, spool: dict[str, Any], name: str) -> None:
        """`spool` is the answer of the op jobs.spool; `name` is the name of the input in errors. Raises VecError."""
        self.path: str = spool["path"]
        self.name = name
        self._folder = Path(self.path).parent
        self._bytes_max: int | None = spool.get("bytes_max")  # a daemon of an older version sets no bounds
        self._free_bytes_min: int = spool.get("free_bytes_min", 0)
        self._unsynced = 0
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, piece: bytes) -> None:
        """Raises VecError `disk_full`, or `too_large` if the spool has no room."""
        try:
            if self._unsynced == 0:
                self._check(len(piece))
            view = memoryview(piece)
            while view:
                view = view[os.write(self._fd, view) :]
            self._unsynced += len(piece)
            if self._unsynced >= _SYNC_BYTES:
                self.sync()
        except OSError as error:
            raise self._failed(error) from error

    def sync(self) -> None:
        """Returns when what was written is on disk. Raises VecError `disk_full`."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from error
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # If the answer was lost, the job may exist and need its file. If it does not, the daemon deletes the file.
        lost = isinstance(error, VecError) and error.code in (Code.CONNECTION_LOST, Code.TIMEOUT, Code.STALLED)
        if error is not None and not lost:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        os.close(self._fd)

    def _failed(self, error: OSError) -> VecError:
        return VecError(
            Code.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.INVALID_REQUEST,
            f"cannot copy {self.name} to {self.path} ({error.strerror})",
            "no job was submitted",
        )

    def _check(self, more: int) -> None:
        """Raises VecError `too_large` or `disk_full` if `more` bytes must not be added."""
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail * disk.f_frsize < self._free_bytes_min + more:
            raise VecError(
                Code.DISK_FULL,
                f"cannot copy {self.name} to {self._folder}: less than {size_text(self._free_bytes_min)} of the disk"
                " would be free",
                "no job was submitted; free some space, or ingest without --background",
            )
        if self._bytes_max is None:
            return
        held = sum(os.stat(each).st_size for each in self._folder.iterdir())
        if held + more > self._bytes_max:
            raise VecError(
                Code.TOO_LARGE,
                f"cannot copy {self.name}: copies for background jobs may take {size_text(self._bytes_max)}, and"
                f" {size_text(held)} are in use",
                "no job was submitted; ingest without --background, use a file instead of a pipe, or wait until other"
                " ingest jobs have ended (vec jobs list)",
            )
