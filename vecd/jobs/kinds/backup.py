"""backup: writes a consistent copy of the store, while reads and writes continue.

It uses SQLite's online backup, a bounded number of pages per step, in one read transaction. The copy is a separate
store: its log gets a new id when it is first opened, so that it refuses cursors of the original; and it has no pending
jobs. The file appears when it is complete and durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...durable_files import identity
from ...parameters import Parameter
from ...store import backup
from ...store.jobs import Job
from . import output_files as files
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Backup(JobKind):
    """Starts over after a crash, because the read transaction is lost."""

    name = "backup"
    what = "copy the store to a file"
    unit = "pages"
    params: ClassVar[Mapping[str, Parameter]] = {
        "path": Parameter("the file to write; replaced if it exists", str, required=True)
    }
    running_max = 1
    begins_again = True

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files.target(engine, self.name, params["path"])
        return params

    def steps(self, run: Run) -> Steps:
        at = run.checkpoint
        if at is None:
            at = files.first_checkpoint(run.engine, run.job)
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
            files.target(run.engine, self.name, at["place"])  # the path may have changed since
            files.put_in_place(made, place, identity(whole))
        finally:
            files.clear(made)  # the next attempt cannot resume it
        return {"path": run.params["path"], "bytes": whole.st_size, "seq": seq}

    def abandon(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def forget(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        files.tidy(jobs)
