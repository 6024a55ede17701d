"""The operations on jobs: submit, list, show, wait, cancel, retry, drop, pause, resume, logs, and the overview."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .. import limits
from ..engine.documents import published
from ..errors import Code, VecError, nearest
from ..store import events
from ..store import job_transitions as transitions
from ..store import jobs as store
from ..store.jobs import Job, NewJob
from ..store.transaction import Transaction
from ..units import format_time
from ..write_order import WriteSlot
from . import kinds
from .clocks import wall_us
from .jobs import Jobs


@dataclass(frozen=True, slots=True)
class JobFilter:
    """A filter for jobs. None: all."""

    states: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    library: str | None = None
    since_s: float | None = None  # submitted within this time


# --- submitting -----------------------------------------------------------------------------------------------------


def wanted(
    jobs: Jobs,
    kind: str,
    params: Mapping[str, Any],
    *,
    library: str | None = None,
    priority: int = 0,
    delay_s: float | None = None,
    after: Sequence[int] = (),
    unique: str | None = None,
    lock: str | None = None,
    timeout_s: float | None = None,
    schedule: str | None = None,
) -> NewJob:
    """Validates a job before it is submitted. Raises VecError `unsupported`, `invalid_request` or `not_found`."""
    about = kinds.find(kind)
    library = library or about.library_default
    checked = about.checked(jobs.engine, library, params)
    if len(orjson.dumps(checked)) > limits.JOB_PARAMS_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST, f"a job's params may take {limits.JOB_PARAMS_BYTES_MAX:,} bytes", field="params"
        )
    delay_us = int(delay_s * 1e6) if delay_s else 0
    ready_us = wall_us() + delay_us if delay_us else 0
    return NewJob(kind, checked, library, priority, ready_us, delay_us, unique, lock, timeout_s, tuple(after), schedule)


async def submit(jobs: Jobs, job: NewJob, slot: WriteSlot) -> dict[str, Any]:
    """Submits a job, after the sender's earlier writes; returns it, or the existing job with its unique key, with
    `existing` true.

    If that job is being cancelled, waits for it to end. Raises VecError `busy` if that takes too long.
    """
    frees = kinds.find(job.kind).frees
    async with slot:
        future = jobs.engine.database.submit(lambda tx: transitions.insert(tx, job), frees=frees, sender=slot.sender)
    submitted, new = await asyncio.wrap_future(future)
    deadline = asyncio.get_running_loop().time() + limits.CANCEL_WAIT_S
    while not new and submitted.cancelling:
        if not await _ended(jobs, submitted.job_id, deadline):
            raise transitions.being_cancelled(submitted)
        submitted, new = await _write(jobs, lambda tx: transitions.insert(tx, job), frees=frees)
    return {**described(jobs, submitted), "existing": not new}


async def _ended(jobs: Jobs, job_id: int, deadline: float) -> bool:
    """Waits until a job that is being cancelled has ended, or until `deadline` on the loop's clock; returns whether it
    has ended."""
    with jobs.awaiting([job_id]) as moved:
        while True:
            moved.clear()  # before reading: a move during the read wakes us again
            if not any(job.cancelling for job in await _these(jobs, [job_id])):
                return True
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), left_s)


# --- reading --------------------------------------------------------------------------------------------------------


def overview(jobs: Jobs) -> dict[str, Any]:
    """The number of jobs by state, the pauses, and what embeds outside the daemon. From memory."""
    dispatcher = jobs.dispatcher
    executor = jobs.engine.executor.status()
    return {**dispatcher.counts, "workers": jobs.threads.count, "paused": dispatcher.paused, "executor": executor}


def all_kinds() -> list[dict[str, Any]]:
    """The table of kinds, for people: `{"kind","what","library","runs","params"}`; each of `params` has `name`, `what`,
    `valid` (its values, in words) and `required`."""
    return [
        {
            "kind": name,
            "what": kind.what,
            "library": kind.library,
            "runs": kind.runs,
            "params": [
                {"name": param, "what": each.what, "valid": each.valid, "required": each.required}
                for param, each in kind.params.items()
            ],
        }
        for name, kind in kinds.KINDS.items()
    ]


async def status(jobs: Jobs) -> dict[str, Any]:
    """The overview, and the running jobs."""
    running = await _these(jobs, jobs.dispatcher.running)
    return {**overview(jobs), "jobs": [described(jobs, job) for job in running if job.state == store.RUNNING]}


def page(jobs: Jobs, listing: JobFilter, before: int | None, count: int) -> list[Job]:
    """Up to `count` jobs, newest first, below the id `before` (exclusive). Blocks.

    Raises VecError `invalid_request` for an unknown state, `unsupported` for an unknown kind.
    """
    for state in listing.states or ():
        if state not in store.STATES:
            close = nearest(state, store.STATES)
            hint = f"did you mean {close!r}?" if close else f"states: {', '.join(store.STATES)}"
            raise VecError(Code.INVALID_REQUEST, f"jobs have no state {state!r:.60}", hint, field="states")
    for kind in listing.kinds or ():
        kinds.find(kind)
    since_us = 0 if listing.since_s is None else wall_us() - int(listing.since_s * 1e6)
    with jobs.engine.database.read_transaction() as db:
        return store.page(
            db, states=listing.states, kinds=listing.kinds, library=listing.library, since_us=since_us, before=before,
            count=count,
        )  # fmt: skip


def show(jobs: Jobs, job_id: int) -> dict[str, Any]:
    """The details of a job, with its attempts. Blocks. Raises VecError `not_found`."""
    with jobs.engine.database.read_transaction() as db:
        job = store.find(db, job_id)
        attempts, after = store.attempts(db, job_id), store.waited_for(db, job_id)
    return {
        **described(jobs, job),
        "params": kinds.KINDS[job.kind].shown(jobs.engine, job.params) if job.kind in kinds.KINDS else job.params,
        "ready_at": format_time(job.ready_us) if job.ready_us else None,
        "after": after,
        "unique": job.unique_key,
        "lock": job.lock_key,
        "timeout_s": job.timeout_s,
        "cancelling": job.cancelling,
        "failures": job.failures,
        "crashes": job.crashes,
        "checkpoint": job.checkpoint,
        "attempts": attempts,
    }


def lines(jobs: Jobs, job_id: int, after: int) -> list[dict[str, Any]]:
    """A page of a job's log, after the line `after` (exclusive). Blocks. Raises VecError `not_found`."""
    with jobs.engine.database.read_transaction() as db:
        store.find(db, job_id)
        return store.lines(db, job_id, after, limits.JOBS_PAGE)


async def wait(
    jobs: Jobs,
    job_ids: Sequence[int],
    *,
    one: bool,
    timeout_s: float | None,
    every_s: float | None,
    before_read: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """The current states of jobs, whenever one of them has changed, and every `every_s` seconds; ends when all (with
    `one`: any) have ended.

    `before_read` is awaited before each read, for flow control. Raises VecError `not_found`, also for a job that is
    dropped later; TimeoutError after `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout_s is None else loop.time() + timeout_s
    ids = sorted(set(job_ids))
    with jobs.awaiting(ids) as moved:
        while True:
            if before_read is not None:
                await before_read()
            moved.clear()  # before reading: a move during the read wakes us again
            found = await _these(jobs, ids)
            if missing := set(ids) - {job.job_id for job in found}:
                raise VecError(Code.NOT_FOUND, f"job {min(missing)} does not exist", job_id=min(missing))
            yield [described(jobs, job) for job in found]
            ended = [job.state not in store.ACTIVE for job in found]
            if all(ended) or (one and any(ended)):
                return
            left_s = None if deadline is None else deadline - loop.time()
            if left_s is not None and left_s <= 0:
                raise TimeoutError
            waits = [each for each in (left_s, every_s) if each is not None]
            try:
                await asyncio.wait_for(moved.wait(), min(waits) if waits else None)
            except TimeoutError:
                continue


def described(jobs: Jobs, job: Job) -> dict[str, Any]:
    """A job, for an answer."""
    progress = jobs.dispatcher.progress(job.job_id) if job.state == store.RUNNING else None
    if progress is None:
        progress = {"done": job.done, "total": job.total, "rate": None, "left_s": None}
    unit = kinds.KINDS[job.kind].unit if job.kind in kinds.KINDS else "steps"
    return {
        "job_id": job.job_id,
        "kind": job.kind,
        "library": job.library,
        "state": job.state,
        "priority": job.priority,
        "attempt": job.attempt,
        "progress": None if progress["done"] is None else {**progress, "unit": unit},
        "created_at": format_time(job.created_us),
        "started_at": None if job.started_us is None else format_time(job.started_us),
        "completed_at": None if job.ended_us is None else format_time(job.ended_us),
        "result": job.result,
        "error": job.error,
        "schedule": job.schedule,
    }


async def _these(jobs: Jobs, job_ids: Sequence[int]) -> list[Job]:
    """The jobs with these ids, as of a commit that the rest of the daemon has seen."""

    def read() -> tuple[list[Job], int]:
        with jobs.engine.database.read_transaction() as db:
            return store.find_many(db, job_ids), events.head(db)

    found, seq = await jobs.engine.read(read)
    await published(jobs.engine, seq)
    return found


# --- changing -------------------------------------------------------------------------------------------------------


async def cancel(jobs: Jobs, job_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Cancels jobs: pending ones at once, running ones after their current step, for which it waits a short time. Jobs
    that have ended do not change. Raises VecError `not_found`; then none is cancelled."""
    with jobs.awaiting(job_ids) as moved:
        changed = await _write(jobs, lambda tx: [transitions.cancel(tx, job_id) for job_id in job_ids], frees=True)
        await jobs.engine.read(jobs.abandon, [job for job in changed if job.state == store.CANCELLED])
        deadline = asyncio.get_running_loop().time() + limits.CANCEL_WAIT_S
        while True:
            moved.clear()
            found = await _these(jobs, job_ids)
            left_s = deadline - asyncio.get_running_loop().time()
            if not any(job.state == store.RUNNING for job in found) or left_s <= 0:
                return [described(jobs, job) for job in found]
            try:
                await asyncio.wait_for(moved.wait(), left_s)
            except TimeoutError:
                continue


async def retry(jobs: Jobs, job_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Retries ended jobs from their checkpoints, or from the start if their kind requires it. Raises what
    job_transitions.retry raises; then none is retried."""
    again = {kind.name for kind in kinds.KINDS.values() if kind.begins_again}

    # Oldest first: a job is retried before the jobs that run after it.
    def retried(tx: Transaction) -> dict[int, Job]:
        return {job_id: transitions.retry(tx, job_id, again) for job_id in sorted(set(job_ids))}

    moved = await _write(jobs, retried, frees=True)  # it may be a trim, which frees space on a full disk
    return [described(jobs, moved[job_id]) for job_id in job_ids]


async def drop(jobs: Jobs, job_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Deletes ended jobs. Raises what job_transitions.drop raises; then none is dropped."""
    dropped = await _write(jobs, lambda tx: [transitions.drop(tx, job_id) for job_id in job_ids], frees=True)
    await jobs.engine.read(jobs.forget, dropped)
    return [described(jobs, job) for job in dropped]


async def pause(jobs: Jobs, paused: Sequence[str]) -> dict[str, Any]:
    """Starts no more jobs of these kinds (none given: of all kinds); running ones stop after their current step and
    become pending."""
    names = _kinds(paused)
    await _write(jobs, lambda tx: transitions.pause(tx, names), frees=True)
    jobs.dispatcher.pause(names)
    return overview(jobs)


async def resume(jobs: Jobs, resumed: Sequence[str]) -> dict[str, Any]:
    """Ends the pauses of these kinds; none given: all pauses."""
    names = _kinds(resumed) if resumed else jobs.dispatcher.paused
    await _write(jobs, lambda tx: transitions.resume(tx, names), frees=True)
    jobs.dispatcher.resume(names)
    return overview(jobs)


def _kinds(names: Sequence[str]) -> list[str]:
    """Validates kinds; `` stands for all kinds, if none is given. Raises VecError `unsupported`."""
    return [kinds.find(name).name for name in names] or [""]


async def _write(jobs: Jobs, work: Callable[[Transaction], Any], *, frees: bool = False) -> Any:
    return await asyncio.wrap_future(jobs.engine.database.submit(work, frees=frees))
