"""noop: does nothing, in a number of steps. For tests and benchmarks of queues, schedules and alerts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ...errors import Code, VecError
from ...parameters import Parameter
from .kind import JobKind, Run, Step, Steps


class Noop(JobKind):
    """Counts to `steps`, with `seconds` for each; then fails if `fail` is given."""

    name = "noop"
    what = "do nothing, for tests"
    params: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter("the number of steps, each with a checkpoint", int, low=0, high=1_000_000),
        "seconds": Parameter("the duration of a step", float, low=0, high=3_600),
        "fail": Parameter("the error to fail with", str),
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
                yield Step()  # stops here
            yield Step(number, done=number, total=count)
        if "fail" in run.params:
            raise VecError(Code.INTERNAL, run.params["fail"])
        return {"steps": count}
