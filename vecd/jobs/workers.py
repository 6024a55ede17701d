"""The worker threads: each takes a job, makes its steps, and says how it ended.

Rules:
- A claim, a checkpoint with what its step wrote, and the end of an attempt are transactions of the one writer. Only
  the attempt that holds a job can write for it (store/job_transitions.py).
- The transaction that ends one job claims the next: a commit a job. Jobs that take no longer than a commit are taken
  several at a time.
- A job is told to stop between two steps: because it was cancelled, its kind paused, its time is up, the daemon stops.
  What a step has written stays; there are no half ones.
- The end of an attempt that cannot be written, because the disk is full, is written when it can be.
- The threads are nice: searches and writes go first.
"""

from __future__ import annotations

import logging
import os
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
from ..resources import start
from ..store import job_transitions as transitions
from ..store import jobs as store
from ..store.job_transitions import Ending
from ..store.jobs import Job
from ..store.transaction import JobChange, Transaction
from .clocks import steady_us, wall_us
from .kinds import KINDS
from .kinds.kind import JobKind, Run, Step
from .queue import Entry, Queue
from .retry_policy import Control, failed, stopped

if TYPE_CHECKING:
    from ..engine.engine import Engine

log = logging.getLogger("vecd.jobs")

#: What cannot be written just now is tried again after so long.
_REWRITE_S: Final = 0.5
#: Threads wait by a clock that stands still while the machine sleeps, so none waits longer for a job that is delayed.
_NAP_S: Final = 5.0
#: The store's due times may differ from those in memory by so much: the clocks are read one after the other.
_DRIFT_US: Final = 2_000_000


class Stopped(Exception):
    """The job is to stop; its Control says why."""


class Workers:
    """The queue, guarded, and the threads that work on it."""

    def __init__(self, engine: Engine, count: int) -> None:
        self.count = count
        self._engine = engine
        self._condition = threading.Condition()  # guards all that follows
        self._queue = Queue(lambda kind: (KINDS[kind].running_max, KINDS[kind].library_max) if kind in KINDS else _FREE)
        self._counts = dict.fromkeys(store.STATES, 0)
        self._controls: dict[int, Control] = {}  # of what runs
        self._left: list[Job] = []  # ended without completing; what they have put aside is to be removed
        self._closing = False
        self._idle = 0  # threads that wait for a job
        self._threads = [
            threading.Thread(target=self._run, name=f"vecd-job_{number}", daemon=True) for number in range(count)
        ]

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes up what the store holds. Raises VecError."""
        database = self._engine.database
        for job in database.submit(transitions.recover, frees=True).result():
            log.warning("job ran when the daemon died", extra={"job": job.job_id, "kind": job.kind, "state": job.state})
        with database.snapshot() as db, self._condition:
            self._counts.update(store.counts(db))
            self._queue.pause(store.pauses(db))
            for job in store.active(db):
                self._queue.put(_entry(job))
            for kind in KINDS.values():
                kind.tidy(self._engine, store.of_kind(db, kind.name))

    def start(self) -> None:
        """Raises VecError `busy` if the system does not give the threads."""
        start(self._threads)

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
                if job is not None and job.state in store.UNDONE and job.checkpoint is not None:
                    self._left.append(job)
                if job is not None and job.cancelling and (control := self._controls.get(change.job_id)) is not None:
                    control.stop = "cancelled"

    def misplaced(self) -> dict[int, int]:
        """The delayed jobs whose due time in the store is wrong, because the wall clock was set since they were put
        there; each with its due time by the wall clock as it is now, in microseconds."""
        with self._condition:
            ahead_us = wall_us() - steady_us()
            return {
                entry.job_id: entry.ready_us + ahead_us
                for entry in self._queue.delayed()
                if abs(entry.ready_us + ahead_us - entry.stored_us) > _DRIFT_US
            }

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
        """These jobs end, or have ended, without completing: what they have put aside goes. Blocks."""
        self._clean(jobs, lambda kind, job: kind.abandon(self._engine, job))

    def abandon_left(self) -> None:
        """The same for the jobs that have ended in commits since the last call. Blocks."""
        with self._condition:
            left, self._left = self._left, []
        self.abandon(left)

    @staticmethod
    def _clean(jobs: Iterable[Job], clean: Callable[[JobKind, Job], None]) -> None:
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
                taken, turn = self._next(ended)
                if turn is None:
                    return
                jobs = self._commit(ended, taken, turn)
                ended = [(entry, self._work(job)) for entry, job in jobs]
        except VecError as error:
            if error.code != Code.SHUTTING_DOWN:  # storage has failed: the daemon is about to exit
                log.error("worker gives up", extra={"error": str(error)})

    def _next(self, ended: list[tuple[Entry, Ending]]) -> tuple[list[Entry], _Turn | None]:
        """Gives back what the jobs that have ended held, takes what is to run next, and submits both to the writer:
        waits for it if nothing has ended. None if there is nothing, or the daemon stops.

        What is given back here can be taken by another thread at once. All threads submit under the lock and as one
        sender, so the end of the one job is written before the begin of the other.
        """
        with self._condition:
            for entry, _ in ended:
                self._queue.release(entry)
                self._controls.pop(entry.job_id, None)
            if ended and self._idle:
                self._condition.notify()
            taken: list[Entry] = []
            while not self._closing:
                now_us = steady_us()
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
            return taken, self._submit(ended, taken) if taken or ended else None

    def _submit(self, ended: list[tuple[Entry, Ending]], taken: list[Entry]) -> _Turn:
        return self._engine.database.submit(
            partial(_turn, [ending for _, ending in ended], [entry.job_id for entry in taken]),
            len(ended) + len(taken),
            frees=bool(ended) or any(KINDS[entry.kind].frees for entry in taken if entry.kind in KINDS),
            sender=self,
        )

    def _commit(self, ended: list[tuple[Entry, Ending]], taken: list[Entry], turn: _Turn) -> list[tuple[Entry, Job]]:
        """Waits until it is written how jobs have ended, and which were claimed; writes it again while the disk is
        full. Raises VecError when nothing can be written any more."""
        held = False  # whether the ended ones still hold what they held: until their end is written
        while True:
            try:
                claimed = turn.result()
                break
            except VecError as error:
                with self._condition:
                    for entry in taken:
                        self._queue.release(entry)
                        self._controls.pop(entry.job_id, None)
                        self._queue.put(entry)
                    taken = []
                    for entry, _ in ended if not held else ():
                        self._queue.hold(entry)
                    held = True
                if error.code not in (Code.DISK_FULL, Code.BUSY):
                    raise
                log.warning("cannot write how jobs do", extra={"error": str(error), "ended": len(ended)})
                self._doze()
                if not ended:
                    return []
                turn = self._submit(ended, taken)
        if ended:
            self.forget([ending.job for _, ending in ended if ending.state == store.COMPLETED])
            self.abandon_left()  # jobs that ended in another way than _work foresaw, and those that waited for them
        found = []
        with self._condition:
            for entry, _ in ended if held else ():
                self._queue.release(entry)
            for entry, job in zip(taken, claimed, strict=True):
                if job is None:  # it was cancelled just now
                    self._queue.release(entry)
                    self._controls.pop(entry.job_id, None)
                else:
                    found.append((entry, job))
        return found

    def _doze(self) -> None:
        """A moment, which the daemon's stop shortens."""
        for _ in range(10):
            time.sleep(_REWRITE_S / 10)
            if self._closing:
                return

    def _work(self, job: Job) -> Ending:
        """Makes an attempt; returns how it ended. If the job ends with it, undone, what it has put aside is gone before
        that can be seen."""
        ending = self._attempt(job)
        if ending.state in store.UNDONE:
            try:
                with self._engine.database.snapshot() as db:
                    left = store.these(db, [job.job_id])  # with its last checkpoint
            except VecError as error:  # no descriptor is left, for instance; abandon_left comes behind the end
                log.warning("cannot see what a job has left", extra={"job": job.job_id, "error": str(error)})
            else:
                self.abandon(left)
        return ending

    def _attempt(self, job: Job) -> Ending:
        control = self._controls[job.job_id]
        control.begin(job)
        kind = KINDS.get(job.kind)
        if kind is None:
            error = VecError(Code.UNSUPPORTED, f"this version of vecd does not support jobs of the kind {job.kind!r}")
            return Ending(job, store.FAILED, "failed", error=error.to_wire())
        try:
            result = self._steps(kind, job, control)
        except Stopped:
            return stopped(job, control.stop)
        except Exception as error:
            return failed(job, kind, error, control.stop)
        return Ending(job, store.COMPLETED, "completed", result=result)

    def _steps(self, kind: JobKind, job: Job, control: Control) -> dict[str, Any]:
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
                except Exception:
                    while flying:  # its steps are written before its end: then they are no longer this attempt's
                        flying.popleft().result()
                    raise
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

#: What the writer answers to `_turn`.
_Turn = Future[list[Job | None]]


def _turn(endings: list[Ending], wanted: list[int], tx: Transaction) -> list[Job | None]:
    """On the writer."""
    for ending in endings:
        try:
            transitions.finish(tx, ending)
        except transitions.Superseded:
            log.error("a job ended that was no longer this attempt's", extra={"job": ending.job.job_id})
    return [transitions.claim(tx, job_id) for job_id in wanted]


def _step(job: Job, number: int, step: Step, tx: Transaction) -> None:
    """On the writer: what a step writes, and the checkpoint. All of it, or nothing."""
    value = step.write(tx) if step.write is not None else step.checkpoint
    transitions.checkpoint(tx, job, number, value, step.done, step.total)
    if step.lines:
        transitions.say(tx, job.job_id, step.lines, limits.JOB_LINES)


def _entry(job: Job) -> Entry:
    kind = KINDS.get(job.kind)
    left_us = job.ready_us - wall_us() if job.ready_us else 0
    if job.delay_us is not None:
        left_us = min(left_us, job.delay_us)  # it is more if the clock was set back while no daemon ran
    return Entry(
        job.job_id, job.kind, job.library, job.priority, steady_us() + left_us if left_us > 0 else 0, job.lock_key,
        job.waits > 0, job.crashes > 0, kind is not None and job.crashes == 0 and kind.brief(job.params), job.ready_us,
    )  # fmt: skip
