"""Background jobs: their rows and states, and all reads. (job_transitions.py changes states.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import apsw
import orjson

from ..errors import Code, VecError
from ..units import format_time

PENDING: Final = "pending"  # waits for its due time, for other jobs, or for a worker
RUNNING: Final = "running"  # an attempt is in progress
COMPLETED: Final = "completed"  # succeeded; it has a result
FAILED: Final = "failed"  # ended by an error that a retry cannot fix
CANCELLED: Final = "cancelled"  # ended on request, or because a job that it waits for did not complete
DEAD: Final = "dead"  # attempts exhausted, or too many attempts lost in a row

ACTIVE: Final = (PENDING, RUNNING)
UNDONE: Final = (FAILED, CANCELLED, DEAD)  # ended without completing; may be retried
STATES: Final = (PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, DEAD)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit, with validated `params`."""

    kind: str
    params: dict[str, Any]
    library: str | None = None  # the library that it operates on
    priority: int = 0
    ready_us: int = 0  # earliest start
    delay_us: int = 0  # from now to `ready_us`
    unique_key: str | None = None
    lock_key: str | None = None
    timeout_s: float | None = None
    after: tuple[int, ...] = ()
    schedule: str | None = None  # the schedule that submitted it


class Job(NamedTuple):
    """A job's row. (A frozen dataclass of this size takes eight times as long to create.)"""

    job_id: int
    kind: str
    params: dict[str, Any]
    library: str | None
    priority: int
    state: str
    ready_us: int  # of a pending job: earliest start
    unique_key: str | None
    lock_key: str | None
    timeout_s: float | None
    schedule: str | None
    cancelling: bool  # running, and ends after the current step
    waits: int  # number of parents that have not completed
    attempt: int  # attempts begun
    failures: int  # attempts that ended with an error, since it was submitted or retried by hand
    crashes: int  # attempts lost in a row, without a checkpoint
    steps: int  # checkpoints committed, over all attempts
    checkpoint: dict[str, Any] | None
    done: int | None  # of `total`, in the kind's unit
    total: int | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_us: int
    started_us: int | None  # of the last attempt
    ended_us: int | None
    delay_us: int | None  # from the time that ready_us was set to ready_us; None: unknown
    worker: str | None  # of a running job: the worker outside the daemon; None: a thread of the daemon
    lease_s: float | None  # the lease of that worker; None: no lease


#: The columns of a job, in the order of its fields.
COLUMNS: Final = (
    "job_id, kind, params, library, priority, state, ready_us, unique_key, lock_key, timeout_s, schedule, cancelling,"
    " waits, attempt, failures, crashes, steps, checkpoint, done, total, result, error, created_us, started_us,"
    " ended_us, delay_us, worker, lease_s"
)


# --- reading --------------------------------------------------------------------------------------------------------


def find(db: apsw.Connection, job_id: int) -> Job:
    """Raises VecError `not_found`."""
    row = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise VecError(
            Code.NOT_FOUND,
            f"job {job_id} does not exist",
            "see vec jobs list; jobs that ended are deleted after a while",
            job_id=job_id,
        )
    return job_of(row)


def find_many(db: apsw.Connection, job_ids: Sequence[int]) -> list[Job]:
    """The jobs with these ids, in the order of their ids; missing ones are left out."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM json_each(?) AS wanted CROSS JOIN jobs ON job_id = wanted.value ORDER BY job_id",
        (as_json(list(job_ids)),),
    )
    return [job_of(row) for row in rows]


def active(db: apsw.Connection) -> Iterator[Job]:
    """All jobs that are pending or running, the oldest first."""
    rows = db.execute(f"SELECT {COLUMNS} FROM jobs WHERE state IN ('pending', 'running') ORDER BY job_id")
    return (job_of(row) for row in rows)


def of_kind(db: apsw.Connection, kind: str) -> Iterator[Job]:
    """All jobs of a kind, in any state."""
    return (job_of(row) for row in db.execute(f"SELECT {COLUMNS} FROM jobs WHERE kind = ?", (kind,)))


def counts(db: apsw.Connection) -> dict[str, int]:
    """The number of jobs by state."""
    return dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))


def page(
    db: apsw.Connection,
    *,
    states: Sequence[str] | None,
    kinds: Sequence[str] | None,
    library: str | None,
    since_us: int,
    before: int | None,
    count: int,
) -> list[Job]:
    """Up to `count` jobs submitted at `since_us` or later (inclusive), the newest first, with ids below `before`
    (exclusive; None: from the newest). None for states, kinds or library: all."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM jobs WHERE job_id < coalesce(?1, 9223372036854775807)"
        " AND (?2 IS NULL OR state IN (SELECT value FROM json_each(?2)))"
        " AND (?3 IS NULL OR kind IN (SELECT value FROM json_each(?3)))"
        " AND (?4 IS NULL OR library = ?4) AND created_us >= ?5 ORDER BY job_id DESC LIMIT ?6",
        (before, as_json(states), as_json(kinds), library, since_us, count),
    )
    return [job_of(row) for row in rows]


def attempts(db: apsw.Connection, job_id: int) -> list[dict[str, Any]]:
    """The history of a job, the oldest attempt first."""
    rows = db.execute(
        "SELECT attempt, started_us, ended_us, outcome, error, worker FROM job_attempts WHERE job_id = ?"
        " ORDER BY attempt",
        (job_id,),
    )
    return [
        {
            "attempt": attempt,
            "started_at": format_time(started_us),
            "ended_at": None if ended_us is None else format_time(ended_us),
            "outcome": outcome,
            "error": orjson.loads(error) if error else None,
            "worker": worker,
        }
        for attempt, started_us, ended_us, outcome, error, worker in rows
    ]


def waited_for(db: apsw.Connection, job_id: int) -> list[int]:
    """The ids of the jobs that this one runs after, if they still exist."""
    rows = db.execute("SELECT parent_id FROM job_waits WHERE job_id = ? ORDER BY parent_id", (job_id,))
    return [parent for (parent,) in rows]


def lines(db: apsw.Connection, job_id: int, after: int, count: int) -> list[dict[str, Any]]:
    """Up to `count` lines of a job's log after the line `after` (exclusive)."""
    rows = db.execute(
        "SELECT line, time_us, text FROM job_lines WHERE job_id = ? AND line > ? ORDER BY line LIMIT ?",
        (job_id, after, count),
    )
    return [{"line": line, "time": format_time(time_us), "text": text} for line, time_us, text in rows]


def pauses(db: apsw.Connection) -> set[str]:
    """The paused kinds. The empty string stands for all kinds."""
    return {kind for (kind,) in db.execute("SELECT kind FROM job_pauses")}


def job_of(row: Sequence[Any]) -> Job:
    """The job in a row of COLUMNS."""
    (job_id, kind, params, library, priority, state, ready_us, unique_key, lock_key, timeout_s, schedule, cancelling,
     waits, attempt, failures, crashes, steps, kept, done, total, result, error, *times) = row  # fmt: skip
    return Job(
        job_id, kind, orjson.loads(params), library, priority, state, ready_us, unique_key, lock_key, timeout_s,
        schedule, bool(cancelling), waits, attempt, failures, crashes, steps, loaded(kept), done, total,
        loaded(result), loaded(error), *times,
    )  # fmt: skip


def loaded(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def as_json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
