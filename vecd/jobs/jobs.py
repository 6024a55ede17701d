"""Jobs: the job system of one engine, and its lifecycle.

Call `open` after the engine's, on its loop; `start` when the daemon is ready; `stop` when it begins to stop; `close`
before the engine closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .. import limits
from ..store.jobs import Job
from ..store.transaction import JobChange
from .dispatcher import Dispatcher
from .leases import TICK_S
from .periodic import Periodic
from .worker_threads import WorkerThreads

if TYPE_CHECKING:
    from ..engine.engine import Engine


class Jobs:
    """The state for the operations on jobs: the engine, the workers, and the callers that wait for jobs."""

    def __init__(self, engine: Engine, workers: int) -> None:
        self.engine = engine
        self.dispatcher = Dispatcher(engine)
        self.threads = WorkerThreads(engine, self.dispatcher, workers)
        self.leases = Periodic("leases", self._expire_leases, TICK_S)
        self.due = Periodic("due jobs", self._serve_due, TICK_S)  # for workers outside that wait
        self._loop: asyncio.AbstractEventLoop
        self._lock = threading.Lock()  # guards _awaited
        self._awaited: dict[int, set[asyncio.Event]] = {}  # by job

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loads the jobs of the store. Raises VecError."""
        self._loop = loop
        self.dispatcher.open()
        self.engine.on_jobs = self._changed  # there are no other writers yet
        self.dispatcher.on_tasks = self._watch_leases

    def start(self) -> None:
        """Resumes jobs. Call it when all else is ready, so that a job that crashes the daemon does not prevent its
        start."""
        self.threads.start()
        self.leases.start()
        self.due.start()

    async def stop(self) -> None:
        """Starts no more jobs; running ones stop after their current step."""
        self.dispatcher.close()
        self.engine.leased.close()
        await self.leases.stop()
        await self.due.stop()

    def close(self) -> None:
        """Waits for the current steps. Blocks."""
        self.threads.join(limits.JOBS_STOP_S)

    def forget(self, jobs: Iterable[Job]) -> None:
        """Removes the files of jobs that were deleted. Blocks."""
        self.dispatcher.forget(jobs)

    def abandon(self, jobs: Iterable[Job]) -> None:
        """Removes the files of jobs that were cancelled, and of their dependents. Blocks."""
        self.dispatcher.abandon(jobs)
        self.dispatcher.abandon_ended()

    @contextlib.contextmanager
    def awaiting(self, job_ids: Iterable[int]) -> Iterator[asyncio.Event]:
        """Inside the block, the event is set whenever one of these jobs changes."""
        event = asyncio.Event()
        ids = set(job_ids)
        with self._lock:
            for job_id in ids:
                self._awaited.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            with self._lock:
                for job_id in ids:
                    self._awaited[job_id].discard(event)
                    if not self._awaited[job_id]:
                        del self._awaited[job_id]

    async def _expire_leases(self) -> float | None:
        leased, ends = self.dispatcher.expire()
        for end in ends:
            await asyncio.wrap_future(end)
        if ends:
            await self.engine.read(self.dispatcher.abandon_ended)
        return TICK_S if leased else None

    def _watch_leases(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.leases.wake)

    async def _serve_due(self) -> float | None:
        return self.dispatcher.serve_due()

    def _changed(self, changes: list[JobChange]) -> None:
        """On the writer's thread, after a commit."""
        self.dispatcher.apply(changes)
        if any(change.job is not None and change.job.ready_us for change in changes):
            self._loop.call_soon_threadsafe(self.due.wake)
        with self._lock:
            if not self._awaited:
                return
            events = {event for change in changes for event in self._awaited.get(change.job_id, ())}
        for event in events:
            self._loop.call_soon_threadsafe(event.set)
