"""The dispatcher: assigns pending jobs to workers, and takes their steps and results.

All workers, the threads of the daemon (worker_threads.py) and those outside it (external_workers.py, over the socket),
use the same four functions:

    claim       starts an attempt at the next job; the answer has the attempt's number, the fencing number
    heartbeat   extends the lease; the answer says whether the attempt must stop, and why
    checkpoint  commits a step: its effect and its checkpoint, in one transaction that checks the fencing number
    finish      ends the attempt: completed, failed, or returned; the transaction checks the fencing number

Rules:
- One lock guards the queue and the running attempts. Claims and ends are submitted to the writer under this lock, as
  one sender, so the end of a job is written before the claim of the job that takes its resources.
- The transaction that ends a job of a thread also claims its next one: one commit per job. Jobs that take no longer
  than a commit are claimed several at a time.
- Memory follows the commits (`apply`, on the writer's thread).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..errors import Code, VecError
from ..store import job_transitions as transitions
from ..store import jobs as store
from ..store.job_transitions import Ending
from ..store.jobs import Job
from ..store.transaction import JobChange, Transaction
from ..units import format_time
from ..workers.leased_tasks import Lease, Takes
from .clocks import steady_us, wall_us
from .effects import EffectResult
from .kinds import KINDS
from .kinds.kind import JobKind, Step
from .leases import CANCELLED, PAUSED, STOPPED, Attempt, WorkingTime
from .queue import Queue, QueuedJob
from .retry_policy import stopped
from .waiting_workers import Claim, WaitingWorker, WaitingWorkers

if TYPE_CHECKING:
    from ..engine.engine import Engine

log = logging.getLogger("vecd.jobs")

#: The longest wait for a delayed job: the clock of waits stops while the machine sleeps.
_WAIT_S_MAX: Final = 5.0
#: The tolerated difference between due times in the store and in memory: the clocks are read one after the other.
_DRIFT_US: Final = 2_000_000
_UNBOUNDED: Final = (None, None)

#: The claimed jobs of `_exchange`; None for a job that was cancelled.
Exchange = Future[list[Job | None]]


class Dispatcher:
    """The queue and the running attempts, guarded by one lock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._condition = threading.Condition()  # guards all that follows
        self._queue = Queue(
            lambda kind: (KINDS[kind].running_max, KINDS[kind].library_max) if kind in KINDS else _UNBOUNDED
        )
        self._counts = dict.fromkeys(store.STATES, 0)
        self._attempts: dict[int, Attempt] = {}  # running, by job
        self._time = WorkingTime()
        self._abandoned: list[Job] = []  # ended without completing; their files must be removed
        self._closing = False
        self._idle = 0  # threads that wait for a job
        self._waiting = WaitingWorkers()  # outside the daemon
        self._tasks = engine.leased
        self._tasks.clock = lambda: self._time.now
        self._tasks.on_ready = self._tasks_queued
        self.on_tasks: Callable[[], None] = lambda: None  # called when tasks were queued: call `expire`

    def open(self) -> None:
        """Loads the jobs from the store, and ends attempts that were lost with the last daemon. Raises VecError."""
        database = self._engine.database
        for job in database.submit(transitions.recover, frees=True).result():
            log.warning("job ran when the daemon died", extra={"job": job.job_id, "kind": job.kind, "state": job.state})
        with database.read_transaction() as db, self._condition:
            self._counts.update(store.counts(db))
            self._queue.pause(store.pauses(db))
            for job in store.active(db):
                if job.state == store.PENDING:
                    self._queue.put(_entry(job))
                else:
                    self._resume_outside(job)
            for kind in KINDS.values():
                kind.tidy(self._engine, store.of_kind(db, kind.name))

    def _resume_outside(self, job: Job) -> None:
        """Resumes a job that a worker outside the daemon holds: its lease starts again; its time limit does not."""
        attempt = Attempt(_entry(job), job.worker or "", self._time, job.lease_s or limits.LEASE_S)
        attempt.begin(job, 0.0 if job.started_us is None else max(0.0, (wall_us() - job.started_us) / 1e6))
        if job.cancelling:
            attempt.stop = CANCELLED
        elif self._queue.paused & {"", job.kind}:
            attempt.stop = PAUSED
        self._queue.hold(attempt.entry)
        self._attempts[job.job_id] = attempt

    def close(self) -> None:
        """Starts no more jobs. Attempts of threads stop after their current step; workers outside keep their leases,
        and continue after a restart."""
        with self._condition:
            self._closing = True
            for attempt in self._attempts.values():
                if attempt.lease_s is None:
                    attempt.stop = attempt.stop or STOPPED
            self._notify()

    @property
    def closing(self) -> bool:
        return self._closing

    # --- following the store ----------------------------------------------------------------------------------------

    def apply(self, changes: list[JobChange]) -> None:
        """Applies a commit. On the writer's thread, in commit order."""
        with self._condition:
            for change in changes:
                job = change.job
                if change.before is not None:
                    self._counts[change.before] -= 1
                if job is not None:
                    self._counts[job.state] += 1
                if job is not None and job.state == store.PENDING:
                    self._queue.put(_entry(job))
                    if self._idle:
                        self._condition.notify()
                elif change.before == store.PENDING:
                    self._queue.remove(change.job_id)
                if job is not None and job.state in store.UNDONE and job.checkpoint is not None:
                    self._abandoned.append(job)
                if job is not None and job.cancelling and (attempt := self._attempts.get(change.job_id)) is not None:
                    attempt.stop = CANCELLED
            self._serve()

    def with_wrong_due_time(self) -> dict[int, int]:
        """The delayed jobs whose due time in the store is wrong, because the wall clock was set; each with its due time
        by the current wall clock, in microseconds."""
        with self._condition:
            ahead_us = wall_us() - steady_us()
            return {
                entry.job_id: entry.ready_us + ahead_us
                for entry in self._queue.delayed()
                if abs(entry.ready_us + ahead_us - entry.stored_us) > _DRIFT_US
            }

    def pause(self, kinds: Sequence[str]) -> None:
        """Starts no more jobs of these kinds (`` stands for all); running ones stop after their current step."""
        with self._condition:
            self._queue.pause(kinds)
            for attempt in self._attempts.values():
                if "" in kinds or attempt.kind in kinds:
                    attempt.stop = attempt.stop or PAUSED

    def resume(self, kinds: Sequence[str]) -> None:
        with self._condition:
            self._queue.resume(kinds)
            self._notify()

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> list[str]:
        with self._condition:
            return sorted(self._queue.paused)

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._condition:
            return dict(self._counts)

    def progress(self, job_id: int) -> dict[str, Any] | None:
        """The current progress of a running job."""
        with self._condition:
            attempt = self._attempts.get(job_id)
        return attempt.progress() if attempt is not None else None

    @property
    def running(self) -> list[int]:
        with self._condition:
            return sorted(self._attempts)

    def workers(self) -> list[dict[str, Any]]:
        """The running attempts by job id, with their workers; then the waiting workers outside."""
        with self._condition:
            attempts = [each for _, each in sorted(self._attempts.items())]
            waiting = sorted(each.name for each in self._waiting)
        found = [_described(each) for each in attempts if each.job is not None]
        found += [self._described_task(each) for each in self._tasks.leases()]
        no_job = dict.fromkeys(("job_id", "kind", "library", "attempt", "started_at", "lease_left_s", "stop"))
        return found + [{"worker": name, **no_job} for name in waiting]

    # --- the four functions of a worker -----------------------------------------------------------------------------

    def claim(self, worker: str, takes: Takes, lease_s: float) -> Claim | None:
        """Gives a worker outside the daemon the next task, or else starts an attempt at the next job; None if there is
        none that it takes, or if the daemon stops. A result of None means that the job was cancelled before the
        claim."""
        with self._condition:
            self._tasks.heard(worker, takes)
            self._serve()  # those that came before
            return self._claim(worker, takes, lease_s)

    def _claim(self, worker: str, takes: Takes, lease_s: float) -> Claim | None:
        if self._closing:
            return None
        self._time.tick()  # the time may not have been measured while there were no leases
        if (lease := self._tasks.take(worker, takes, lease_s)) is not None:
            given: Claim = Future()
            given.set_result(lease)
            return given
        entry = self._queue.take(steady_us(), takes.jobs.__contains__)
        if entry is None:
            return None
        attempt = self._attempts[entry.job_id] = Attempt(entry, worker, self._time, lease_s)
        future: Claim = self._engine.database.submit(
            partial(transitions.claim, job_id=entry.job_id, worker=worker, lease_s=lease_s),
            frees=_frees(entry),
            sender=self,
        )
        future.add_done_callback(partial(self._claimed, attempt))
        return future

    def _claimed(self, attempt: Attempt, future: Claim) -> None:
        """On the writer's thread."""
        with self._condition:
            job = None if future.exception() is not None else future.result()
            if isinstance(job, Job):
                attempt.begin(job)
                return
            self._remove(attempt)
            if future.exception() is not None:  # it is pending again
                self._queue.put(attempt.entry)
            self._notify()

    def heartbeat(self, job_id: int, number: int, done: int | None, total: int | None) -> Attempt:
        """Extends the lease of an attempt and notes its progress. Raises VecError `lease_lost`."""
        with self._condition:
            attempt = self._held(job_id, number)
            attempt.extend()
            attempt.progressed(done, total)
            return attempt

    def checkpoint(self, job: Job, number: int, step: Step) -> Future[EffectResult]:
        """Commits a step of an attempt. `number` is the number of earlier checkpoints of the job. The future raises
        Superseded or Repeated (store/job_transitions.py), or what the effect raises."""
        effect = step.effect
        return self._engine.database.submit(
            partial(_commit_step, self._engine, job, number, step),
            1 if effect is None else effect.rows,
            effect is not None and effect.frees,
        )

    def finish(self, ending: Ending) -> Future[Job]:
        """Ends an attempt of a worker outside. Raises VecError `lease_lost`; the future raises Superseded."""
        with self._condition:
            attempt = self._held(ending.job.job_id, ending.job.attempt)
            attempt.finishing = True
            future = self._engine.database.submit(lambda tx: transitions.finish(tx, ending), frees=True, sender=self)
        future.add_done_callback(partial(self._finished, attempt))
        return future

    def _finished(self, attempt: Attempt, future: Future[Any]) -> None:
        """On the writer's thread."""
        with self._condition:
            attempt.finishing = False
            if future.exception() is not None and not isinstance(future.exception(), transitions.Superseded):
                return  # the disk is full: the worker retries
            self._remove(attempt)
            self._notify()

    def expire(self) -> tuple[bool, list[Future[Job | None]]]:
        """Ends the attempts whose lease has expired; returns whether there are leases, and the futures of these ends.
        Call it every TICK_S while there are leases."""
        with self._condition:
            self._time.tick()
            leased = [each for each in self._attempts.values() if each.lease_s is not None]
            futures = [self._expire(each) for each in leased if each.expired and each.job and not each.finishing]
        return self._tasks.expire() or bool(leased), futures

    def _expire(self, attempt: Attempt) -> Future[Job | None]:
        """From now on the worker is refused, even if the transaction fails."""
        job = attempt.job
        assert job is not None
        attempt.finishing = True
        if attempt.reason in (None, CANCELLED):
            log.warning("worker silent", extra={"worker": attempt.worker, "job": job.job_id, "kind": job.kind})
            run = partial(transitions.expire, job_id=job.job_id, attempt=job.attempt)
        else:
            run = partial(_finish_stopped, stopped(job, attempt.reason))
        future = self._engine.database.submit(run, frees=True, sender=self)
        future.add_done_callback(partial(self._finished, attempt))
        return future

    def _held(self, job_id: int, number: int) -> Attempt:
        """The running attempt of that number. Raises VecError `lease_lost`."""
        attempt = self._attempts.get(job_id)
        if attempt is None or attempt.job is None or attempt.job.attempt != number or attempt.finishing:
            raise lease_lost(job_id, number)
        return attempt

    def held(self, job_id: int, number: int) -> Attempt:
        """The running attempt of that number. Raises VecError `lease_lost`."""
        with self._condition:
            return self._held(job_id, number)

    # --- waiting for jobs: workers outside --------------------------------------------------------------------------

    def wait_for_job(self, worker: WaitingWorker) -> None:
        """The worker gets the next job or task that it takes, after those that came before it; then its `claim` is
        set."""
        with self._condition:
            self._tasks.arrive(worker, worker.takes)
            self._waiting.add(worker)
            self._serve()
            if self._closing:
                worker.wake()

    def stop_waiting(self, worker: WaitingWorker, *, gone: bool) -> Claim | None:
        """The worker waits no longer. `gone`: its request was cancelled. Returns the claim that it was given, if
        any."""
        with self._condition:
            self._waiting.remove(worker)
            self._tasks.leave(worker, worker.name, gone=gone)
            return worker.claim

    def _tasks_queued(self) -> None:
        with self._condition:
            self._serve()
        self.on_tasks()

    def serve_due(self) -> float | None:
        """Gives delayed jobs that are due to workers that wait; returns the seconds until the next call, None while no
        worker waits."""
        with self._condition:
            self._serve()
            return self._next_due_s() if self._waiting else None

    def _next_due_s(self) -> float:
        due_us = self._queue.next_us()
        return _WAIT_S_MAX if due_us is None else min(_WAIT_S_MAX, max(0.0, (due_us - steady_us()) / 1e6))

    # --- the daemon's own threads -----------------------------------------------------------------------------------

    def exchange(self, ended: list[tuple[Attempt, Ending]], worker: str) -> tuple[list[Attempt], Exchange | None]:
        """Finishes and claims in one transaction: releases the resources of the ended jobs, takes the next jobs for the
        thread, and submits both to the writer. Waits for a job if none has ended. None if there is nothing to write, or
        if the daemon stops.

        Another thread can take the released resources at once: see the rules.
        """
        with self._condition:
            for attempt, _ in ended:
                self._remove(attempt)
            if ended:
                self._notify_one()
            taken: list[QueuedJob] = []
            while not self._closing:
                now_us = steady_us()
                first = self._queue.take(now_us, _inside)
                if first is not None:
                    taken.append(first)
                    while taken[-1].brief and len(taken) < limits.JOBS_BRIEF:
                        if (another := self._queue.take(now_us, _inside, brief=True)) is None:
                            break
                        taken.append(another)
                if taken or ended:
                    break
                due_us = self._queue.next_us()
                self._idle += 1
                self._condition.wait(None if due_us is None else min(_WAIT_S_MAX, max(0.0, (due_us - now_us) / 1e6)))
                self._idle -= 1
            attempts = [Attempt(entry, worker, self._time) for entry in taken]
            for attempt in attempts:  # before the claim, because from then on they can be cancelled
                self._attempts[attempt.entry.job_id] = attempt
            return attempts, self.submit(ended, attempts) if taken or ended else None

    def submit(self, ended: list[tuple[Attempt, Ending]], taken: list[Attempt]) -> Exchange:
        """Submits an exchange to the writer; also again, if it could not be written."""
        return self._engine.database.submit(
            partial(_exchange, [ending for _, ending in ended], [attempt.entry.job_id for attempt in taken]),
            len(ended) + len(taken),
            frees=bool(ended) or any(_frees(attempt.entry) for attempt in taken),
            sender=self,
        )

    def put_back(self, taken: list[Attempt], hold: list[Attempt]) -> None:
        """The exchange could not be written: the `taken` jobs are pending again, and those in `hold` hold their
        resources again."""
        with self._condition:
            for attempt in taken:
                self._remove(attempt)
                self._queue.put(attempt.entry)
            for attempt in hold:
                self._queue.hold(attempt.entry)

    def begin(self, taken: list[Attempt], claimed: list[Job | None], release: list[Attempt]) -> list[Attempt]:
        """The exchange is durable: returns the started attempts. `release` are ended ones that hold resources since
        `put_back`."""
        found = []
        with self._condition:
            for attempt in release:
                self._queue.release(attempt.entry)
            for attempt, job in zip(taken, claimed, strict=True):
                if job is None:  # it was cancelled before the claim
                    self._remove(attempt)
                else:
                    attempt.begin(job)
                    found.append(attempt)
        return found

    # --- cleaning up ------------------------------------------------------------------------------------------------

    def forget(self, jobs: Iterable[Job]) -> None:
        """Removes the files of jobs that have completed or were deleted. Blocks."""
        self._clean(jobs, lambda kind, job: kind.forget(self._engine, job))

    def abandon(self, jobs: Iterable[Job]) -> None:
        """Removes the files of jobs that end, or have ended, without completing. Blocks."""
        self._clean(jobs, lambda kind, job: kind.abandon(self._engine, job))

    def abandon_ended(self) -> None:
        """The same for jobs that have ended in commits since the last call. Blocks."""
        with self._condition:
            ended, self._abandoned = self._abandoned, []
        self.abandon(ended)

    @staticmethod
    def _clean(jobs: Iterable[Job], clean: Callable[[JobKind, Job], None]) -> None:
        for job in jobs:
            try:
                if job.kind in KINDS:
                    clean(KINDS[job.kind], job)
            except OSError as error:
                log.warning("cannot remove the files of a job", extra={"job": job.job_id, "error": str(error)})

    # --- under the lock ---------------------------------------------------------------------------------------------

    def _remove(self, attempt: Attempt) -> None:
        """The attempt has ended. (Another attempt at the job may already run.)"""
        self._queue.release(attempt.entry)
        if self._attempts.get(attempt.entry.job_id) is attempt:
            del self._attempts[attempt.entry.job_id]

    def _notify_one(self) -> None:
        """There may be a job to take."""
        self._serve()
        if self._idle:
            self._condition.notify()

    def _notify(self) -> None:
        """There may be several jobs to take, or the daemon stops."""
        self._serve()
        self._condition.notify_all()
        if self._closing:
            for worker in self._waiting:
                worker.wake()

    def _serve(self) -> None:
        """Gives tasks and jobs to the workers outside that wait."""
        if self._waiting:
            self._waiting.serve(lambda worker: self._claim(worker.name, worker.takes, worker.lease_s))

    def _described_task(self, lease: Lease) -> dict[str, Any]:
        batch = lease.task.batch
        return {
            "worker": lease.worker,
            "job_id": batch.job_id,
            "kind": batch.kind,
            "library": batch.library,
            "attempt": None,
            "started_at": format_time(lease.begun_us),
            "lease_left_s": round(max(0.0, lease.ends - self._time.now), 1),
            "stop": None,
        }


def lease_lost(job_id: int, number: int) -> VecError:
    """The error for an attempt that does not hold its job any more."""
    return VecError(
        Code.LEASE_LOST,
        f"attempt {number} does not hold job {job_id}: its lease has expired, or the job has ended",
        "discard the work since the last checkpoint, and claim another job",
        job_id=job_id,
    )


def _inside(kind: str) -> bool:
    """Whether threads of the daemon take jobs of a kind. (They fail jobs of unknown kinds.)"""
    return kind not in KINDS or KINDS[kind].runs != "outside"


def _frees(entry: QueuedJob) -> bool:
    return entry.kind in KINDS and KINDS[entry.kind].frees


def _exchange(endings: list[Ending], wanted: list[int], tx: Transaction) -> list[Job | None]:
    """On the writer."""
    for ending in endings:
        try:
            transitions.finish(tx, ending)
        except transitions.Superseded:
            log.error("an attempt ended that did not hold its job", extra={"job": ending.job.job_id})
    return [transitions.claim(tx, job_id) for job_id in wanted]


def _finish_stopped(ending: Ending, tx: Transaction) -> Job | None:
    """On the writer: ends an attempt that did not stop when it was told to."""
    try:
        return transitions.finish(tx, ending)
    except transitions.Superseded:
        return None


def _commit_step(engine: Engine, job: Job, number: int, step: Step, tx: Transaction) -> EffectResult:
    """On the writer: applies the effect of a step and its checkpoint atomically."""
    last = transitions.check_fence(tx, job.job_id, job.attempt, number)
    outcome = EffectResult() if step.effect is None else step.effect.apply(engine, tx)
    value = last if step.checkpoint is None else step.checkpoint
    kept = last if isinstance(last, dict) else {}
    if outcome.counts:
        if not isinstance(value, dict | None):
            raise VecError(
                Code.INVALID_REQUEST,
                f"the last checkpoint of job {job.job_id} is no map, so the counts of an effect cannot be added to it",
                "send a checkpoint that is a map beside the effect",
                field="checkpoint",
            )
        before = kept.get("counts", {})
        counts = {key: before.get(key, 0) + outcome.counts.get(key, 0) for key in {**before, **outcome.counts}}
        value = {**(value or {}), "counts": counts}
        seq = outcome.seq if outcome.seq is not None else kept.get("seq")
        if seq:
            value["seq"] = seq
    elif isinstance(value, dict):  # the counts of earlier effects stay
        value = {**{key: kept[key] for key in ("counts", "seq") if key in kept}, **value}
    transitions.checkpoint(tx, job.job_id, value, step.done, step.total)
    if step.lines:
        transitions.say(tx, job.job_id, step.lines, limits.JOB_LINES)
    return outcome


def _described(attempt: Attempt) -> dict[str, Any]:
    job = attempt.job
    assert job is not None
    left_s = attempt.lease_left_s
    return {
        "worker": attempt.worker,
        "job_id": job.job_id,
        "kind": job.kind,
        "library": job.library,
        "attempt": job.attempt,
        "started_at": None if job.started_us is None else format_time(job.started_us),
        "lease_left_s": None if left_s is None else round(left_s, 1),
        "stop": attempt.reason,
    }


def _entry(job: Job) -> QueuedJob:
    kind = KINDS.get(job.kind)
    left_us = job.ready_us - wall_us() if job.ready_us else 0
    if job.delay_us is not None:
        left_us = min(left_us, job.delay_us)  # the clock may have been set back while no daemon ran
    return QueuedJob(
        job.job_id, job.kind, job.library, job.priority, steady_us() + left_us if left_us > 0 else 0, job.lock_key,
        job.waits > 0, job.crashes > 0, kind is not None and job.crashes == 0 and kind.brief(job.params), job.ready_us,
    )  # fmt: skip
