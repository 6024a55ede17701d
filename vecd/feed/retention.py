"""Retention: how much of the log is kept. trim moves its horizon; the vacuum follows behind it, step by step.

Nothing is trimmed unless somebody says so: by `vec trim`, or by the settings keep_age, keep_count and keep_bytes, which
the daemon then holds the log against now and then. A trim stops at the hindmost consumer, unless told to go past it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from .. import limits
from ..store import consumers, retention
from ..store.retention import Limits
from ..store.transaction import Transaction
from .positions import Position, cursor

if TYPE_CHECKING:
    from ..engine.engine import Engine

log = logging.getLogger("vecd.retention")


async def trim(engine: Engine, keep: Limits, *, past_consumers: bool = False, wait: bool = False) -> dict[str, Any]:
    """Trims what the limits let go: `{"trimmed","oldest","held_by","bytes","free_bytes"}`. `trimmed` counts events,
    `oldest` is the cursor that all that is left is behind, `held_by` the consumer that kept it from going further, and
    the bytes are of the store's file. With `wait` it returns when the space is free and given back."""
    upto = await engine.read(reachable, engine, keep)

    def write(tx: Transaction) -> tuple[int, str | None]:
        return trim_to(tx, upto, past_consumers)

    trimmed, held_by = await asyncio.wrap_future(engine.database.submit(write, frees=True))
    if trimmed:
        log.info("log trimmed", extra={"events": trimmed, "horizon": engine.database.horizon})
    engine.vacuum.begin()
    if wait:
        await engine.vacuum.done()
    size, free = await engine.read(_size, engine)
    oldest = cursor(engine.database, Position(engine.database.horizon))
    return {"trimmed": trimmed, "oldest": oldest, "held_by": held_by, "bytes": size, "free_bytes": free}


def reachable(engine: Engine, keep: Limits) -> int:
    """Up to which seq (inclusive) the log may go, by these limits. Blocks."""
    with engine.database.snapshot() as db:
        return retention.wanted(db, keep, clock_us())


def clock_us() -> int:
    """Microseconds since the epoch by the machine's clock, which may be behind the times of the log."""
    return time.time_ns() // 1000


def trim_to(tx: Transaction, upto: int, past_consumers: bool) -> tuple[int, str | None]:
    """On the writer: how many events were trimmed, and the consumer that kept it from going further."""
    held_by = None
    retention.mark_clock(tx, clock_us())
    if not past_consumers and (hindmost := consumers.hindmost(tx.db)) is not None and hindmost.seq < upto:
        upto, held_by = retention.boundary(tx.db, max(hindmost.seq, tx.horizon)), hindmost.name
    return retention.trim(tx, upto), held_by


def _size(engine: Engine) -> tuple[int, int]:
    with engine.database.snapshot() as db:
        return retention.size(db)


class Retention:
    """Trims the log to the settings, every limits.RETENTION_EVERY_S."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        settings = engine.settings
        self._keep = Limits(settings.keep_age or None, settings.keep_count or None, settings.keep_bytes or None)
        engine.vacuum.begin()  # what the last run of the daemon may have left

    async def tick(self) -> float | None:
        """Trims once; returns after how many seconds to do it again, None if the settings keep everything. Raises
        VecError."""
        if self._keep == Limits():
            return None
        await trim(self._engine, self._keep)
        return limits.RETENTION_EVERY_S
