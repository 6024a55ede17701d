"""The vacuum: deletes what is behind the log's horizon and gives the space back, one step of the writer at a time.

Others' writes go between two steps, and the vacuum rests after each as long as it took. It stops before the oldest open
read view (readviews.py), and is begun again when that is closed. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging

from .. import limits
from ..errors import VecError
from ..store import retention
from ..store.database import Database
from ..store.transaction import Transaction
from .read_views import ReadViews

log = logging.getLogger("vecd.retention")


def deleting(database: Database, views: ReadViews) -> retention.Step:
    """The step that deletes rows, as far as the open read views allow."""

    def step(tx: Transaction) -> int:
        rows = limits.VACUUM_ROWS_TIGHT if database.tight else limits.VACUUM_ROWS
        return retention.vacuum(tx, rows, views.floor(tx.horizon))

    return step


def giving_back(database: Database) -> retention.Step:
    """The step that gives free pages back to the file system."""

    def step(tx: Transaction) -> int:
        return retention.give_back(tx, limits.VACUUM_PAGES_TIGHT if database.tight else limits.VACUUM_PAGES)

    return step


class Vacuum:
    """At most one is going on."""

    def __init__(self, database: Database, views: ReadViews) -> None:
        self._database = database
        self._views = views
        self._task: asyncio.Task[None] | None = None
        self._again = False  # somebody has wanted it since the one that is going on began

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """One that is going on is followed by another: it may be past the rows that may go now."""
        self._again = True
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
        while self._again:
            self._again = False
            await self._once()

    async def _once(self) -> None:
        rows = 0
        try:
            while gone := await self._step(deleting(self._database, self._views)):
                rows += gone
            given = 0
            while pages := await self._step(giving_back(self._database)):
                given += pages
            if rows or given:
                await self._step(self._database.emptying_wal)
                await self._step(lambda tx: 0)  # behind the checkpoint that empties the log and shortens the file
        except VecError as error:
            log.warning("vacuum given up; the next trim goes on with it", extra={"error": str(error)})
        if rows:
            log.info("vacuum done", extra={"rows": rows})

    async def _step(self, step: retention.Step) -> int:
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = await asyncio.wrap_future(self._database.submit(step, limits.VACUUM_ROWS, frees=True))
        await asyncio.sleep(loop.time() - started)
        return done
