"""Feed: the log as a feed, put together for one store: channels, watches, consumers, retention, and their threads.

It is given what it needs of its surroundings: the store, a way to run short reads, and the vacuum that follows a trim.
Its threads are its own, so that many watches delay neither searches nor each other's newest events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from .. import limits
from ..resources import pool
from ..store.database import Database
from .channels import Channels
from .consumers import Consumers
from .retention import Retention, Vacuum
from .run_blocking import RunBlocking
from .watch import Watches

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Feed:
    """Use it on one event loop, then `stop`, then `close`."""

    def __init__(self, database: Database, read: RunBlocking, vacuum: Vacuum, heartbeat_s: float) -> None:
        """`read` runs short reads: of consumers, and of the store's size. No watch is silent for more than
        `heartbeat_s`. Raises VecError `busy` if the system does not give the threads."""
        self._catch_up_threads = pool(limits.FOLLOWERS, "vecd-feed")
        self._live_thread = pool(1, "vecd-feed-live")
        self.channels = Channels(database, self._catch_up, self._live, heartbeat_s)
        self.consumers = Consumers(database, read)
        self.watches = Watches(database, self.channels, self.consumers, self._catch_up)
        self.retention = Retention(database, read, vacuum)

    def stop(self) -> None:
        """Ends the tasks. On the event loop, before `close`."""
        self.channels.stop()

    def close(self) -> None:
        """Ends the threads behind the reads that they are at. Blocks."""
        self._catch_up_threads.shutdown(cancel_futures=True)
        self._live_thread.shutdown(cancel_futures=True)

    async def _catch_up(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a read for one watch that is behind the head."""
        return await asyncio.get_running_loop().run_in_executor(self._catch_up_threads, function, *args)

    async def _live(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a read at the head, for all watches: never queued behind those that catch up."""
        return await asyncio.get_running_loop().run_in_executor(self._live_thread, function, *args)
