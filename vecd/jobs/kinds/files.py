"""Files that jobs make: under another name until they are whole, on disk before anybody is told."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import Code, VecError
from ...store.jobs import Job


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


def unfinished(job: Job) -> Path:
    """The name of the job's file until it is whole: beside its place, so that the rename is one of one file system."""
    path = Path(job.params["path"])
    return path.with_name(f".{path.name}.job-{job.job_id}")


def put_in_place(made: Path, path: Path) -> None:
    """Renames a file that is on disk, and sees that the rename is too. Doing it again does nothing. Raises OSError."""
    if made.exists():
        os.replace(made, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
