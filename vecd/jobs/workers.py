"""The worker threads: each takes a job, makes its steps, and says how it ended.

Rules:
- A claim, a checkpoint with what its step wrote, and the end of an attempt are transactions of the one writer. Only
  the attempt that holds a job can write for it (store/jobs.py).
- The transaction that ends one job claims the next: a commit a job. Jobs that take no longer than a commit are taken
  several at a time.
- A job is told to stop between two steps: because it was cancelled, its kind paused, its time is up, the daemon stops.
  What a step has written stays; there are no half ones.
- An error that another attempt may mend is one: after a pause, exponential with full jitter (Brooker, 2015,
  "Exponential Backoff And Jitter"), at most `attempts_max` times. The other errors end the job at once.
- The end of an attempt that cannot be written, because the disk is full, is written when it can be.
- The threads are nice: searches and writes go first.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..errors import Code, VecError
from ..store import jobs as store
from ..store.jobs import Ending, Job
from ..store.transaction import JobChange, Transaction
from .kinds import KINDS
from .kinds.kind import Kind, Run, Step
from .queue import Entry, Queue

if TYPE_CHECKING:
    from ..engine.core import Engine

log = logging.getLogger("vecd.jobs")

#: Errors that another attempt may mend. All others are the job's own: it fails at once. (What is no VecError is a bug
#: or the machine's, and may be a passing one.)
_MENDABLE: Final = frozenset((Code.BUSY, Code.DISK_FULL, Code.EMBEDDER_FAILED, Code.INDEX_FAILED, Code.INTERNAL))

#: The longest pause after the first failure; it doubles with each.
_BACKOFF_S: Final = 1.0
#: What cannot be written just now is tried again after so long.
_REWRITE_S: Final = 0.5
#: The clock may be moved: nobody waits longer for a job that is due at some time.
_NAP_S: Final = 5.0


class Control:
    """What is known of a running job in memory: how it is to stop, how far it has come."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stop: str | None = None  # cancelled, paused or stopped
        self._since = time.monotonic()
        self._deadline: float | None = None
        self.done: int | None = None
        self.total: int | None = None
        self._done_before = 0

    def begin(self, job: Job) -> None:
        self._since = time.monotonic()
        self._deadline = None if job.timeout_s is None else self._since + job.timeout_s
        self.done, self.total, self._done_before = job.done, job.total, job.done or 0

    @property
    def reason(self) -> str | None:
        """Why it is to stop; None if it is to go on."""
        if self.stop is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop = "timeout"
        return self.stop

    def told(self) -> dict[str, Any]:
        """`rate` in units a second over this attempt, `left_s` until all is done at that rate; None if unknown."""
        elapsed_s = time.monotonic() - self._since
        made = (self.done or 0) - self._done_before
        rate = made / elapsed_s if made > 0 and elapsed_s > 0 else None
        left_s = None if rate is None or self.total is None else max(0.0, (self.total - (self.done or 0)) / rate)
        return {
            "done": self.done,
            "total": self.total,
            "rate": None if rate is None else round(rate, 1),
            "left_s": None if left_s is None else round(left_s, 1),
        }


class Stopped(Exception):
    """The job is to stop; why."""


class Workers:
    """The queue, guarded, and the threads that work on it."""

    def __init__(self, engine: Engine, count: int) -> None:
        self.count = count
        self._engine = engine
        self._condition = threading.Condition()  # guards all that follows
        self._queue = Queue(lambda kind: (KINDS[kind].running_max, KINDS[kind].library_max) if kind in KINDS else _FREE)
        self._counts = dict.fromkeys(store.STATES, 0)
        self._controls: dict[int, Control] = {}  # of what runs
        self._closing = False
        self._idle = 0  # threads that wait for a job
        self._threads = [
            threading.Thread(target=self._run, name=f"vecd-job_{number}", daemon=True) for number in range(count)
        ]

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes up what the store holds. Raises VecError."""
        database = self._engine.database
        for job in database.submit(store.recover).result():
            log.warning("job ran when the daemon died", extra={"job": job.job_id, "kind": job.kind, "state": job.state})
        with database.snapshot() as db, self._condition:
            self._counts.update(store.counts(db))
            self._queue.pause(store.pauses(db))
            for job in store.active(db):
                self._queue.put(_entry(job))
            for kind in KINDS.values():
                kind.tidy(self._engine, store.of_kind(db, kind.name))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No job begins any more; those that run end with their steps."""
        with self._condition:
            self._closing = True
            for control in self._controls.values():
                control.stop = control.stop or "stopped"
            self._condition.notify_all()

    def join(self, patience_s: float) -> None:
        """Waits for the steps that are being made; a job whose step takes longer is found running at the next start.
        Blocks."""
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- any thread -------------------------------------------------------------------------------------------------

    def apply(self, changes: list[JobChange]) -> None:
        """Follows a commit. On the writer's thread, in commit order."""
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
                if job is not None and job.cancelling and (control := self._controls.get(change.job_id)) is not None:
                    control.stop = "cancelled"

    def pause(self, kinds: list[str]) -> None:
        """No job of these kinds (the kind `` is all) begins any more, and those that run end with their steps."""
        with self._condition:
            self._queue.pause(kinds)
            for control in self._controls.values():
                if "" in kinds or control.kind in kinds:
                    control.stop = control.stop or "paused"

    def resume(self, kinds: list[str]) -> None:
        with self._condition:
            self._queue.resume(kinds)
            self._condition.notify_all()

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
        """How far a running job has come, as of now."""
        with self._condition:
            control = self._controls.get(job_id)
        return control.told() if control is not None else None

    @property
    def running(self) -> list[int]:
        with self._condition:
            return sorted(self._controls)

    def forget(self, jobs: Iterable[Job]) -> None:
        """These jobs have completed or are no more: what they have put aside goes. Blocks."""
        self._clean(jobs, lambda kind, job: kind.forget(self._engine, job))

    def abandon(self, jobs: Iterable[Job]) -> None:
        """These jobs have been cancelled. Blocks."""
        self._clean(jobs, lambda kind, job: kind.abandon(self._engine, job))

    @staticmethod
    def _clean(jobs: Iterable[Job], clean: Callable[[Kind, Job], None]) -> None:
        for job in jobs:
            try:
                if job.kind in KINDS:
                    clean(KINDS[job.kind], job)
            except OSError as error:
                log.warning("cannot remove what a job has left", extra={"job": job.job_id, "error": str(error)})

    # --- the workers' threads ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":  # a thread's own priority; elsewhere it would be the whole process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.JOBS_NICE)
        ended: list[tuple[Entry, Ending]] = []
        try:
            while True:
                taken = self._next(ended)
                if not taken and not ended:
                    return
                jobs = self._commit(ended, taken)
                ended = [(entry, self._work(job)) for entry, job in jobs]
        except VecError as error:
            if error.code != Code.SHUTTING_DOWN:  # storage has failed: the daemon is about to exit
                log.error("worker gives up", extra={"error": str(error)})

    def _next(self, ended: list[tuple[Entry, Ending]]) -> list[Entry]:
        """Gives back what the jobs that have ended held, and takes what is to run next: waits for it if nothing has
        ended. Empty if there is nothing, or the daemon stops."""
        with self._condition:
            for entry, _ in ended:
                self._queue.release(entry)
                self._controls.pop(entry.job_id, None)
            if ended and self._idle:
                self._condition.notify()
            taken: list[Entry] = []
            while not self._closing:
                now_us = time.time_ns() // 1000
                first = self._queue.take(now_us)
                if first is not None:
                    taken.append(first)
                    while taken[-1].brief and len(taken) < limits.JOBS_BRIEF:
                        if (another := self._queue.take(now_us, brief=True)) is None:
                            break
                        taken.append(another)
                if taken or ended:
                    break
                due_us = self._queue.next_us()
                self._idle += 1
                self._condition.wait(None if due_us is None else min(_NAP_S, max(0.0, (due_us - now_us) / 1e6)))
                self._idle -= 1
            for entry in taken:  # before they are claimed: from then on they can be cancelled
                self._controls[entry.job_id] = Control(entry.kind)
            return taken

    def _commit(self, ended: list[tuple[Entry, Ending]], taken: list[Entry]) -> list[tuple[Entry, Job]]:
        """Writes how jobs have ended, and claims others. Raises VecError when nothing can be written any more."""
        while True:
            future = self._engine.database.submit(
                partial(_turn, [ending for _, ending in ended], [entry.job_id for entry in taken]),
                len(ended) + len(taken),
                frees=bool(ended),
            )
            try:
                claimed = future.result()
                break
            except VecError as error:
                with self._condition:
                    for entry in taken:
                        self._queue.release(entry)
                        self._controls.pop(entry.job_id, None)
                        self._queue.put(entry)
                    taken = []
                if error.code not in (Code.DISK_FULL, Code.BUSY):
                    raise
                log.warning("cannot write how jobs do", extra={"error": str(error), "ended": len(ended)})
                self._doze()
                if not ended:
                    return []
        if ended:
            self.forget([ending.job for _, ending in ended if ending.state == store.COMPLETED])
            self.abandon([ending.job for _, ending in ended if ending.state == store.CANCELLED])
        found = []
        with self._condition:
            for entry, job in zip(taken, claimed, strict=True):
                if job is None:  # it was cancelled just now
                    self._queue.release(entry)
                    self._controls.pop(entry.job_id, None)
                else:
                    found.append((entry, job))
        return found

    def _doze(self) -> None:
        """A moment, and longer if there is no more to do than to wait; the daemon's stop ends it."""
        deadline = time.monotonic() + _REWRITE_S
        while not self._closing and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def _work(self, job: Job) -> Ending:
        """Makes an attempt; returns how it ended."""
        control = self._controls[job.job_id]
        control.begin(job)
        kind = KINDS.get(job.kind)
        if kind is None:
            error = VecError(Code.UNSUPPORTED, f"this vecd knows no jobs of the kind {job.kind!r}")
            return Ending(job, store.FAILED, "failed", error=error.to_wire())
        try:
            result = self._steps(kind, job, control)
        except Stopped:
            return _stopped(job, control.stop)
        except Exception as error:
            return _failed(job, kind, error, control.stop)
        return Ending(job, store.COMPLETED, "completed", result=result)

    def _steps(self, kind: Kind, job: Job, control: Control) -> dict[str, Any]:
        flying: deque[Future[None]] = deque()
        reply: Future[None] | None = None
        made = job.steps
        steps = kind.steps(Run(self._engine, job, lambda: control.reason is not None, self.forget))
        try:
            while control.reason is None:
                try:
                    step = steps.send(reply)
                except StopIteration as end:
                    while flying:
                        flying.popleft().result()
                    return dict(end.value or {})
                reply = None
                if step.write is not None or step.checkpoint is not None:
                    reply = self._engine.database.submit(partial(_step, job, made, step), step.rows, step.frees)
                    made += 1
                    flying.append(reply)
                    while len(flying) > kind.in_flight:
                        flying.popleft().result()
                control.done = control.done if step.done is None else step.done
                control.total = control.total if step.total is None else step.total
        finally:
            steps.close()
        while flying:
            flying.popleft().result()
        raise Stopped


_FREE: Final = (None, None)


def _turn(endings: list[Ending], wanted: list[int], tx: Transaction) -> list[Job | None]:
    """On the writer."""
    for ending in endings:
        try:
            store.finish(tx, ending)
        except store.Superseded:
            log.error("a job ended that was no longer this attempt's", extra={"job": ending.job.job_id})
    return [store.claim(tx, job_id) for job_id in wanted]


def _step(job: Job, number: int, step: Step, tx: Transaction) -> None:
    """On the writer: what a step writes, and the checkpoint. All of it, or nothing."""
    value = step.write(tx) if step.write is not None else step.checkpoint
    store.checkpoint(tx, job, number, value, step.done, step.total)
    if step.lines:
        store.say(tx, job.job_id, step.lines, limits.JOB_LINES)


def _stopped(job: Job, why: str | None) -> Ending:
    if why == "cancelled":
        return Ending(job, store.CANCELLED, "cancelled")
    if why == "timeout":
        error = VecError(
            Code.TIMEOUT,
            f"job {job.job_id} was not done within {job.timeout_s:g} s",
            f"vec jobs retry {job.job_id} lets it go on from where it was",
        )
        return Ending(job, store.FAILED, "timeout", error=error.to_wire())
    return Ending(job, store.PENDING, why or "stopped")


def _failed(job: Job, kind: Kind, error: Exception, stop: str | None) -> Ending:
    """What becomes of a job whose attempt ended with an error."""
    if isinstance(error, VecError) and error.code == Code.SHUTTING_DOWN:
        return _stopped(job, stop if stop == "cancelled" else "stopped")
    if not isinstance(error, VecError):
        log.error("a job failed", exc_info=error, extra={"job": job.job_id, "kind": job.kind})
        if isinstance(error, OSError):
            told = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            error = VecError(Code.DISK_FULL if full else Code.INTERNAL, told)
        else:
            what = f"a bug in the job {job.kind!r}: {type(error).__name__}: {error}"
            error = VecError(Code.INTERNAL, what, "the daemon's log has more; please report it")
    if error.code not in _MENDABLE:
        return Ending(job, store.FAILED, "failed", error=error.to_wire())
    if job.failures + 1 >= kind.attempts_max:
        return Ending(job, store.DEAD, "failed", error=error.to_wire())
    pause_s = random.uniform(0.0, min(kind.backoff_max_s, _BACKOFF_S * 2**job.failures))
    ready_us = time.time_ns() // 1000 + int(pause_s * 1e6)
    return Ending(job, store.PENDING, "failed", error=error.to_wire(), ready_us=ready_us)


def _entry(job: Job) -> Entry:
    kind = KINDS.get(job.kind)
    return Entry(
        job.job_id, job.kind, job.library, job.priority, job.ready_us, job.lock_key, job.waits > 0, job.crashes > 0,
        kind is not None and job.crashes == 0 and kind.brief(job.params),
    )  # fmt: skip
