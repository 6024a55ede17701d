"""`vec ingest --background`: submits an ingest job, and copies pipes to the spool, where the daemon can read them.

A pipe is copied without parsing, and synced in pieces, so that little is left to sync at the end. The copy is locked
until the job is submitted, so that a starting daemon does not delete it. The daemon sets bounds: the size of the spool
for all jobs together, and how much of the disk stays free.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecd import limits
from vecd.durable_files import check_regular, resolve
from vecd.errors import Code, VecError

from .jobs import absolute
from .output import size

if TYPE_CHECKING:
    from vecd.client import Client

_PIECE_BYTES = 256 * limits.KIB
#: Bytes of a copy that may not be synced yet.
_SYNC_BYTES = 8 * limits.MIB


def submit(client: Client, paths: list[str], library: str, strict: bool) -> dict[str, Any]:
    """Submits the job that ingests these files (`-`, or none at all, is stdin). Raises VecError."""
    files, names, open_fds, copies = [], [], [], []
    try:
        for path in paths or ["-"]:
            name = "stdin" if path == "-" else path
            names.append(name)
            if path != "-" and _is_shared(absolute(path)):
                files.append(absolute(path))
                continue
            spool = client.spool()
            spooled = spool["path"]
            copies.append(spooled)
            open_fds.append(_copy(path, name, spooled, _Bounds.of(spool)))
            files.append(spooled)
        return client.submit_job("ingest", {"files": files, "names": names, "strict": strict or None}, library=library)
    except BaseException as error:
        # If the answer was lost, the job may exist and need its file. If it does not, the daemon deletes the file.
        if not (isinstance(error, VecError) and error.code in (Code.CONNECTION_LOST, Code.TIMEOUT, Code.STALLED)):
            for each in copies:
                if os.path.exists(each):
                    os.unlink(each)
        raise
    finally:
        for fd in open_fds:
            os.close(fd)


def _is_shared(path: str) -> bool:
    """Whether a path names a regular file, the same one in the daemon as here. /dev/stdin and /dev/fd/3 do not."""
    try:
        return check_regular(resolve(path)) is not None
    except OSError:
        return False  # it is copied, and opening it reports the error


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Bounds of the spool; a daemon of an older version sets none."""

    bytes_max: int | None
    free_bytes_min: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> _Bounds:
        return cls(answer.get("bytes_max"), answer.get("free_bytes_min", 0))

    def check(self, target: int, folder: Path, name: str, more: int) -> None:
        """Raises VecError `too_large` or `disk_full` if `more` bytes must not be added to the open file in `folder`."""
        disk = os.fstatvfs(target)
        if disk.f_bavail * disk.f_frsize < self.free_bytes_min + more:
            raise VecError(
                Code.DISK_FULL,
                f"cannot copy {name} to {folder}: less than {size(self.free_bytes_min)} of the disk would be free",
                "no job was submitted; free some space, or ingest without --background",
            )
        if self.bytes_max is None:
            return
        held = sum(os.stat(each).st_size for each in folder.iterdir())
        if held + more > self.bytes_max:
            raise VecError(
                Code.TOO_LARGE,
                f"cannot copy {name}: copies for background jobs may take {size(self.bytes_max)}, and {size(held)} are"
                " in use",
                "no job was submitted; ingest without --background, use a file instead of a pipe, or wait until other"
                " ingest jobs have ended (vec jobs list)",
            )


def _copy(path: str, name: str, spooled: str, bounds: _Bounds) -> int:
    """Copies a pipe to a durable file; returns the open and locked file."""
    try:
        source = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise VecError(Code.INVALID_REQUEST, f"cannot read {path} ({error.strerror})", file=path) from error
    target = os.open(spooled, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            raise VecError(Code.INVALID_REQUEST, f"cannot read {path} (it is a folder)", file=path)
        fcntl.flock(target, fcntl.LOCK_EX)
        unsynced = 0
        while piece := os.read(source, _PIECE_BYTES):
            if unsynced == 0:
                bounds.check(target, Path(spooled).parent, name, len(piece))
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]
            unsynced += len(piece)
            if unsynced >= _SYNC_BYTES:
                os.fsync(target)
                unsynced = 0
        os.fsync(target)
    except OSError as error:
        os.close(target)
        raise VecError(
            Code.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.INVALID_REQUEST,
            f"cannot copy {name} to {spooled} ({error.strerror})",
            "no job was submitted",
        ) from error
    except BaseException:
        os.close(target)
        raise
    finally:
        if path != "-":
            os.close(source)
    return target
