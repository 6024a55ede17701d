"""What a kind of job is: a name, params that are checked when it is submitted, and steps.

A kind is a generator of steps. What it yields is committed, with the checkpoint, before it goes on; between two steps
it may be told to stop, and is closed. When the job is taken up again, `steps` begins anew with the last checkpoint. So
a step is small (a fraction of a second), and a checkpoint says all that the next one needs.

    def steps(self, run):
        at = run.checkpoint or {"after": None}
        while page := read(at["after"]):
            at = {"after": page[-1].id}
            yield Step(write=lambda tx: delete(tx, page) and at)
        return {"deleted": …}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import Code, VecError, nearest
from ...store.jobs import Job
from ...store.transaction import Transaction

if TYPE_CHECKING:
    from ...engine.engine import Engine

#: What comes back from a `yield`: done when the step is on disk.
Steps = Generator["Step", Future[None] | None, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Param:
    """One param of a kind, for checking and for telling."""

    what: str
    type: type  # str, int, float, bool, list (of strings)
    required: bool = False
    low: float | None = None  # inclusive
    high: float | None = None  # inclusive
    choices: tuple[str, ...] = ()


@dataclass(slots=True)
class Step:
    """Something that has been done, or is to be written. One with neither is a sign of life: progress, and a chance to
    stop."""

    checkpoint: Any = None
    write: Callable[[Transaction], Any] | None = None  # on the writer; returns the checkpoint
    done: int | None = None
    total: int | None = None
    rows: int = 1  # that it writes, about
    frees: bool = False  # it makes room, and may use the reserve when the disk is full
    lines: list[str] = field(default_factory=list)  # for the job's log


@dataclass(slots=True)
class Run:
    """One attempt, as its kind sees it."""

    engine: Engine
    job: Job
    stopping: Callable[[], bool]  # whether it is to stop; for what waits within a step
    forget: Callable[[Iterable[Job]], None]  # lets other jobs' kinds forget them; see JobKind.forget

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params

    @property
    def checkpoint(self) -> Any:
        """The last one, of whichever attempt; None at the beginning."""
        return self.job.checkpoint


class JobKind(ABC):
    """One kind of job."""

    name: ClassVar[str]
    what: ClassVar[str]  # it does, in a line
    params: ClassVar[Mapping[str, Param]] = {}
    unit: ClassVar[str] = "steps"  # of its progress
    library: ClassVar[str] = "none"  # whether it works on one: none, optional, required
    library_default: ClassVar[str | None] = None  # the one that it works on if none is named
    attempts_max: ClassVar[int] = 5  # before it is dead
    backoff_max_s: ClassVar[float] = 300.0
    running_max: ClassVar[int | None] = None  # of this kind at once
    library_max: ClassVar[int | None] = 1  # of this kind in one library at once
    begins_again: ClassVar[bool] = False  # a retry by hand starts without the checkpoint: see abandon
    frees: ClassVar[bool] = False  # it makes room: with a full disk it is submitted and begun all the same
    in_flight: ClassVar[int] = 0  # steps that may be on their way to the disk while the next one is made

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        """The params as they are kept. What `params` says has been checked. Raises VecError."""
        return params

    def brief(self, params: Mapping[str, Any]) -> bool:
        """Whether it takes no longer than a commit."""
        return False

    @abstractmethod
    def steps(self, run: Run) -> Steps:
        """Runs in a worker's thread, and may block there. Returns the result. Raises VecError, or whatever is a bug."""

    def forget(self, engine: Engine, job: Job) -> None:  # noqa: B027 - most have nothing to do
        """The job has completed or is no more: what it has put aside may go. May be called again."""

    def abandon(self, engine: Engine, job: Job) -> None:  # noqa: B027
        """The job has ended without completing: removes what its checkpoint names outside the store, if a retry cannot
        use it (`begins_again`). Comes before the end can be seen where a worker ends the job, and soon after it
        otherwise. May be called again, also while a retry runs."""

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:  # noqa: B027
        """At the daemon's start: what none of these jobs needs may go. They are all that there are of the kind."""

    def checked(self, engine: Engine, library: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
        """The params of a job that is to be submitted. Raises VecError `invalid_request` or `not_found`."""
        if library is None and self.library == "required":
            raise VecError(Code.INVALID_REQUEST, f"a job {self.name!r} needs a library", field="library")
        if library is not None:
            if self.library == "none":
                raise VecError(Code.INVALID_REQUEST, f"a job {self.name!r} works on no library", field="library")
            self.find_library(engine, library)
        for name, value in params.items():
            if name not in self.params:
                close = nearest(name, list(self.params))
                known = f"it has {', '.join(self.params)}" if self.params else "it has none"
                hint = f"did you mean {close!r}?" if close else known
                raise VecError(Code.INVALID_REQUEST, f"a job {self.name!r} has no param {name!r:.60}", hint, field=name)
            self._check_param(name, self.params[name], value)
        for name, param in self.params.items():
            if param.required and params.get(name) is None:
                raise VecError(
                    Code.INVALID_REQUEST, f"a job {self.name!r} needs the param {name!r}: {param.what}", field=name
                )
        return self.check(engine, library, {name: value for name, value in params.items() if value is not None})

    def find_library(self, engine: Engine, library: str) -> None:
        """Raises VecError `not_found`."""
        engine.database.catalogue.find(library)

    def _check_param(self, name: str, param: Param, value: Any) -> None:
        if value is None:
            return
        wanted = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        right = isinstance(value, (int, float) if param.type is float else param.type)
        if isinstance(value, bool) and param.type is not bool:
            right = False
        if param.type is list and right:
            right = all(isinstance(each, str) for each in value)
        told = wanted.get(param.type, "a list of strings")
        if param.choices:
            right, told = right and value in param.choices, f"one of {', '.join(param.choices)}"
        elif right and param.type in (int, float):
            low, high = param.low, param.high
            # What has no bounds of its own must still be a number that the store can hold.
            right = (-(2**62) if low is None else low) <= value <= (2**62 if high is None else high)
            told += "" if low is None else f" from {low:,}"
            told += "" if high is None else f" to {high:,}"
        if not right:
            raise VecError(
                Code.INVALID_REQUEST, f"{self.name}: the param {name!r} must be {told}, not {value!r:.60}", field=name
            )
