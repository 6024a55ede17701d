"""Schedules (cron): which jobs are submitted repeatedly, and the last due time of each that has been processed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from ..errors import Code, VecError, nearest
from . import job_transitions, jobs
from .jobs import Job, NewJob
from .transaction import Transaction


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule's row. `job` has kind, params, library, priority, timeout_s."""

    name: str
    cron: str
    zone: str  # IANA name; empty: the machine's
    missed: str  # skip, once or all
    job: dict[str, Any]
    created_us: int
    last_us: int  # all due times up to here (inclusive) have been processed
    last_job: int | None = None
    error: str | None = None  # why the last job could not be submitted


_COLUMNS = "name, cron, zone, missed, job, created_us, last_us, last_job, error"


def add(tx: Transaction, schedule: Schedule, replace: bool) -> None:
    """Adds a schedule; with `replace` it replaces one of the same name, and keeps its `last_job`. Raises VecError
    `exists`."""
    if not replace and _row(tx.db, schedule.name) is not None:
        raise VecError(Code.EXISTS, f"schedule {schedule.name!r} already exists", "use --replace to replace it")
    tx.db.execute(
        f"INSERT OR REPLACE INTO schedules ({_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,"
        " (SELECT last_job FROM schedules WHERE name = ?1), NULL)",
        (schedule.name, schedule.cron, schedule.zone, schedule.missed, orjson.dumps(schedule.job).decode(),
         schedule.created_us, schedule.last_us),
    )  # fmt: skip


def remove(tx: Transaction, name: str) -> Schedule:
    """Deletes a schedule, but not its jobs; returns it. Raises VecError `not_found`."""
    schedule = find(tx.db, name)
    tx.db.execute("DELETE FROM schedules WHERE name = ?", (name,))
    return schedule


def submit(tx: Transaction, name: str, wanted: list[NewJob], pending_max: int, last_us: int | None) -> list[Job]:
    """Submits jobs of a schedule while fewer than `pending_max` of its jobs are pending, and stores `last_us`. With a
    `pending_max` of 0, submits one job if none is pending or running."""
    active = dict(
        tx.db.execute(
            "SELECT state, count(*) FROM jobs WHERE state IN ('pending', 'running') AND schedule = ? GROUP BY state",
            (name,),
        )
    )
    waiting = active.get(jobs.PENDING, 0)
    submitted: list[Job] = []
    for job in wanted:
        if waiting < pending_max or (pending_max == 0 and not active and not submitted):
            submitted.append(job_transitions.insert(tx, job)[0])
            waiting += 1
    tx.db.execute(
        "UPDATE schedules SET last_us = coalesce(?2, last_us), last_job = coalesce(?3, last_job), error = NULL"
        " WHERE name = ?1",
        (name, last_us, submitted[-1].job_id if submitted else None),
    )
    return submitted


def fail(tx: Transaction, name: str, error: str, last_us: int) -> None:
    """Records why a job could not be submitted."""
    tx.db.execute("UPDATE schedules SET last_us = ?2, error = ?3 WHERE name = ?1", (name, last_us, error))


def touch(tx: Transaction, name: str, last_us: int) -> None:
    """Marks all due times up to `last_us` (inclusive) as processed."""
    tx.db.execute("UPDATE schedules SET last_us = ?2 WHERE name = ?1", (name, last_us))


def list_all(db: apsw.Connection) -> list[Schedule]:
    """All schedules, by name."""
    return [_schedule(row) for row in db.execute(f"SELECT {_COLUMNS} FROM schedules ORDER BY name")]


def find(db: apsw.Connection, name: str) -> Schedule:
    """The schedule. Raises VecError `not_found`, which suggests the most similar name."""
    row = _row(db, name)
    if row is None:
        close = nearest(name, [each for (each,) in db.execute("SELECT name FROM schedules")])
        hint = f"did you mean {close!r}?" if close else "vec jobs schedule list shows those there are"
        raise VecError(Code.NOT_FOUND, f"schedule {name!r:.80} does not exist", hint)
    return _schedule(row)


def _row(db: apsw.Connection, name: str) -> Any:
    return db.execute(f"SELECT {_COLUMNS} FROM schedules WHERE name = ?", (name,)).fetchone()


def _schedule(row: Any) -> Schedule:
    name, cron, zone, missed, job, *rest = row
    return Schedule(name, cron, zone, missed, orjson.loads(job), *rest)
