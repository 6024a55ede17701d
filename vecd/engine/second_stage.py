"""The second stage at work: embeds what was written to libraries with a second embedder, and follows their writes.

One task for each library that has something to do, on the event loop. It reads the next chunks, has their texts
embedded outside the daemon (a fast embedder: on the threads that prepare writes), several pages at once, and stores
them in the order of their labels (store/second_stage.py). What is not done when the daemon stops, or dies, is done
after its next start. An embedder that fails is tried again after a pause: meanwhile the first stage finds what waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np

from .. import limits
from ..backoff import pause_s
from ..errors import Code, VecError
from ..store import second_stage as store
from ..store.catalogue import Library
from ..store.database import Database
from ..store.second_stage import PendingPage
from ..store.transaction import Commit
from ..text.embedders import Embedder
from ..workers.executor import Executor
from ..workers.local_pool import Embedded
from .fair_pool import FairPool
from .slices import Slices

T = TypeVar("T")
log = logging.getLogger("vecd.engine")

#: Pauses after failures of an embedder.
_PAUSE_FIRST_S: Final = 1.0
_PAUSE_MAX_S: Final = 60.0
#: About how long a fast embedder takes for a page.
_FAST_PAGE_S: Final = 0.005


class _Read(Protocol):
    """Runs a function that blocks off the event loop."""

    def __call__(self, function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class _Made(NamedTuple):
    """What the embedder has made of a page."""

    vectors: dict[int, bytes]  # by label
    refused: dict[int, str]  # why a chunk has none, by label


class SecondStage:
    """Lives on the event loop; `apply` and `published` are called on the writer's thread."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        preparers: FairPool,
        read: _Read,
        embedder: Callable[[str], Embedder | None],
    ) -> None:
        """`embedder` gives a fast embedder by its name. Blocks."""
        self._database, self._executor, self._preparers = database, executor, preparers
        self._read, self._embedder = read, embedder
        self._loop: asyncio.AbstractEventLoop
        self._committed: set[int] = set()  # libraries that the last commit gave something to do
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by library id
        self._again: set[int] = set()  # libraries to look at once more, before their tasks end
        self._failures: dict[int, tuple[int, VecError]] = {}  # in a row, and the last one
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        waiting = {each.library_id for each in self._database.catalogue.by_name.values() if each.second}
        loop.call_soon(self._wake, waiting)

    def close(self) -> None:
        """Ends all tasks. On the event loop."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()

    def apply(self, commit: Commit) -> None:
        """Notes what a commit gave to do."""
        for change in commit.changes:
            begun = change.second is not None and change.second.begun
            if (begun or len(change.labels)) and commit.catalogue.by_id[change.library_id].second is not None:
                self._committed.add(change.library_id)

    def published(self) -> None:
        """The last commit can be read."""
        if self._committed:
            self._loop.call_soon_threadsafe(self._wake, self._committed)
            self._committed = set()

    def describe(self, library: Library) -> dict[str, Any] | None:
        """How far a library's second stage is; None if it has none. `error` is why it does not go on at the moment."""
        if library.second is None:
            return None
        failed = self._failures.get(library.library_id)
        return {
            "dimension": library.second_dimension,
            "embedded": library.second_chunks,
            "refused": library.second_refused,
            "error": None if failed is None else failed[1].message,
        }

    def _wake(self, library_ids: set[int]) -> None:
        for library_id in library_ids:
            self._again.add(library_id)
            if library_id not in self._tasks and not self._closed:
                self._tasks[library_id] = self._loop.create_task(self._run(library_id))

    async def _run(self, library_id: int) -> None:
        try:
            while library_id in self._again:
                self._again.discard(library_id)
                try:
                    await self._pass(library_id)
                except VecError as error:
                    if error.code in (Code.SHUTTING_DOWN, Code.STORAGE_FAILED):
                        return
                    await self._failed(library_id, error)
                except Exception as error:
                    log.exception("the second stage failed")
                    await self._failed(library_id, VecError(Code.INTERNAL, f"the second stage failed: {error!r:.300}"))
        finally:
            del self._tasks[library_id]

    async def _failed(self, library_id: int, error: VecError) -> None:
        """Waits before the next attempt."""
        count, before = self._failures.get(library_id, (0, None))
        self._failures[library_id] = count + 1, error
        if before is None or before.message != error.message:
            library = self._database.catalogue.by_id[library_id]
            about = {"library": library.name, "embedder": library.second, "error": str(error)}
            log.warning("the second stage waits for its embedder", extra=about)
        self._again.add(library_id)
        await asyncio.sleep(pause_s(count + 1, _PAUSE_FIRST_S, _PAUSE_MAX_S))

    async def _pass(self, library_id: int) -> None:
        """Embeds what a library has to embed. Raises VecError."""
        library = self._database.catalogue.by_id[library_id]
        if library.deleted or library.second is None:
            return
        window = max(2, self._executor.window("embed", library.second))
        pages: deque[tuple[PendingPage, asyncio.Task[_Made]]] = deque()
        read, more = library.second_label, True
        try:
            while more or pages:
                while more and len(pages) < window:
                    page = await self._read(self._pending, library, read)
                    read, more = page.last_label, page.more
                    if page.chunks:
                        pages.append((page, self._loop.create_task(self._embedded(library, page))))
                if not pages:
                    return
                page, making = pages[0]
                made = await making
                pages.popleft()
                if not await self._store(library, page, made.vectors):  # it has started again, or the library is gone
                    self._again.add(library_id)
                    return
                self._failures.pop(library_id, None)
                if made.refused:
                    await self._tell(library, made.refused)
        finally:
            for _, making in pages:
                making.cancel()

    def _pending(self, library: Library, after: int) -> PendingPage:
        """Blocks."""
        with self._database.read_transaction() as db:
            return store.pending(db, library, after, limits.SECOND_STAGE_TEXTS)

    async def _store(self, library: Library, page: PendingPage, made: dict[int, bytes]) -> bool:
        writing = self._database.submit(
            lambda tx: store.store(tx, library, page, made), rows=len(page.labels) + 1, sender=("second", library.name)
        )
        return await asyncio.wrap_future(writing)

    async def _tell(self, library: Library, refused: dict[int, str]) -> None:
        """Logs which chunks have no second vector."""
        names = await self._read(self._names, list(refused))
        for label, why in refused.items():
            about = {"library": library.name, "chunk": names.get(label, label), "error": why}
            log.warning("a chunk has no second vector", extra=about)

    def _names(self, labels: list[int]) -> dict[int, str]:
        """Blocks."""
        with self._database.read_transaction() as db:
            return store.names(db, labels)

    async def _embedded(self, library: Library, page: PendingPage) -> _Made:
        """Raises VecError."""
        assert library.second is not None
        vectors, refused = dict(page.known), dict[bytes, str]()
        texts = {each: text for each, text in zip(page.digests, page.texts, strict=True) if each not in vectors}
        if texts:
            flow = "second", library.name
            if self._executor.offloads(library.second):
                future = self._executor.embed(flow, library.second, list(texts.values()), bulk=True)
                embedded = await asyncio.wrap_future(future)
            else:
                made = self._slice(library.second, list(texts.values()))
                embedded = await self._preparers.prepare(flow, made, _FAST_PAGE_S)
            usable: list[bool] = np.all(np.isfinite(embedded.vectors), axis=1).tolist()
            for place, each in enumerate(texts):
                if place in embedded.failed:
                    refused[each] = str(embedded.failed[place])
                elif usable[place]:
                    vectors[each] = embedded.vectors[place].astype("<f4", copy=False).tobytes()
                else:
                    refused[each] = "its vector has a number that is not finite"
        digests = dict(zip(page.labels, page.digests, strict=True))
        return _Made(
            {label: vectors[each] for label, each in digests.items() if each in vectors},
            {label: refused[each] for label, each in digests.items() if each in refused},
        )

    def _slice(self, name: str, texts: list[str]) -> Slices[Embedded]:
        """Embeds in this process, in one slice."""
        embedder = self._embedder(name)
        assert embedder is not None
        yield None
        return Embedded(embedder.embed(texts), {})
