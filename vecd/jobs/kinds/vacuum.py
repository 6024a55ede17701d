"""vacuum: deletes rows behind the log's horizon, and returns the space to the file system."""

from __future__ import annotations

from typing import ClassVar

from ..effects import DeleteTrimmed, GiveBackPages
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
    """The steps of a vacuum, each short. A later attempt goes on with whatever is left, so the checkpoint is empty."""
    found = {"rows": 0, "pages": 0}
    for what, effect in (("rows", DeleteTrimmed()), ("pages", GiveBackPages())):
        while True:
            written = yield Step({}, effect, done=found["rows"])
            assert written is not None
            if not (count := written.result().value):
                break
            found[what] += count
    return found
