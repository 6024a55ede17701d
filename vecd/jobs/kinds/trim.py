"""trim: deletes the oldest events of the log, as `vec trim` does, and data that only they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...errors import Code, VecError
from ...feed import retention
from ...parameters import Parameter
from ...store.retention import Limits
from .. import effects
from .kind import JobKind, Run, Step, Steps
from .vacuum import reclaimed

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Trim(JobKind):
    """One step moves the horizon of the log; the others free space."""

    name = "trim"
    what = "delete the oldest events of the log"
    unit = "rows"
    running_max: ClassVar[int | None] = 1
    frees = True
    params: ClassVar[Mapping[str, Parameter]] = {
        "keep_age_s": Parameter("seconds to keep an event", float, low=0, high=limits.SECONDS_MAX),
        "keep_count": Parameter("the number of events to keep", int, low=0, high=2**62),
        "keep_bytes": Parameter("the bytes of events to keep", int, low=0, high=2**62),
        "past_consumers": Parameter("whether to trim past the slowest consumer", bool),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        if _limits(params) == Limits():
            raise VecError(
                Code.INVALID_REQUEST,
                "no limit was specified",
                "use keep_age_s, keep_count or keep_bytes",
                field="keep_age_s",
            )
        return params

    def steps(self, run: Run) -> Steps:
        upto = retention.reachable(run.engine.database, _limits(run.params))
        written = yield Step({}, effects.TrimLog(upto, bool(run.params.get("past_consumers"))))
        assert written is not None
        trimmed: dict[str, Any] = written.result().value
        return {**trimmed, **(yield from reclaimed(run))}


def _limits(params: Mapping[str, Any]) -> Limits:
    return Limits(params.get("keep_age_s"), params.get("keep_count"), params.get("keep_bytes"))
