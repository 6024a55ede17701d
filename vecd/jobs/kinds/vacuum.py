"""vacuum: deletes what is behind the log's horizon, and gives the space back to the file system."""

from __future__ import annotations

from typing import ClassVar

from ... import limits
from ...engine.vacuum import deleting, giving_back
from ...store import retention
from ...store.transaction import Transaction
from .kind import JobKind, Run, Step, Steps


class Vacuum(JobKind):
    """After a trim the daemon does this by itself; this is for what a crash may have left."""

    name = "vacuum"
    what = "delete what was trimmed away, and give its space back"
    unit = "rows"
    frees = True
    running_max: ClassVar[int | None] = 1

    def steps(self, run: Run) -> Steps:
        return (yield from reclaimed(run))


def reclaimed(run: Run) -> Steps:
    """The steps of a vacuum, each short; what has been deleted need not be remembered."""
    found = {"rows": 0, "pages": 0}
    works: dict[str, retention.Step] = {
        "rows": deleting(run.engine.database, run.engine.views),
        "pages": giving_back(run.engine.database),
    }
    for what, work in works.items():
        made: list[int] = [1]

        def write(tx: Transaction, work: retention.Step = work, made: list[int] = made) -> dict[str, int]:
            made[0] = work(tx)
            return {}

        while made[0]:
            yield Step(write=write, done=found["rows"], rows=limits.VACUUM_ROWS, frees=True)
            found[what] += made[0]
    return found
