"""JobKind: the interface of a kind of job: its name, its parameters, and a generator of steps.

Each yielded step, an effect and a checkpoint, is committed in one transaction. The job may be stopped between two
steps; then the generator is closed. When the job resumes, `steps` is called again with the last checkpoint. So a step
is short (a fraction of a second), and a checkpoint has all that the next step needs.

    def steps(self, run):
        at = run.checkpoint or {"after": ""}
        while page := read(at["after"]):
            at = {"after": page[-1].id}
            yield Step(at, DeleteVersions(library, page))
        return {"deleted": run.count("deleted")}
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...errors import Code, VecError
from ...parameters import Parameter, check_parameters
from ...store.jobs import Job
from ..effects import Effect, EffectResult

if TYPE_CHECKING:
    from ...engine.engine import Engine

#: The result of a `yield`: a future that is done when the step is durable, with the outcome of its effect. (None for a
#: step that writes nothing.)
Steps = Generator["Step", "Future[EffectResult] | None", dict[str, Any]]


@dataclass(slots=True)
class Step:
    """One step: an effect, the checkpoint after it, and lines for the log, committed in one transaction. A step with
    none of them waits until all earlier steps are durable, reports progress, and allows the job to stop.

    The checkpoint is JSON; with None the last one remains. If the effect has counts, the checkpoint is a map, and gets
    the sum of the counts over all steps as `counts`, and the head of the log that the effect reports as `seq`.
    """

    checkpoint: Any = None
    effect: Effect | None = None
    done: int | None = None
    total: int | None = None
    lines: list[str] = field(default_factory=list)  # for the job's log


@dataclass(slots=True)
class Run:
    """One attempt, for its kind."""

    engine: Engine
    job: Job
    stopping: Callable[[], bool]  # whether the job must stop; for waits within a step
    forget: Callable[[Iterable[Job]], None]  # calls JobKind.forget for other jobs
    counts: dict[str, int] = field(init=False)  # of all committed steps; see `count`
    seq: int | None = field(init=False)  # the head of the log after the last effect that reported it

    def __post_init__(self) -> None:
        kept = self.checkpoint
        self.counts = dict(kept.get("counts", {})) if isinstance(kept, dict) else {}
        self.seq = kept.get("seq") if isinstance(kept, dict) else None

    def committed(self, outcome: EffectResult) -> None:
        """A step is durable."""
        for name, count in outcome.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.seq = self.seq if outcome.seq is None else outcome.seq

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params

    def count(self, name: str) -> int:
        """The sum of a count over all committed steps of all attempts."""
        return self.counts.get(name, 0)

    @property
    def checkpoint(self) -> Any:
        """The last checkpoint when this attempt began; None if there was none."""
        return self.job.checkpoint


#: Which workers run a kind: threads of the daemon, workers outside it, or both.
Runs = Literal["inside", "outside", "anywhere"]


class JobKind:
    """One kind of job."""

    name: ClassVar[str]
    what: ClassVar[str]  # its purpose, in one line
    params: ClassVar[Mapping[str, Parameter]] = {}
    unit: ClassVar[str] = "steps"  # of its progress
    library: ClassVar[str] = "none"  # whether it has one: none, optional, required
    library_default: ClassVar[str | None] = None  # the default library
    attempts_max: ClassVar[int] = 5  # before it is dead
    backoff_max_s: ClassVar[float] = 300.0
    running_max: ClassVar[int | None] = None  # jobs of this kind at once
    library_max: ClassVar[int | None] = 1  # jobs of this kind in one library at once
    begins_again: ClassVar[bool] = False  # a retry by a user starts without the checkpoint: see abandon
    frees: ClassVar[bool] = False  # it frees space: it is submitted and started even if the disk is full
    in_flight: ClassVar[int] = 0  # uncommitted steps allowed while the next one runs
    runs: ClassVar[Runs] = "inside"  # where it runs

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters to store. They were already checked against `params`. Raises VecError."""
        return params

    def shown(self, engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters as clients see them."""
        return params

    def brief(self, params: Mapping[str, Any]) -> bool:
        """Whether it takes no longer than a commit."""
        return False

    def steps(self, run: Run) -> Steps:
        """Runs in a thread of the daemon, and may block. Returns the result. Raises VecError, or any other exception
        for a bug. A kind that runs outside the daemon only has no steps here."""
        raise NotImplementedError(self.name)
        yield

    def forget(self, engine: Engine, job: Job) -> None:
        """The job has completed or was deleted: removes its files. May be called again."""

    def abandon(self, engine: Engine, job: Job) -> None:
        """The job has ended without completing: removes the files that its checkpoint names, if a retry cannot use them
        (`begins_again`). Called before the end is visible if a worker ends the job, and soon after it otherwise. May be
        called again, also while a retry runs."""

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        """At the daemon's start: removes files that none of these jobs needs. They are all jobs of the kind."""

    def checked(self, engine: Engine, library: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
        """Validates the parameters of a job to submit. Raises VecError `invalid_request` or `not_found`."""
        if library is None and self.library == "required":
            raise VecError(Code.INVALID_REQUEST, f"a job {self.name!r} needs a library", field="library")
        if library is not None:
            if self.library == "none":
                raise VecError(Code.INVALID_REQUEST, f"a job {self.name!r} cannot have a library", field="library")
            self.find_library(engine, library, params)
        given = check_parameters(f"a job {self.name!r}", "param", self.params, params)
        return self.check(engine, library, given)

    def find_library(self, engine: Engine, library: str, params: Mapping[str, Any]) -> None:
        """Raises VecError `not_found`."""
        engine.database.catalogue.find(library, to="manage")
