"""vacuum: deletes trimmed data, and returns its space to the file system."""

from __future__ import annotations

from typing import ClassVar

from ..effects import DeleteTrimmed, ReleasePages
from .kind import JobKind, Run, Step, Steps


class Vacuum(JobKind):
    """The daemon does this automatically after a trim; this job is for data that remains after a crash."""

    name = "vacuum"
    what = "delete trimmed data, and return its space to the file system"
    unit = "rows"
    frees = True
    running_max: ClassVar[int | None] = 1

    def steps(self, run: Run) -> Steps:
        return (yield from reclaimed(run))


def reclaimed(run: Run) -> Steps:
    """The steps of a vacuum, each short. A later attempt continues with the remaining data, so the checkpoint is
    empty."""
    found = {"rows": 0, "pages": 0}
    for what, effect in (("rows", DeleteTrimmed()), ("pages", ReleasePages())):
        while True:
            written = yield Step({}, effect, done=found["rows"])
            assert written is not None
            if not (count := written.result().value):
                break
            found[what] += count
    return found
