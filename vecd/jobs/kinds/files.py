"""Files that jobs make: under another name until they are whole, on disk before anybody is told.

Rules:
- The name of an unfinished file is in the job's checkpoint (under `file`) before the file exists, so it is found
  whatever happens.
- The name is random and belongs to one run of the job, from its submission or a retry to its end. Whoever removes a
  run's file late cannot hit the file of a later run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from ...errors import Code, VecError
from ...store.jobs import UNDONE, Job


def check_target(kind: str, path: str) -> None:
    """Raises VecError `invalid_request` for a path at which no file can be made."""
    target = Path(path)
    why = None
    if not target.is_absolute():
        why = "is not absolute, and the daemon has a working folder of its own"
    elif target.is_dir():
        why = "is a folder"
    elif not target.parent.is_dir():
        why = f"cannot be made: there is no folder {target.parent}"
    elif not os.access(target.parent, os.W_OK):
        why = f"cannot be made: the folder {target.parent} may not be written to"
    if why is not None:
        raise VecError(Code.INVALID_REQUEST, f"{kind}: {path} {why}", field="path")


def new_name(path: Path, job: Job) -> str:
    """A name for the unfinished file of a run: beside its place, so that the rename stays in one file system."""
    return str(path.with_name(f".vec-{job.kind}-{job.job_id}-{secrets.token_hex(8)}"))


def remove(job: Job) -> None:
    """Removes the unfinished file of the run that the job's checkpoint belongs to, and what SQLite keeps beside it.
    Raises OSError."""
    if not isinstance(job.checkpoint, dict) or "file" not in job.checkpoint:
        return
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(job.checkpoint["file"] + suffix).unlink(missing_ok=True)


def tidy(jobs: Iterable[Job]) -> None:
    """At the daemon's start: removes what jobs that ended without completing could not remove before the daemon died.
    A retry begins with another file."""
    for job in jobs:
        if job.state in UNDONE:
            with contextlib.suppress(OSError):  # the folder may be on a file system that is not mounted
                remove(job)


def identity(status: os.stat_result) -> list[int]:
    """What a file keeps when it is renamed; as JSON, for a checkpoint."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def put_in_place(made: Path, path: Path, known: list[int]) -> bool:
    """Renames a file that is on disk, and makes the rename durable. Doing it again does nothing.

    Returns false if the file with the identity `known` is at neither place. Raises OSError.
    """
    if _is(made, known):
        os.replace(made, path)
    elif not _is(path, known):
        return False
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _is(path: Path, known: list[int]) -> bool:
    try:
        return identity(path.lstat()) == known
    except FileNotFoundError:
        return False
