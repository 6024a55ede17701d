"""noop: does nothing, in a given number of steps. For trying out queues, schedules, alerts, and how fast all that
is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import Code, VecError
from .kind import JobKind, Param, Run, Step, Steps


class Noop(JobKind):
    """Counts to `steps`, taking `seconds` for each; fails at the end if it is to."""

    name = "noop"
    what = "do nothing, for trying things out"
    params: ClassVar[Mapping[str, Param]] = {
        "steps": Param("how many steps, each with a checkpoint", int, low=0, high=1_000_000),
        "seconds": Param("how long each takes", float, low=0, high=3_600),
        "fail": Param("the error that it ends with", str),
    }
    library = "optional"
    library_max = None
    attempts_max = 3
    runs = "anywhere"

    def brief(self, params: Mapping[str, Any]) -> bool:
        return not params.get("steps") and "fail" not in params

    def steps(self, run: Run) -> Steps:
        count, seconds = run.params.get("steps", 0), run.params.get("seconds", 0.0)
        for number in range((run.checkpoint or 0) + 1, count + 1):
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0 and not run.stopping():
                time.sleep(min(left, 0.05))
            if run.stopping():
                yield Step()  # it was not done
            yield Step(number, done=number, total=count)
        if "fail" in run.params:
            raise VecError(Code.INTERNAL, run.params["fail"])
        return {"steps": count}
