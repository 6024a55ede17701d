"""The vacuum: deletes what is behind the log's horizon and gives the space back, one step of the writer at a time.

Others' writes go between two steps, and the vacuum rests after each as long as it took. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging

from .. import limits
from ..errors import VecError
from ..store import retention
from ..store.database import Database

log = logging.getLogger("vecd.retention")


class Vacuum:
    """At most one is going on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """If none is going on; one that is goes on to the horizon as it is now."""
        if not self.running:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def done(self) -> None:
        """Returns when nothing is going on any more."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        rows = 0
        try:
            while gone := await self._step(lambda tx: retention.vacuum(tx, limits.VACUUM_ROWS)):
                rows += gone
            given = 0
            while pages := await self._step(lambda tx: retention.give_back(tx, limits.VACUUM_PAGES)):
                given += pages
            if given:
                await asyncio.wrap_future(self._database.copy_back())
                await self._step(lambda tx: 0)  # behind the copying
        except VecError as error:
            log.warning("vacuum given up; the next trim goes on with it", extra={"error": str(error)})
        if rows:
            log.info("vacuum done", extra={"rows": rows})

    async def _step(self, step: retention.Step) -> int:
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = await asyncio.wrap_future(self._database.submit(step, limits.VACUUM_ROWS))
        await asyncio.sleep(loop.time() - started)
        return done
