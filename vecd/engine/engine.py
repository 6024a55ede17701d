"""Engine: the store, the indexes, the embedders and the threads that the verbs share.

Threads: the event loop calls the verbs; `searchers` search, `readers` answer what only reads, `followers` read the log
for watchers who catch up and the pump for those at its head, `preparers` validate, chunk and embed what is to be
written, the store's writer commits, the indexes' strands search.
The writer's news arrives in two steps on the writer's thread: first the indexes, then the watchers; whoever wrote is
answered after both.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar, TypeVarTuple

from .. import limits
from ..errors import VecError
from ..feed.channels import Feed
from ..feed.consumers import Consumers
from ..resources import exhausted, pool
from ..settings import Settings
from ..store.database import Database
from ..store.transaction import Commit, JobChange
from ..text import embedders
from .attribute_cache import AttributeCache
from .batch_executor import BatchExecutor
from .hit_cache import HitCache
from .indexes import Indexes
from .preparers import Preparers, Slices
from .read_views import ReadViews
from .vacuum import Vacuum

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = logging.getLogger("vecd.engine")


class Engine:
    """Everything behind the transport. `open`, use on one event loop, `close`."""

    def __init__(self, settings: Settings) -> None:
        """Raises VecError `busy` if the system does not give the threads."""
        self.settings = settings
        self.database = Database(settings.store, self._committed, self._storage_failed, self._published)
        self.indexes = Indexes(self.database, settings.data / "indexes")
        self.attribute_cache = AttributeCache(self.database)
        self.hit_cache = HitCache(self.database)
        self.feed = Feed(self.database, self.follow, self.pump)
        self.consumers = Consumers(self.database)
        self.views = ReadViews(self.database, self._view_released)
        self.vacuum = Vacuum(self.database, self.views)
        self._readers = pool(limits.READERS, "vecd-read")
        self.batch_executor = BatchExecutor("vecd-batch", limits.DESK_THREADS)
        self._searchers = pool(limits.SEARCHERS, "vecd-search")
        self._followers = pool(limits.FOLLOWERS, "vecd-feed")
        self._pump = pool(1, "vecd-pump")
        self._preparers = Preparers("vecd-prepare", limits.PREPARERS)
        self._embedders: dict[str, embedders.Embedder | None] = {}
        self._embedders_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop
        self._on_fatal: Callable[[VecError], None]
        self.on_jobs: Callable[[list[JobChange]], None] = lambda changes: None  # told of every move of a job

    def open(self, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[VecError], None]) -> None:
        """Opens the store; `on_fatal` is called on the loop if it fails later. Raises VecError `storage_failed`."""
        self._loop, self._on_fatal = loop, on_fatal
        self.batch_executor.open(loop)
        self._preparers.open(loop)
        self.database.open()
        self.indexes.open()

    def rest(self) -> None:
        """Ends what goes on by itself. On the event loop, before `close`."""
        self.feed.close()
        self.vacuum.close()

    def close(self) -> None:
        """Finishes what was submitted. Blocks."""
        self._preparers.close()
        self._readers.shutdown(cancel_futures=True)
        self.indexes.stop()  # before those are waited for who wait for an index
        self.batch_executor.close()
        self._searchers.shutdown(cancel_futures=True)
        self._followers.shutdown(cancel_futures=True)
        self._pump.shutdown(cancel_futures=True)
        self.database.close()  # its last commits still tell the indexes
        self.indexes.close()

    async def read(self, verb: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a verb that blocks but only reads, off the loop."""
        return await self._loop.run_in_executor(self._readers, verb, *args)

    async def search(self, verb: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a search, off the loop and away from the readers: while an index is busy, it waits."""
        return await self._loop.run_in_executor(self._searchers, verb, *args)

    async def follow(self, verb: Callable[[*Ts], T], *args: *Ts) -> T:
        """Reads for the feed, off the loop and away from the other readers: many watchers must not hold up searches."""
        return await self._loop.run_in_executor(self._followers, verb, *args)

    async def pump(self, verb: Callable[[*Ts], T], *args: *Ts) -> T:
        """Reads what commits bring, for all who are at the head: not behind those who catch up."""
        return await self._loop.run_in_executor(self._pump, verb, *args)

    def prepare(self, flow: Hashable, slices: Slices[T], cost_s: float) -> asyncio.Future[T]:
        """Runs the heavy part of a write, off the loop and away from the readers, in turn with those of other flows."""
        return self._preparers.prepare(flow, slices, cost_s)

    def embedder(self, name: str) -> embedders.Embedder | None:
        """The embedder of that name, loaded on first use; None for `none`. Blocks; raises VecError."""
        with self._embedders_lock:
            if name not in self._embedders:
                try:
                    self._embedders[name] = embedders.make(name)
                except (ImportError, OSError, MemoryError) as error:
                    raise exhausted(error) or error from error
                log.info("embedder loaded", extra={"embedder": name})
            return self._embedders[name]

    def _committed(self, commit: Commit) -> None:
        self.attribute_cache.apply(commit)
        self.indexes.apply(commit)
        if commit.jobs:
            self.on_jobs(commit.jobs)

    def _published(self) -> None:
        self._loop.call_soon_threadsafe(self.feed.wake)

    def _view_released(self) -> None:
        self._loop.call_soon_threadsafe(self.vacuum.begin)

    def _storage_failed(self, failure: VecError) -> None:
        self._loop.call_soon_threadsafe(self._on_fatal, failure)
