"""Engine: the store, the indexes, the embedders, the feed and the threads that the operations share.

Threads: the event loop calls the operations. `batch_executor` runs searches in batches, `searchers` verify phrases,
`readers` run what only reads, `preparers` validate, chunk and embed what is to be written, the store's writer commits,
and each index has its own order of work on threads that all indexes share. The feed has threads of its own. A slow
embedder runs outside the process (workers/executor.py).
A commit is announced in two steps, both on the writer's thread: first to the attribute cache and the indexes, then to
the feed. A write is answered after both.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar, TypeVarTuple

from .. import limits
from ..errors import VecError
from ..feed.feed import Feed
from ..filters import expressions
from ..filters.expressions import Filter
from ..index.rows import Floats
from ..parameters import without_parameters
from ..resources import exhausted, pool
from ..settings import Settings
from ..store.database import Database
from ..store.transaction import Commit, JobChange
from ..text import embedders
from ..workers.executor import Executor, OffloadedEmbedder
from .attribute_cache import AttributeCache
from .batch_executor import BatchExecutor
from .damage import Damage
from .fair_pool import FairPool
from .hit_cache import HitCache
from .indexes import Indexes
from .query_vectors import QueryVectors
from .read_views import ReadViews
from .second_stage import SecondStage
from .slices import Slices
from .titles import TitleVectors
from .vacuum import Vacuum

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = logging.getLogger("vecd.engine")


class Engine:
    """`open` it, use it on one event loop, `end_tasks`, `close`."""

    def __init__(self, settings: Settings, executor: Executor | None = None) -> None:
        """`executor` runs slow embedders. Raises VecError `busy` if the system does not give the threads."""
        self.settings = settings
        self.executor = executor or Executor()
        self.database = Database(settings.store, self._committed, self._storage_failed, self._published)
        self.damage = Damage(self.database)
        self.indexes = Indexes(self.database, self.damage, settings.data / "indexes")
        self.attribute_cache = AttributeCache(self.database, self.damage)
        self.hit_cache = HitCache(self.database, self.damage)
        self.views = ReadViews(self.database, self._view_released)
        self.vacuum = Vacuum(self.database, self.views)
        self.feed = Feed(self.database, self.read, self.vacuum, settings.heartbeat_s)
        self.batch_executor = BatchExecutor("vecd-batch", limits.BATCH_EXECUTOR_THREADS)
        self._readers = pool(limits.READERS, "vecd-read")
        self._searchers = pool(limits.SEARCHERS, "vecd-search")
        self._preparers = FairPool("vecd-prepare", limits.PREPARERS)
        self.second_stage = SecondStage(self.database, self.executor, self._preparers, self.read, self.embedder)
        self.leased = self.executor.leased  # texts that `vec worker` processes may embed
        self._embedders: dict[str, embedders.Embedder | None] = {}
        self.query_failures: dict[str, tuple[float, VecError]] = {}  # by embedder: not to be asked before, and why
        self._embedders_lock = threading.Lock()
        self._query_vectors = QueryVectors()
        self.title_vectors = TitleVectors()
        self._loop: asyncio.AbstractEventLoop
        self._on_fatal: Callable[[VecError], None]
        self.on_jobs: Callable[[list[JobChange]], None] = lambda changes: None  # called with every transition of a job

    def open(self, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[VecError], None]) -> None:
        """Opens the store; `on_fatal` is called on the loop if it fails later. Raises VecError `storage_failed`."""
        self._loop, self._on_fatal = loop, on_fatal
        self.batch_executor.open(loop)
        self._preparers.open(loop)
        self.executor.start()
        self.database.open()
        self.indexes.open()
        self.second_stage.open(loop)

    def end_tasks(self) -> None:
        """Cancels the background tasks. On the event loop, before `close`."""
        self.second_stage.close()
        self.feed.stop()
        self.vacuum.close()

    def close(self) -> None:
        """Finishes what was submitted. Blocks."""
        self.executor.close()
        self._preparers.close()
        self._readers.shutdown(cancel_futures=True)
        self.indexes.stop()  # first: the threads that are waited for next may wait for an index
        self.batch_executor.close()
        self._searchers.shutdown(cancel_futures=True)
        self.feed.close()
        self.database.close()  # its last commits are still applied to the indexes
        self.indexes.close()

    async def read(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a function that blocks but only reads, off the loop."""
        return await self._loop.run_in_executor(self._readers, function, *args)

    async def search(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Runs a part of a search, off the loop and not on the readers' threads: it waits while an index is busy."""
        return await self._loop.run_in_executor(self._searchers, function, *args)

    async def parse_filter(self, where: list[str]) -> Filter:
        """The filter of all these expressions together; empty: none. Raises VecError `invalid_filter`."""
        texts = tuple(where)
        if sum(map(len, texts)) <= limits.FILTER_CHARS_AT_ONCE:
            return expressions.parse(texts)
        return await self.read(expressions.parse, texts)

    def prepare(self, flow: Hashable, slices: Slices[T], cost_s: float) -> asyncio.Future[T]:
        """Runs the expensive part of a write, off the loop, in fair order with those of other flows; `cost_s` is about
        the seconds that its first slice takes."""
        return self._preparers.prepare(flow, slices, cost_s)

    def embedder(self, name: str) -> embedders.Embedder | None:
        """The embedder of that reference, loaded on first use; None for `none`. A slow one runs in other processes.
        Blocks; raises VecError."""
        with self._embedders_lock:
            if name not in self._embedders:
                kind = embedders.kind_of(name)
                if kind is not None and kind.slow:
                    self._embedders[name] = OffloadedEmbedder(self.executor, name)
                    return self._embedders[name]
                try:
                    self._embedders[name] = embedders.make(name)
                except (ImportError, OSError, MemoryError) as error:
                    raise exhausted(error) or error from error
                log.info("embedder loaded", extra={"embedder": without_parameters(name)[0]})
            return self._embedders[name]

    async def query_vector(self, name: str, text: str) -> Floats:
        """The vector that an embedder makes of a query, shape (dimension,). Raises VecError."""
        if self.executor.offloads(name):
            if (known := self._query_vectors.get(name, text)) is not None:
                return known
            embedded = await asyncio.wrap_future(self.executor.embed("query", name, [text], queries=True))
            for error in embedded.failed.values():
                raise error
            made: Floats = embedded.vectors[0].copy()  # not a view of the whole answer
            self._query_vectors.put(name, text, made)
            return made
        return await self.search(self._query_vector, name, text)

    def _query_vector(self, name: str, text: str) -> Floats:
        """Blocks."""
        embedder = self.embedder(name)
        assert embedder is not None
        made: Floats = embedders.of_queries(embedder)([text])[0]
        return made

    def _committed(self, commit: Commit) -> None:
        # Attributes first: a filter that is evaluated in an index knows every document whose vectors are there.
        self.attribute_cache.apply(commit)
        self.damage.apply(commit)
        self.indexes.apply(commit)
        self.second_stage.apply(commit)
        if commit.jobs:
            self.on_jobs(commit.jobs)

    def _published(self) -> None:
        self.second_stage.published()
        self._loop.call_soon_threadsafe(self.feed.channels.commit_published)

    def _view_released(self) -> None:
        self._loop.call_soon_threadsafe(self.vacuum.begin)

    def _storage_failed(self, failure: VecError) -> None:
        self._loop.call_soon_threadsafe(self._on_fatal, failure)
