"""The vacuum: deletes rows behind the log's horizon and frees their space, one short transaction at a time.

Other writes go between two transactions, and the vacuum rests after each as long as it took. It stops before the oldest
open read view (read_views.py), and begins again when that is closed. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .. import limits
from ..errors import VecError
from ..store import retention
from ..store.database import Database
from ..store.transaction import Transaction
from .read_views import ReadViews

#: Work for the writer: how much it did, 0 if there was nothing left to do.
Work = Callable[[Transaction], int]

log = logging.getLogger("vecd.retention")


def deleting(database: Database, views: ReadViews) -> Work:
    """Deletes some rows, as far as the open read views allow."""

    def work(tx: Transaction) -> int:
        rows = limits.VACUUM_ROWS_TIGHT if database.tight else limits.VACUUM_ROWS
        return retention.vacuum(tx, rows, views.vacuum_limit(tx.horizon))

    return work


def giving_back(database: Database) -> Work:
    """Returns some free pages to the file system."""

    def work(tx: Transaction) -> int:
        return retention.give_back(tx, limits.VACUUM_PAGES_TIGHT if database.tight else limits.VACUUM_PAGES)

    return work


class Vacuum:
    """At most one runs."""

    def __init__(self, database: Database, views: ReadViews) -> None:
        self._database = database
        self._views = views
        self._task: asyncio.Task[None] | None = None
        self._again = False  # `begin` was called since the one that runs began

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """Begins one. If one runs already, another follows: it may be past the rows that can be deleted now."""
        self._again = True
        if not self.running:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def done(self) -> None:
        """Returns when none runs."""
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
            while gone := await self._run_work(deleting(self._database, self._views)):
                rows += gone
            given = 0
            while pages := await self._run_work(giving_back(self._database)):
                given += pages
            if rows or given:
                await self._run_work(self._database.emptying_wal)
                await self._run_work(lambda tx: 0)  # behind the checkpoint that empties the log and shortens the file
        except VecError as error:
            log.warning("vacuum given up; the next trim continues it", extra={"error": str(error)})
        if rows:
            log.info("vacuum done", extra={"rows": rows})

    async def _run_work(self, work: Work) -> int:
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = await asyncio.wrap_future(self._database.submit(work, limits.VACUUM_ROWS, frees=True))
        await asyncio.sleep(loop.time() - started)
        return done
