"""backup: copies the store, as of one moment, while the daemon runs.

SQLite's online backup, a bounded number of pages a step, on a connection that reads at one moment all the while. The
copy is a store of its own: its log has no id yet and is given one when it is first opened, so that a cursor of the
original is foreign to it; and it holds no jobs to do. The file is in its place when it is whole and on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...store import backup
from ...store.jobs import Job
from . import output_files as files
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Backup(JobKind):
    """A crash begins it anew: the moment is gone."""

    name = "backup"
    what = "copy the store to a file"
    unit = "pages"
    params: ClassVar[Mapping[str, Param]] = {"path": Param("the file; what is there is replaced", str, required=True)}
    running_max = 1
    begins_again = True

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files.target(engine, self.name, params["path"])
        return params

    def steps(self, run: Run) -> Steps:
        at = run.checkpoint
        if at is None:
            at = files.begun(run.engine, run.job)
            yield Step(at)
        made, place = Path(at["file"]), Path(at["place"])
        files.clear(made)
        seq = 0
        try:
            for progress in backup.copied(run.engine.database, made, limits.BACKUP_PAGES):
                seq = progress.seq
                yield Step(done=progress.done, total=progress.total)
            if run.stopping():
                yield Step()
            whole = made.lstat()
            files.target(run.engine, self.name, at["place"])  # as it is now
            files.put_in_place(made, place, files.identity(whole))
        finally:
            files.clear(made)  # the next attempt cannot go on with it
        return {"path": run.params["path"], "bytes": whole.st_size, "seq": seq}

    def abandon(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def forget(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        files.tidy(jobs)
