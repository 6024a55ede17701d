"""The state machine of jobs: each transition is part of one transaction of the writer.

    pending ──claim──> running ──finish──> completed | failed | dead | cancelled
       ^                  │
       └─ pause, retry, crash, lost lease, stop of the daemon

Rules:
- A claim marks a job's row and never deletes it, so the row always has the job's current state.
- A checkpoint is committed with the writes of its step. Only the attempt that holds the job can commit one: the number
  of the attempt is a fencing token, checked in the same transaction.
- An attempt is lost when the daemon dies during it, or when its worker outside the daemon sends no heartbeat for longer
  than its lease. Lost attempts are counted separately from failures, and a checkpoint resets their count: after
  CRASHES_MAX in a row the job is dead.
- Every transition adds a JobChange to the transaction; the in-memory state follows the commits.
- `job_waits` keeps dependencies while both jobs exist, so a retried job waits for the same parents. The column `waits`
  counts the parents that have not completed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw

from ..errors import Code, VecError
from ..units import format_time
from . import events
from .jobs import (
    ACTIVE,
    CANCELLED,
    COLUMNS,
    COMPLETED,
    DEAD,
    FAILED,
    PENDING,
    RUNNING,
    Job,
    NewJob,
    as_json,
    find,
    job_of,
    loaded,
)
from .transaction import JobChange, Transaction

#: Attempts lost in a row, without a checkpoint between them, after which the job is dead.
CRASHES_MAX: Final = 3

#: The event type for each final state.
_EVENT: Final = {
    COMPLETED: events.JOB_COMPLETED,
    FAILED: events.JOB_FAILED,
    DEAD: events.JOB_FAILED,
    CANCELLED: events.JOB_CANCELLED,
}


class Superseded(Exception):
    """The attempt no longer holds the job."""


class OutOfOrder(Superseded):
    """The attempt holds the job, which has `steps` checkpoints, not as many as the attempt says."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"the job has {steps} checkpoints")
        self.steps = steps


class Repeated(Exception):
    """The attempt has committed this checkpoint already."""


class Ending(NamedTuple):
    """The end of an attempt. `state` is pending if another attempt follows, at `ready_us` or later."""

    job: Job
    state: str
    outcome: str  # for the history: completed, failed, timeout, cancelled, paused, stopped
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    ready_us: int = 0
    delay_us: int = 0  # from now to `ready_us`


def insert(tx: Transaction, wanted: NewJob) -> tuple[Job, bool]:
    """Submits a job. Returns it and True; or the pending or running job with the same unique key, and False.

    Raises VecError `not_found` for a missing job in `after`, `invalid_request` for one that will not complete. The job
    that has the unique key may be one that is being cancelled: see `Job.cancelling`.
    """
    if wanted.unique_key is not None:
        there = tx.db.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE unique_key = ? AND state IN ('pending', 'running')",
            (wanted.unique_key,),
        ).fetchone()
        if there is not None:
            return job_of(there), False
    parents = dict.fromkeys(wanted.after)
    waits = sum(not _completed(tx.db, each) for each in parents)
    row = tx.db.execute(
        "INSERT INTO jobs (kind, params, library, priority, state, ready_us, unique_key, lock_key, timeout_s, schedule,"
        " waits, created_us, delay_us) VALUES (?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?)"
        f" RETURNING {COLUMNS}",
        (wanted.kind, as_json(wanted.params), wanted.library, wanted.priority, wanted.ready_us, wanted.unique_key,
         wanted.lock_key, wanted.timeout_s, wanted.schedule, waits, tx.time_us,
         wanted.delay_us),
    ).get  # fmt: skip
    job = job_of(row)
    for parent in parents:
        tx.db.execute("INSERT INTO job_waits VALUES (?, ?)", (parent, job.job_id))
    about = {"schedule": job.schedule} if job.schedule else {}
    _log(tx, events.JOB_SUBMITTED, job, about)
    tx.jobs.append(JobChange(job.job_id, None, job))
    return job, True


def _completed(db: apsw.Connection, job_id: int) -> bool:
    """Whether a job that another one waits for has completed. Raises VecError as `insert` does."""
    state = db.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).get
    if state is None:
        raise VecError(Code.NOT_FOUND, f"job {job_id}, which this job runs after, does not exist", job_id=job_id)
    if state not in (*ACTIVE, COMPLETED):
        raise VecError(Code.INVALID_REQUEST, f"job {job_id} is {state}, so a job after it cannot run", field="after")
    return bool(state == COMPLETED)


def claim(tx: Transaction, job_id: int, worker: str | None = None, lease_s: float | None = None) -> Job | None:
    """Begins an attempt; None if the job is no longer pending. A `worker` outside the daemon has a lease."""
    row = tx.db.execute(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, started_us = ?2, ended_us = NULL, worker = ?3,"
        f" lease_s = ?4 WHERE job_id = ?1 AND state = 'pending' AND waits = 0 RETURNING {COLUMNS}",
        (job_id, tx.time_us, worker, lease_s),
    ).fetchone()
    if row is None:
        return None
    job = job_of(row)
    tx.db.execute(
        "INSERT INTO job_attempts (job_id, attempt, started_us, worker) VALUES (?, ?, ?, ?)",
        (job_id, job.attempt, tx.time_us, worker),
    )
    about = {"attempt": job.attempt} if worker is None else {"attempt": job.attempt, "worker": worker}
    _log(tx, events.JOB_STARTED, job, about)
    tx.jobs.append(JobChange(job_id, PENDING, job))
    return job


def check_fence(tx: Transaction, job_id: int, attempt: int, number: int) -> Any:
    """The last checkpoint of a job, provided that `attempt` still holds it and `number` checkpoints were made before.

    The attempt number is the fencing token: it grows with each claim, so an attempt that has lost its job can write
    nothing more. The number of checkpoints keeps steps in order: if one cannot be written, neither can later ones.

    Raises Superseded, OutOfOrder, or Repeated if this checkpoint was committed before.
    """
    row = tx.db.execute(
        "SELECT steps, checkpoint FROM jobs WHERE job_id = ? AND attempt = ? AND state = 'running'", (job_id, attempt)
    ).fetchone()
    if row is not None and row[0] == number + 1:
        raise Repeated
    if row is None:
        raise Superseded
    if row[0] != number:
        raise OutOfOrder(row[0])
    return loaded(row[1])


def checkpoint(tx: Transaction, job_id: int, value: Any, done: int | None, total: int | None) -> None:
    """Stores a checkpoint. `done` and `total`: None leaves the count as it is. Call it after `check_fence`, in the
    same transaction."""
    tx.db.execute(
        "UPDATE jobs SET checkpoint = ?2, done = ifnull(?3, done), total = ifnull(?4, total), steps = steps + 1,"
        " crashes = 0 WHERE job_id = ?1",
        (job_id, as_json(value), done, total),
    )


def finish(tx: Transaction, ending: Ending) -> Job:
    """Ends an attempt; returns the job. A job being cancelled becomes cancelled, not pending. Raises Superseded."""
    job = ending.job
    row = tx.db.execute(
        "UPDATE jobs SET state = iif(?3 = 'pending' AND cancelling, 'cancelled', ?3), ready_us = ?4, delay_us = ?9,"
        " result = ?5, error = ?6, cancelling = 0, failures = failures + ?7, worker = NULL, lease_s = NULL,"
        " ended_us = iif(?3 = 'pending' AND NOT cancelling, NULL, ?8)"
        f" WHERE job_id = ?1 AND attempt = ?2 AND state = 'running' RETURNING {COLUMNS}",
        (job.job_id, job.attempt, ending.state, ending.ready_us, as_json(ending.result), as_json(ending.error),
         ending.outcome in ("failed", "timeout"), tx.time_us, ending.delay_us),
    ).fetchone()  # fmt: skip
    if row is None:
        raise Superseded
    tx.db.execute(
        "UPDATE job_attempts SET ended_us = ?3, outcome = ?4, error = ?5 WHERE job_id = ?1 AND attempt = ?2",
        (job.job_id, job.attempt, tx.time_us, ending.outcome, as_json(ending.error)),
    )
    ended = job_of(row)
    tx.jobs.append(JobChange(job.job_id, RUNNING, ended))
    if ended.state != PENDING:
        _end(tx, ended)
    elif ending.error is not None:
        at = {"attempt": ended.attempt, "state": PENDING, "ready_at": format_time(ended.ready_us)}
        _log(tx, events.JOB_FAILED, ended, {**at, "error": ending.error})
    return ended


def _end(tx: Transaction, job: Job) -> None:
    """Logs the end of a job. If it completed, the jobs that wait for it may run; otherwise they are cancelled."""
    about: dict[str, Any] = {"attempt": job.attempt, "state": job.state}
    if job.result is not None:
        about["result"] = job.result
    if job.error is not None:
        about["error"] = job.error
    _log(tx, _EVENT[job.state], job, about)
    waiting: list[Any] = tx.db.execute(
        "SELECT job_id FROM job_waits WHERE parent_id = ? ORDER BY job_id", (job.job_id,)
    ).fetchall()
    for (child_id,) in waiting:
        if job.state == COMPLETED:
            row = tx.db.execute(
                f"UPDATE jobs SET waits = waits - 1 WHERE job_id = ? AND state = 'pending' RETURNING {COLUMNS}",
                (child_id,),
            ).fetchone()
            if row is not None:
                tx.jobs.append(JobChange(child_id, PENDING, job_of(row)))
        else:
            error = VecError(
                Code.CANCELLED,
                f"job {job.job_id}, which it was to run after, is {job.state}",
                f"vec jobs retry {job.job_id}, then this one",
            )
            _cancel_pending(tx, child_id, error.to_wire())


def _cancel_pending(tx: Transaction, job_id: int, error: dict[str, Any] | None) -> Job | None:
    row = tx.db.execute(
        "UPDATE jobs SET state = 'cancelled', ended_us = ?2, error = ?3, waits = 0"
        f" WHERE job_id = ?1 AND state = 'pending' RETURNING {COLUMNS}",
        (job_id, tx.time_us, as_json(error)),
    ).fetchone()
    if row is None:
        return None
    job = job_of(row)
    tx.jobs.append(JobChange(job_id, PENDING, job))
    _end(tx, job)
    return job


def cancel(tx: Transaction, job_id: int) -> Job:
    """Ends a pending job now; marks a running one, which ends after its step; does nothing to one that has ended.

    Raises VecError `not_found`.
    """
    job = find(tx.db, job_id)
    if job.state == PENDING:
        cancelled = _cancel_pending(tx, job_id, None)
        assert cancelled is not None
        return cancelled
    if job.state == RUNNING and not job.cancelling:
        row = tx.db.execute(f"UPDATE jobs SET cancelling = 1 WHERE job_id = ? RETURNING {COLUMNS}", (job_id,)).get
        job = job_of(row)
        tx.jobs.append(JobChange(job_id, RUNNING, job))
    return job


def retry(tx: Transaction, job_id: int, begins_again: Collection[str] = ()) -> Job:
    """Makes a failed, dead or cancelled job pending again. It resumes at its checkpoint, with its failure counts at 0;
    a job of one of the kinds `begins_again` restarts without its checkpoint.

    It waits for its parents again. The delay of a job that never began still applies.

    Raises VecError `not_found`, `invalid_request` for a job in another state or after a job that will not complete,
    `exists` if another job has its unique key, or `busy` while it, or that other job, is being cancelled.
    """
    job = find(tx.db, job_id)
    if job.cancelling:
        raise being_cancelled(job)
    if job.state not in (FAILED, DEAD, CANCELLED):
        why = "there is nothing to retry" if job.state == COMPLETED else "it need not be retried"
        raise VecError(Code.INVALID_REQUEST, f"job {job_id} is {job.state}: {why}", job_id=job_id)
    if job.unique_key is not None:
        row = tx.db.execute(
            f"SELECT {COLUMNS} FROM jobs WHERE unique_key = ? AND state IN ('pending', 'running')", (job.unique_key,)
        ).fetchone()
        if row is not None:
            other = job_of(row)
            if other.cancelling:
                raise being_cancelled(other)
            raise VecError(
                Code.EXISTS,
                f"job {other.job_id} has the unique key {job.unique_key!r} of job {job_id}",
                job_id=other.job_id,
            )
    if job.kind in begins_again:
        tx.db.execute("UPDATE jobs SET checkpoint = NULL, done = NULL, total = NULL WHERE job_id = ?", (job_id,))
    row = tx.db.execute(
        "UPDATE jobs SET state = 'pending', ready_us = iif(attempt = 0, ready_us, 0), failures = 0, crashes = 0,"
        f" error = NULL, result = NULL, ended_us = NULL, waits = ?2 WHERE job_id = ?1 RETURNING {COLUMNS}",
        (job_id, _uncompleted_parents(tx.db, job_id)),
    ).get
    retried = job_of(row)
    _log(tx, events.JOB_SUBMITTED, retried, {"retried": True})
    tx.jobs.append(JobChange(job_id, job.state, retried))
    return retried


def _uncompleted_parents(db: apsw.Connection, job_id: int) -> int:
    """The number of parents that a job still waits for. Raises VecError `invalid_request` if one will not complete."""
    rows: list[Any] = db.execute(
        "SELECT parent_id, state FROM job_waits LEFT JOIN jobs ON jobs.job_id = parent_id WHERE job_waits.job_id = ?"
        " ORDER BY parent_id",
        (job_id,),
    ).fetchall()
    for parent_id, state in rows:
        if state is None:
            raise VecError(
                Code.INVALID_REQUEST,
                f"job {job_id} runs after job {parent_id}, which was dropped before it completed",
                "submit it as a new job",
                job_id=job_id,
            )
        if state not in (*ACTIVE, COMPLETED):
            raise VecError(
                Code.INVALID_REQUEST,
                f"job {job_id} runs after job {parent_id}, which is {state}",
                f"retry both: vec jobs retry {parent_id} {job_id}",
                job_id=job_id,
            )
    return sum(state != COMPLETED for _, state in rows)


def being_cancelled(job: Job) -> VecError:
    """The error of a request that must wait until a job that is being cancelled has ended."""
    return VecError(
        Code.BUSY,
        f"job {job.job_id} is being cancelled, and its current step has not ended yet",
        f"try again when it has ended: vec jobs wait {job.job_id}",
        job_id=job.job_id,
    )


def postpone(tx: Transaction, ready_us: Mapping[int, int]) -> None:
    """Sets new due times, by job id. Skips jobs that are not pending or have no due time."""
    for job_id, due_us in ready_us.items():
        row = tx.db.execute(
            f"UPDATE jobs SET ready_us = ?2 WHERE job_id = ?1 AND state = 'pending' AND ready_us > 0"
            f" RETURNING {COLUMNS}",
            (job_id, due_us),
        ).fetchone()
        if row is not None:
            tx.jobs.append(JobChange(job_id, PENDING, job_of(row)))


def drop(tx: Transaction, job_id: int) -> Job:
    """Deletes a job that has ended. Raises VecError `not_found`, or `invalid_request` for one that has not."""
    job = find(tx.db, job_id)
    if job.state in ACTIVE:
        raise VecError(Code.INVALID_REQUEST, f"job {job_id} is {job.state}", f"vec jobs cancel {job_id} first")
    for library in tx.catalogue.by_name.values():
        if library.switch_job == job_id:
            raise VecError(
                Code.INVALID_REQUEST,
                f"job {job_id} has replaced only some of the documents in library {library.name!r}; searches of the"
                " others need its vectors",
                f"vec jobs retry {job_id}",
            )
    _delete(tx, [job])
    tx.jobs.append(JobChange(job_id, job.state, None))
    return job


def prune(tx: Transaction, before_us: int, kept: int, count: int) -> list[Job]:
    """Deletes up to `count` completed or cancelled jobs: those that ended before `before_us` (exclusive), and the
    oldest beyond `kept`. Failed and dead jobs are kept until a person drops them, and a reembed until all documents
    have been replaced."""
    switching = [each.switch_job for each in tx.catalogue.by_name.values() if each.switch_job is not None]
    rows = tx.db.execute(
        f"SELECT {COLUMNS} FROM jobs WHERE state IN ('completed', 'cancelled') AND (ended_us < ?1 OR job_id <="
        " (SELECT job_id FROM jobs WHERE state IN ('completed', 'cancelled') ORDER BY job_id DESC LIMIT 1 OFFSET ?2))"
        " AND job_id NOT IN (SELECT value FROM json_each(?4)) ORDER BY job_id LIMIT ?3",
        (before_us, kept, count, as_json(switching)),
    ).fetchall()
    gone = [job_of(row) for row in rows]
    _delete(tx, gone)
    tx.jobs += [JobChange(job.job_id, job.state, None) for job in gone]
    return gone


def _delete(tx: Transaction, gone: Sequence[Job]) -> None:
    """Deletes jobs. Children of one that did not complete keep their row in job_waits, so they can never run."""
    job_ids = as_json([job.job_id for job in gone])
    for table in ("jobs", "job_attempts", "job_lines", "job_drafts", "job_waits"):
        tx.db.execute(f"DELETE FROM {table} WHERE job_id IN (SELECT value FROM json_each(?))", (job_ids,))
    completed = as_json([job.job_id for job in gone if job.state == COMPLETED])
    tx.db.execute("DELETE FROM job_waits WHERE parent_id IN (SELECT value FROM json_each(?))", (completed,))


def recover(tx: Transaction) -> list[Job]:
    """Ends the attempts of a daemon that died, when the store is opened; returns their jobs. Workers outside the daemon
    may still be running, and keep their attempts."""
    rows: list[Any] = tx.db.execute(f"SELECT {COLUMNS} FROM jobs WHERE state = 'running' AND worker IS NULL").fetchall()
    return [_lost(tx, job, "crashed", f"the daemon died while job {job.job_id} ran") for job in map(job_of, rows)]


def expire(tx: Transaction, job_id: int, attempt: int) -> Job | None:
    """Ends an attempt whose lease has expired; None if it has ended already."""
    row = tx.db.execute(
        f"SELECT {COLUMNS} FROM jobs WHERE job_id = ? AND attempt = ? AND state = 'running'", (job_id, attempt)
    ).fetchone()
    if row is None:
        return None
    job = job_of(row)
    what = f"the worker {job.worker!r} was silent for more than {job.lease_s or 0:g} s while it had job {job_id}"
    return _lost(tx, job, "expired", what)


def _lost(tx: Transaction, job: Job, outcome: str, what: str) -> Job:
    """Ends a lost attempt. The job becomes cancelled if that was requested, dead after CRASHES_MAX lost attempts
    without a checkpoint, otherwise pending."""
    crashes = job.crashes + 1
    state = CANCELLED if job.cancelling else DEAD if crashes >= CRASHES_MAX else PENDING
    error = VecError(
        Code.CRASHED,
        f"{what}; {crashes} attempts in a row have ended like this, without a checkpoint" if crashes > 1 else what,
        "see the daemon's log; use vec jobs retry to try it again" if state == DEAD else None,
    ).to_wire()
    row = tx.db.execute(
        "UPDATE jobs SET state = ?2, crashes = ?3, error = iif(?2 = 'dead', ?4, NULL), ready_us = 0, worker = NULL,"
        f" lease_s = NULL, cancelling = 0, ended_us = iif(?2 = 'pending', NULL, ?5) WHERE job_id = ?1"
        f" RETURNING {COLUMNS}",
        (job.job_id, state, crashes, as_json(error), tx.time_us),
    ).get
    tx.db.execute(
        "UPDATE job_attempts SET ended_us = ?3, outcome = ?5, error = ?4 WHERE job_id = ?1 AND attempt = ?2",
        (job.job_id, job.attempt, tx.time_us, as_json(error), outcome),
    )
    lost = job_of(row)
    tx.jobs.append(JobChange(job.job_id, RUNNING, lost))
    if state != PENDING:
        _end(tx, lost)
    else:
        _log(tx, events.JOB_FAILED, lost, {"attempt": lost.attempt, "state": PENDING, "error": error})
    return lost


def pause(tx: Transaction, kinds: Iterable[str]) -> None:
    """Prevents jobs of these kinds from beginning. The empty string stands for all kinds."""
    for kind in kinds:
        tx.db.execute("INSERT OR IGNORE INTO job_pauses VALUES (?)", (kind,))


def resume(tx: Transaction, kinds: Iterable[str]) -> None:
    """Ends the pauses of these kinds. The empty string ends the pause of all kinds, not those of single kinds."""
    for kind in kinds:
        tx.db.execute("DELETE FROM job_pauses WHERE kind = ?", (kind,))


def say(tx: Transaction, job_id: int, lines: Sequence[str], kept: int) -> None:
    """Appends lines to a job's log, up to `kept` in total."""
    count = tx.db.execute("SELECT coalesce(max(line), 0) FROM job_lines WHERE job_id = ?", (job_id,)).get
    for place, text in enumerate(lines[: max(0, kept - count)], count + 1):
        tx.db.execute("INSERT INTO job_lines VALUES (?, ?, ?, ?)", (job_id, place, tx.time_us, text))


def _log(tx: Transaction, kind: int, job: Job, about: dict[str, Any]) -> None:
    library = tx.catalogue.by_name.get(job.library) if job.library is not None else None
    data = {"job_id": job.job_id, "kind": job.kind, **about}
    events.append(tx, kind, library.library_id if library is not None else None, as_json(data) or "{}")
