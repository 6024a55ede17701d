"""Retention: trims the log by age, count and size, on request or by the settings. A trim moves its horizon; the vacuum
deletes what is behind it, in steps.

The log is trimmed by `vec trim`, by jobs of kind `trim`, and, if one of the settings keep_age, keep_count and
keep_bytes is set, by the daemon at intervals. A trim stops at the slowest consumer, unless it is asked to pass it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

from .. import limits
from ..settings import Settings
from ..store import consumers, retention
from ..store.database import Database
from ..store.retention import Limits
from ..store.transaction import Transaction
from .positions import Position, cursor
from .run_blocking import RunBlocking

log = logging.getLogger("vecd.retention")


class Vacuum(Protocol):
    """Deletes what is behind the horizon and frees the space, in the background."""

    def begin(self) -> None: ...

    async def done(self) -> None:
        """Returns when it has nothing left to do."""


class Retention:
    """Trims the log. Lives on the event loop."""

    def __init__(self, database: Database, read: RunBlocking, vacuum: Vacuum) -> None:
        self._database = database
        self._read = read
        self._vacuum = vacuum

    async def trim(self, keep: Limits, *, past_consumers: bool = False, wait: bool = False) -> dict[str, Any]:
        """Trims what the limits do not keep: `{"trimmed","oldest","held_by","bytes","free_bytes"}`.

        `trimmed` counts events, `oldest` is the cursor that all that is left is behind, `held_by` names the consumer
        that kept it from going further, and the bytes are of the store's file. With `wait` it returns when the space is
        free and returned to the file system.
        """
        upto = await self._read(reachable, self._database, keep)

        def write(tx: Transaction) -> tuple[int, str | None]:
            return trim_to(tx, upto, past_consumers)

        trimmed, held_by = await asyncio.wrap_future(self._database.submit(write, frees=True))
        if trimmed:
            log.info("log trimmed", extra={"events": trimmed, "horizon": self._database.horizon})
        self._vacuum.begin()
        if wait:
            await self._vacuum.done()
        size, free = await self._read(_size, self._database)
        oldest = cursor(self._database, Position(self._database.horizon))
        return {"trimmed": trimmed, "oldest": oldest, "held_by": held_by, "bytes": size, "free_bytes": free}

    async def keep_trimmed(self, settings: Settings) -> float | None:
        """Trims once by the settings; returns after how many seconds to do it again, None if they keep the whole log.
        First it begins the vacuum, for what an earlier run of the daemon may have left. Raises VecError."""
        self._vacuum.begin()
        keep = Limits(settings.keep_age or None, settings.keep_count or None, settings.keep_bytes or None)
        if keep == Limits():
            return None
        await self.trim(keep)
        return limits.RETENTION_EVERY_S


def reachable(database: Database, keep: Limits) -> int:
    """Up to which seq (inclusive) the limits let the log be trimmed. Blocks."""
    with database.read_transaction() as db:
        return retention.wanted(db, keep, clock_us())


def clock_us() -> int:
    """Microseconds since the epoch by the machine's clock, which may be behind the times of the log."""
    return time.time_ns() // 1000


def trim_to(tx: Transaction, upto: int, past_consumers: bool) -> tuple[int, str | None]:
    """On the writer: how many events were trimmed, and the consumer that kept it from going further."""
    held_by = None
    retention.mark_clock(tx, clock_us())
    if not past_consumers and (slowest := consumers.slowest(tx.db)) is not None and slowest.seq < upto:
        upto, held_by = retention.boundary(tx.db, max(slowest.seq, tx.horizon)), slowest.name
    return retention.trim(tx, upto), held_by


def _size(database: Database) -> tuple[int, int]:
    with database.read_transaction() as db:
        return retention.size(db)
