"""Output files of jobs: written under a temporary name, and renamed when they are complete and durable. Never one of
the daemon's own files.

Rules:
- The temporary name is in the job's checkpoint (as `file`) before the file exists, so the file can always be found.
- The name is random and belongs to one run of the job, from its submission or a retry to its end. So a late removal
  cannot hit the file of a later run.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable_files import check_regular, file_id, identity, new_name, rename, resolve, sync_folder
from ...errors import Code, VecError
from ...settings import Settings
from ...store.jobs import UNDONE, Job

if TYPE_CHECKING:
    from ...engine.engine import Engine


def target(engine: Engine, kind: str, path: str) -> Path:
    """Resolves the path of an output file, with all symbolic links. Raises VecError `invalid_request` for a path at
    which a file cannot or must not be created. Called when the job is submitted and when it runs: the path may
    change."""
    try:
        return _target(engine, path)
    except OSError as error:
        raise VecError(
            Code.INVALID_REQUEST, f"{kind}: cannot create a file at {path:.300} ({error.strerror})", field="path"
        ) from error


def _target(engine: Engine, path: str) -> Path:
    if not os.path.isabs(path):
        raise OSError(errno.EINVAL, "it is not absolute, and the daemon has another working folder")
    place = resolve(path, write=True)
    folder = place.parent
    if not folder.is_dir():
        raise OSError(errno.ENOENT, f"the folder {folder} does not exist")
    status = check_regular(place)
    if _is_own(engine.settings, place, status):
        raise OSError(errno.EINVAL, "it is one of the daemon's own files")
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, f"the folder {folder} is not writable")
    return place


def _is_own(settings: Settings, place: Path, status: os.stat_result | None) -> bool:
    """Whether a path is in the data folder, directly in another folder of the daemon, or a hard link to a file
    there."""
    data = file_id(settings.data)
    above = [file_id(folder) for folder in place.parents]
    others = [settings.runtime, settings.config.parent, *([settings.home] if settings.home else [])]
    if data in above or (above[0] is not None and above[0] in map(file_id, others)):
        return True
    if status is None:
        return False
    key = (status.st_dev, status.st_ino)
    if key in map(file_id, (settings.log, settings.socket)):
        return True
    return status.st_nlink > 1 and any(key == file_id(file) for file in _files(settings.data, others))


def _files(data: Path, others: Iterable[Path]) -> Iterator[Path]:
    for folder, _, names in os.walk(data):
        yield from (Path(folder, name) for name in names)
    for each in others:
        with contextlib.suppress(OSError):
            yield from each.iterdir()


def first_checkpoint(engine: Engine, job: Job) -> dict[str, Any]:
    """The first checkpoint of a run: the target, and the temporary file in the same folder, so that the rename does not
    cross file systems. Raises VecError `invalid_request`."""
    place = target(engine, job.kind, job.params["path"])
    return {"place": str(place), "file": str(new_name(place.parent, f"{job.kind}-{job.job_id}"))}


def remove(job: Job) -> None:
    """Removes the unfinished file of the run that the job's checkpoint belongs to. Raises OSError."""
    if isinstance(job.checkpoint, dict) and "file" in job.checkpoint:
        clear(Path(job.checkpoint["file"]))


def clear(made: Path) -> None:
    """Removes an unfinished file, and SQLite's files beside it: a journal from a crash would be replayed into the next
    copy. Raises OSError."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        made.with_name(made.name + suffix).unlink(missing_ok=True)


def tidy(jobs: Iterable[Job]) -> None:
    """At the daemon's start: removes the files of jobs that ended without completing, if a crash prevented that. A
    retry starts with another file."""
    for job in jobs:
        if job.state in UNDONE:
            with contextlib.suppress(OSError):  # the folder may be on a file system that is not mounted
                remove(job)


def put_in_place(made: Path, path: Path, known: list[int]) -> bool:
    """Renames a durable file, and makes the rename durable. Idempotent.

    Returns false if the file with the identity `known` is at neither path. Raises OSError.
    """
    if _is(made, known):
        rename(made, path)
        return True
    if _is(path, known):
        sync_folder(path.parent)
        return True
    return False


def _is(path: Path, known: list[int]) -> bool:
    try:
        return identity(path.lstat()) == known
    except FileNotFoundError:
        return False
