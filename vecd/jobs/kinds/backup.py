"""backup: a copy of the store, as of one moment, while everything goes on.

SQLite's online backup, a bounded number of pages a step, on a connection that reads at one moment all the while. The
copy is a store of its own: its log has no id yet and is given one when it is first opened, so that a cursor of the
original is foreign to it; and it holds no jobs to do. The file is in its place when it is whole and on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...errors import Code, VecError
from ...store import copy
from ...store.jobs import Job
from . import files
from .kind import Kind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.core import Engine


class Backup(Kind):
    """A crash begins it anew: the moment is gone."""

    name = "backup"
    what = "copy the store to a file"
    unit = "pages"
    params: ClassVar[Mapping[str, Param]] = {"path": Param("the file; what is there is replaced", str, required=True)}
    running_max = 1
    begins_again = True

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files.check_target(self.name, params["path"])
        if Path(params["path"]).resolve().parent == engine.settings.data.resolve():
            raise VecError(
                Code.INVALID_REQUEST,
                f"backup: {params['path']} is in the daemon's data folder",
                "what happens to the one would happen to the other",
                field="path",
            )
        return params

    def steps(self, run: Run) -> Steps:
        path, at = Path(run.params["path"]), run.checkpoint
        if at is None:
            at = {"file": files.new_name(path, run.job)}
            yield Step(at)
        made = Path(at["file"])
        seq = 0
        try:
            for part in copy.copied(run.engine.database, made, limits.BACKUP_PAGES):
                seq = part.seq
                yield Step(done=part.done, total=part.total)
            if run.stopping():
                yield Step()
            whole = made.lstat()
            files.put_in_place(made, path, files.identity(whole))
        finally:
            made.unlink(missing_ok=True)  # the next attempt cannot go on with it
        return {"path": run.params["path"], "bytes": whole.st_size, "seq": seq}

    def abandon(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def forget(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        files.tidy(jobs)
