"""prune: deletes completed and cancelled jobs, by age and by count."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from ... import limits
from ...parameters import Parameter
from ...store.jobs import Job
from ..effects import PruneJobs
from .kind import JobKind, Run, Step, Steps

_AT_ONCE = 500


class Prune(JobKind):
    """Failed and dead jobs remain until a user drops them."""

    name = "prune"
    what = "delete completed and cancelled jobs, by age and count"
    unit = "jobs"
    frees = True
    params: ClassVar[Mapping[str, Parameter]] = {
        "keep_s": Parameter(
            "seconds to keep a job after its end; default: a week", float, low=0, high=limits.SECONDS_MAX
        ),
        "keep": Parameter("the number of jobs to keep; default: 10,000", int, low=0, high=2**62),
    }
    running_max = 1

    def steps(self, run: Run) -> Steps:
        before_us = time.time_ns() // 1000 - int(run.params.get("keep_s", limits.JOBS_KEPT_S) * 1e6)
        keep = run.params.get("keep", limits.JOBS_KEPT)
        pruned = run.count("pruned")
        while True:
            written = yield Step({}, PruneJobs(before_us, keep, _AT_ONCE), done=pruned)
            assert written is not None
            deleted: list[Job] = written.result().value
            run.forget(deleted)
            pruned += len(deleted)
            if len(deleted) < _AT_ONCE:
                return {"pruned": pruned}
