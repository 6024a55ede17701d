"""`vec ingest --background`: submits an ingest job; input from pipes is first copied to files that the daemon can read.

A pipe is copied as it is, without being parsed, and synced in pieces, so that little is left to sync at its end. The
copy is locked meanwhile, so that a daemon that starts does not delete it. The daemon sets
bounds: how much may be put aside for all jobs together, and how much of the disk stays free.
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
    files, names, open_fds, ours = [], [], [], []
    try:
        for path in paths or ["-"]:
            name = "stdin" if path == "-" else path
            names.append(name)
            if path != "-" and _is_there_for_all(absolute(path)):
                files.append(absolute(path))
                continue
            place = client.spool()
            spooled = place["path"]
            ours.append(spooled)
            open_fds.append(_copy(path, name, spooled, _Bounds.of(place)))
            files.append(spooled)
        return client.submit_job("ingest", {"files": files, "names": names, "strict": strict or None}, library=library)
    except BaseException as error:
        # If the answer was lost, the job may be there, and need its file; if it is not, the daemon tidies up.
        if not (isinstance(error, VecError) and error.code in (Code.CONNECTION_LOST, Code.TIMEOUT, Code.STALLED)):
            for each in ours:
                if os.path.exists(each):
                    os.unlink(each)
        raise
    finally:
        for fd in open_fds:
            os.close(fd)


def _is_there_for_all(path: str) -> bool:
    """Whether a path leads to a regular file, the same one in the daemon as here: /dev/stdin and /dev/fd/3 do not."""
    try:
        return check_regular(resolve(path)) is not None
    except OSError:
        return False  # it is copied; opening it says what is wrong with it


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of what is put aside; a daemon of an older version sets none."""

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
                f"cannot put {name} aside in {folder}: less than {size(self.free_bytes_min)} of the disk would be free",
                "no job was submitted; free some space, or ingest it without --background",
            )
        if self.bytes_max is None:
            return
        held = sum(os.stat(each).st_size for each in folder.iterdir())
        if held + more > self.bytes_max:
            raise VecError(
                Code.TOO_LARGE,
                f"cannot put {name} aside: the input of background jobs may take {size(self.bytes_max)}, and"
                f" {size(held)} are put aside",
                "no job was submitted; ingest it without --background, give a file instead of a pipe, or"
                " wait until the ingest jobs before it have ended (vec jobs list)",
            )


def _copy(path: str, name: str, spooled: str, bounds: _Bounds) -> int:
    """Copies a pipe to a file that is on disk then; returns the file, open and locked."""
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
            f"cannot put {name} aside as {spooled} ({error.strerror})",
            "no job was submitted",
        ) from error
    except BaseException:
        os.close(target)
        raise
    finally:
        if path != "-":
            os.close(source)
    return target
