"""Jobs: the dispatcher, its workers and leases of one engine, put together, started and stopped.

`open` after the engine's, on its loop; `start` when the daemon is ready; `stop` when it begins to stop; `close` before
the engine closes.
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
    """What the operations work on: the engine, the workers, and who waits for which job."""

    def __init__(self, engine: Engine, workers: int) -> None:
        self.engine = engine
        self.dispatcher = Dispatcher(engine)
        self.threads = WorkerThreads(engine, self.dispatcher, workers)
        self.leases = Periodic("leases", self._expire_leases, TICK_S)
        self._loop: asyncio.AbstractEventLoop
        self._lock = threading.Lock()  # guards _awaited
        self._awaited: dict[int, set[asyncio.Event]] = {}  # by job

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes up what the store holds. Raises VecError."""
        self._loop = loop
        self.dispatcher.open()
        self.engine.on_jobs = self._changed  # nobody else writes yet

    def start(self) -> None:
        """The jobs go on: when all else is ready, so that a job that the daemon dies of does not keep it from that."""
        self.threads.start()
        self.leases.start()

    async def stop(self) -> None:
        """No job begins any more; those that run end with their steps."""
        self.dispatcher.close()
        await self.leases.stop()

    def close(self) -> None:
        """Waits for those steps. Blocks."""
        self.threads.join(limits.JOBS_STOP_S)

    def forget(self, jobs: Iterable[Job]) -> None:
        """These jobs are no more: what they have put aside goes. Blocks."""
        self.dispatcher.forget(jobs)

    def abandon(self, jobs: Iterable[Job]) -> None:
        """These jobs, and those that were to run after them, have been cancelled. Blocks."""
        self.dispatcher.abandon(jobs)
        self.dispatcher.abandon_ended()

    @contextlib.contextmanager
    def awaiting(self, job_ids: Iterable[int]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these jobs moves, as long as the block lasts."""
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

    def _changed(self, changes: list[JobChange]) -> None:
        """On the writer's thread, after a commit."""
        self.dispatcher.apply(changes)
        with self._lock:
            if not self._awaited:
                return
            events = {event for change in changes for event in self._awaited.get(change.job_id, ())}
        for event in events:
            self._loop.call_soon_threadsafe(event.set)
