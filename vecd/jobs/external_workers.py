"""Workers outside the daemon: the ops jobs.claim, jobs.heartbeat, jobs.checkpoint, jobs.finish and jobs.workers; and
tasks.heartbeat and tasks.finish, for the tasks that a claim may answer with (workers/leased_tasks.py).

This module adapts the dispatcher to the event loop, and validates input of other processes. A worker that did not get
an answer repeats its request: a checkpoint or an end that was committed before is answered, but not applied twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import orjson

from .. import limits
from ..errors import Code, VecError
from ..store import jobs as store
from ..store.job_transitions import Ending, OutOfOrder, Repeated, Superseded
from ..store.jobs import Job
from ..workers.leased_tasks import TASK_KINDS, Lease, Takes
from . import kinds, operations
from .dispatcher import lease_lost
from .effects import decode
from .jobs import Jobs
from .kinds.kind import Step
from .leases import Attempt
from .retry_policy import failed, stopped
from .waiting_workers import Claim, WaitingWorker

T = TypeVar("T")

#: Outcomes, in the history of a job, of attempts that were ended by their workers.
_ENDED_BY_WORKER = ("completed", "failed", "cancelled", "paused", "stopped", "timeout")


async def claim(
    jobs: Jobs, worker: str, wanted: Sequence[str], *, embedders: Sequence[str], lease_s: float, wait_s: float
) -> dict[str, Any]:
    """Gives a worker the next task or job of these kinds; waits up to `wait_s` for one. Returns `job` and `task`; both
    are None if there is none. Tasks for other embedders than `embedders` are not for this worker.

    Raises VecError `unsupported` for an unknown kind, or one whose jobs run inside the daemon only.
    """
    takes = _takes(wanted, embedders)
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        begun = jobs.dispatcher.claim(worker, takes, lease_s)
        if begun is None:
            begun = await _wait_for_claim(jobs, worker, takes, lease_s, deadline)
        if begun is None:
            return {"job": None, "task": None}
        try:
            given = await _committed(begun)
        except asyncio.CancelledError:  # the worker gets the job if it is still connected
            given = await _committed(begun)
        if given is not None:
            jobs.leases.wake()
            if isinstance(given, Lease):
                return {"job": None, "task": _task(given)}
            return {"job": _claimed(given), "task": None}
        # it was cancelled before the claim


def _takes(wanted: Sequence[str], embedders: Sequence[str]) -> Takes:
    """Raises VecError `unsupported`."""
    own = frozenset(wanted).difference(TASK_KINDS)
    for name in sorted(own):
        if kinds.find(name).runs == "inside":
            claimable = ", ".join((*TASK_KINDS, *(each.name for each in kinds.KINDS.values() if each.runs != "inside")))
            raise VecError(
                Code.UNSUPPORTED,
                f"jobs of the kind {name!r} run inside the daemon only",
                f"kinds that workers can claim: {claimable}",
                field="kinds",
            )
    return Takes(own, frozenset(wanted).intersection(TASK_KINDS), frozenset(embedders))


async def _wait_for_claim(jobs: Jobs, name: str, takes: Takes, lease_s: float, deadline: float) -> Claim | None:
    """The claim of a worker that waits for its turn; None at the deadline, if its request is cancelled, or if the
    daemon stops."""
    loop = asyncio.get_running_loop()
    if (left_s := deadline - loop.time()) <= 0:
        return None
    woken = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    worker = WaitingWorker(name, takes, lease_s, wake)
    jobs.dispatcher.wait_for_job(worker)
    jobs.due.wake()
    gone = False
    try:
        await asyncio.wait_for(woken.wait(), left_s)
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        gone = True
    # Whatever ended the wait, it may have been given work just now.
    return jobs.dispatcher.stop_waiting(worker, gone=gone)


def _claimed(job: Job) -> dict[str, Any]:
    """A job, for its worker. `attempt` is the fencing number, `steps` the number of the next checkpoint."""
    return {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "kind": job.kind,
        "library": job.library,
        "params": job.params,
        "checkpoint": job.checkpoint,
        "steps": job.steps,
        "done": job.done,
        "total": job.total,
        "timeout_s": job.timeout_s,
        "lease_s": job.lease_s,
    }


def _task(lease: Lease) -> dict[str, Any]:
    """A task, for its worker. `task_id` belongs to this claim: it is the fencing token."""
    task = lease.task
    return {
        "task_id": lease.task_id,
        "kind": task.batch.kind,
        "embedder": task.batch.embedder,
        "texts": list(task.texts),
        "library": task.batch.library,
        "job_id": task.batch.job_id,
        "lease_s": lease.lease_s,
    }


def heartbeat_task(jobs: Jobs, task_id: str) -> dict[str, Any]:
    """Extends the lease of a task. Raises VecError `lease_lost`."""
    return {"lease_s": jobs.engine.leased.heartbeat(task_id).lease_s}


def finish_task(jobs: Jobs, task_id: str, vectors: bytes | None, error: VecError | None) -> None:
    """Ends the claim of a task: with vectors, with an error, or with neither: then the worker returns it. Raises
    VecError `lease_lost` or `invalid_request`."""
    jobs.engine.leased.finish(task_id, vectors, error)


def heartbeat(jobs: Jobs, job_id: int, number: int, *, done: int | None, total: int | None) -> dict[str, Any]:
    """Extends a lease. Raises VecError `lease_lost`."""
    return _lease_state(jobs.dispatcher.heartbeat(job_id, number, done, total))


def _lease_state(attempt: Attempt) -> dict[str, Any]:
    """The part of each answer that says why the worker must stop, if it must, and the length of its lease."""
    return {"stop": attempt.reason, "lease_s": attempt.lease_s}


async def checkpoint(
    jobs: Jobs,
    job_id: int,
    number: int,
    *,
    step: int,
    value: Any,
    effect: dict[str, Any] | None,
    done: int | None,
    total: int | None,
    lines: Sequence[str],
) -> dict[str, Any]:
    """Commits a step; `step` is the number of earlier checkpoints of the job.

    Returns the answer of a heartbeat, the counts of the effect, the rejected documents, and whether the step was
    committed before (`repeated`). Raises VecError `lease_lost`, `invalid_request`, or what the effect raises; then
    nothing is written.
    """
    attempt = jobs.dispatcher.heartbeat(job_id, number, done, total)
    job = attempt.job
    assert job is not None
    _check_size("checkpoint", value)
    _check_counts(value)
    if effect is not None and not isinstance(value, dict | None):
        raise VecError(Code.INVALID_REQUEST, "a checkpoint with an effect must be a map", field="checkpoint")
    made, refused = (None, []) if effect is None else await decode(jobs.engine, job, effect)
    log_lines = [f"document {index}: {error.message} ({error.code})" for index, error in refused]
    committed = jobs.dispatcher.checkpoint(
        job, step, Step(value, made, done, total, [line[: limits.JOB_LINE_CHARS_MAX] for line in (*lines, *log_lines)])
    )
    counts: dict[str, int] = {}
    repeated = False
    try:
        outcome = await _committed(committed)
        counts = outcome.counts
    except Repeated:
        repeated = True
    except OutOfOrder as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"job {job_id} has {error.steps} checkpoints, so the next 'step' is {error.steps}, not {step}",
            "send the steps in order; one that failed must be sent again before later ones",
            field="step",
            steps=error.steps,
        ) from None
    except Superseded:
        raise lease_lost(job_id, number) from None
    attempt.extend()
    return {
        **_lease_state(attempt),
        "counts": counts,
        "refused": [{"index": index, "error": error.to_wire()} for index, error in refused],
        "repeated": repeated,
    }


async def finish(
    jobs: Jobs,
    job_id: int,
    number: int,
    *,
    result: dict[str, Any] | None,
    error: VecError | None,
    retryable: bool | None,
) -> dict[str, Any]:
    """Ends an attempt with a result, with an error, or with neither: then the worker returns the job, because it was
    told to stop or stops itself. Returns the job, with `repeated`. Raises VecError `lease_lost`.
    """
    _check_size("result", result)
    try:
        attempt = jobs.dispatcher.held(job_id, number)
    except VecError:
        return await _finished_before(jobs, job_id, number, result, error)
    job = attempt.job
    assert job is not None
    if error is not None:
        ending = failed(job, kinds.KINDS[job.kind], error, attempt.reason, retryable=retryable)
    elif result is not None:
        ending = Ending(job, store.COMPLETED, "completed", result=result)
    else:
        ending = stopped(job, attempt.reason)
    try:
        ended = await _committed(jobs.dispatcher.finish(ending))
    except Superseded:
        raise lease_lost(job_id, number) from None
    if ended.state == store.COMPLETED:
        await jobs.engine.read(jobs.forget, [ended])
    await jobs.engine.read(jobs.abandon, [ended] if ended.state in store.UNDONE else [])
    return {**operations.described(jobs, ended), "repeated": False}


async def _finished_before(
    jobs: Jobs, job_id: int, number: int, result: dict[str, Any] | None, error: VecError | None
) -> dict[str, Any]:
    """The answer to a repeated end. Raises VecError `lease_lost` if the attempt ended differently."""

    def read() -> tuple[Job, str | None] | None:
        with jobs.engine.database.read_transaction() as db:
            found = store.find_many(db, [job_id])
            outcomes = {each["attempt"]: each["outcome"] for each in store.attempts(db, job_id)}
        return (found[0], outcomes.get(number)) if found else None

    found = await jobs.engine.read(read)
    outcome = None if found is None else found[1]
    if found is None or outcome not in _ENDED_BY_WORKER or (outcome == "completed") != (result is not None):
        raise lease_lost(job_id, number)
    if (outcome == "failed") != (error is not None):
        raise lease_lost(job_id, number)
    return {**operations.described(jobs, found[0]), "repeated": True}


def workers(jobs: Jobs) -> list[dict[str, Any]]:
    """The workers: `{"worker","job_id","kind","library","attempt","started_at","lease_left_s","stop"}`. Threads of the
    daemon have no lease, tasks no attempt, and a worker that waits for work has no kind."""
    return jobs.dispatcher.workers()


async def _committed(future: Future[T]) -> T:
    """Waits for a write, which continues if the caller is cancelled."""
    return await asyncio.shield(asyncio.wrap_future(future))


def _check_counts(checkpoint: Any) -> None:
    """`counts` and `seq` of a checkpoint are figures that the daemon adds to."""
    if not isinstance(checkpoint, dict):
        return
    counts, seq = checkpoint.get("counts", {}), checkpoint.get("seq", 0)
    if not isinstance(counts, dict) or not all(map(_is_figure, counts.values())) or not _is_figure(seq):
        raise VecError(
            Code.INVALID_REQUEST,
            "in a checkpoint, 'counts' must be a map of whole numbers and 'seq' a whole number: the counts of the job's"
            " effects and the head of the log",
            "use other names for what is yours",
            field="checkpoint",
        )


def _is_figure(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _check_size(name: str, value: Any) -> None:
    try:
        size = len(orjson.dumps(value))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise VecError(Code.INVALID_REQUEST, f"the {name} is not JSON ({error})", field=name) from error
    if size > limits.JOB_CHECKPOINT_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"the {name} has {size:,} bytes, over the limit of {limits.JOB_CHECKPOINT_BYTES_MAX:,}",
            field=name,
        )
