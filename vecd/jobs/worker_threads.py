"""The workers of the daemon: threads that claim jobs from the dispatcher, execute their steps, and report the outcome.

Rules:
- A job stops between two steps: because it was cancelled, its kind was paused, its timeout has passed, or the daemon
  stops. Committed steps remain; a step is atomic.
- If the end of an attempt cannot be written because the disk is full, the worker retries until it can.
- The threads have a low priority (nice): searches and writes go first.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..errors import Code, VecError
from ..resources import start
from ..store import jobs as store
from ..store.job_transitions import Ending
from ..store.jobs import Job
from .dispatcher import Dispatcher, Exchange
from .effects import EffectResult
from .kinds import KINDS
from .kinds.kind import JobKind, Run
from .leases import Attempt
from .retry_policy import failed, stopped

if TYPE_CHECKING:
    from ..engine.engine import Engine

log = logging.getLogger("vecd.jobs")

#: The pause before a failed write is tried again.
_REWRITE_S: Final = 0.5


class AttemptStopped(Exception):
    """The attempt must stop; its `reason` says why."""


class WorkerThreads:
    """A fixed number of threads, each with one job at a time, or several brief ones."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, count: int) -> None:
        self.count = count
        self._engine = engine
        self._dispatcher = dispatcher
        self._threads = [
            threading.Thread(target=self._run, name=f"vecd-job_{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Raises VecError `busy` if the system cannot create the threads."""
        start(self._threads)

    def join(self, patience_s: float) -> None:
        """Waits for the current steps. A job whose step takes longer is still running at the next start, which handles
        it as a crash. Blocks."""
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- on the threads ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":  # on other systems it would apply to the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.JOBS_NICE)
        name = threading.current_thread().name
        ended: list[tuple[Attempt, Ending]] = []
        try:
            while True:
                taken, exchange = self._dispatcher.exchange(ended, name)
                if exchange is None:
                    return
                ended = [(attempt, self._execute(attempt)) for attempt in self._written(ended, taken, exchange)]
        except VecError as error:
            if error.code != Code.SHUTTING_DOWN:  # storage has failed: the daemon is about to exit
                log.error("worker gives up", extra={"error": str(error)})

    def _written(self, ended: list[tuple[Attempt, Ending]], taken: list[Attempt], exchange: Exchange) -> list[Attempt]:
        """Waits until an exchange is durable, and retries it while the disk is full; returns the started attempts.
        Raises VecError if the store has failed."""
        dispatcher = self._dispatcher
        held: list[Attempt] = []  # ended attempts that hold their resources until their end is written
        while True:
            try:
                claimed = exchange.result()
                break
            except VecError as error:
                fresh = [attempt for attempt, _ in ended] if not held else []
                dispatcher.put_back(taken, fresh)
                taken, held = [], held + fresh
                if error.code not in (Code.DISK_FULL, Code.BUSY):
                    raise
                log.warning("cannot write the states of jobs", extra={"error": str(error), "ended": len(ended)})
                self._pause()
                if not ended:
                    return []
                exchange = dispatcher.submit(ended, taken)
        if ended:
            dispatcher.forget([ending.job for _, ending in ended if ending.state == store.COMPLETED])
            dispatcher.abandon_ended()  # jobs that ended otherwise than _execute expected, and their dependents
        return dispatcher.begin(taken, claimed, held)

    def _pause(self) -> None:
        """A moment, which the daemon's stop shortens."""
        for _ in range(10):
            time.sleep(_REWRITE_S / 10)
            if self._dispatcher.closing:
                return

    def _execute(self, attempt: Attempt) -> Ending:
        """Executes an attempt; returns its outcome. If the job ends without completing, its files are removed before
        the end is visible."""
        assert attempt.job is not None
        ending = self._run_steps(attempt, attempt.job)
        if ending.state in store.UNDONE:
            try:
                with self._engine.database.read_transaction() as db:
                    left = store.find_many(db, [ending.job.job_id])  # with its last checkpoint
            except VecError as error:  # such as too many open files; abandon_ended follows after the end
                log.warning(
                    "cannot read the checkpoint of a job", extra={"job": ending.job.job_id, "error": str(error)}
                )
            else:
                self._dispatcher.abandon(left)
        return ending

    def _run_steps(self, attempt: Attempt, job: Job) -> Ending:
        kind = KINDS.get(job.kind)
        if kind is None:
            error = VecError(Code.UNSUPPORTED, f"this version of vecd does not support jobs of the kind {job.kind!r}")
            return Ending(job, store.FAILED, "failed", error=error.to_wire())
        try:
            result = self._steps(kind, attempt, job)
        except AttemptStopped:
            return stopped(job, attempt.reason)
        except Exception as error:
            return failed(job, kind, error, attempt.stop)
        return Ending(job, store.COMPLETED, "completed", result=result)

    def _steps(self, kind: JobKind, attempt: Attempt, job: Job) -> dict[str, Any]:
        run = Run(self._engine, job, lambda: attempt.reason is not None, self._dispatcher.forget)
        in_flight: deque[Future[EffectResult]] = deque()
        reply: Future[EffectResult] | None = None
        made = job.steps

        def commit_one() -> None:
            run.committed(in_flight.popleft().result())

        steps = kind.steps(run)
        try:
            while attempt.reason is None:
                try:
                    step = steps.send(reply)
                except StopIteration as end:
                    while in_flight:
                        commit_one()
                    return dict(end.value or {})
                except Exception:
                    while in_flight:  # the steps must be committed before the end, which revokes the attempt
                        commit_one()
                    raise
                reply = None
                if step.effect is not None or step.checkpoint is not None or step.lines:
                    reply = self._dispatcher.checkpoint(job, made, step)
                    made += 1
                    in_flight.append(reply)
                while len(in_flight) > (0 if reply is None else kind.in_flight):
                    commit_one()
                attempt.progressed(step.done, step.total)
        finally:
            steps.close()
        while in_flight:
            commit_one()
        raise AttemptStopped
