"""The libraries' LiveIndexes: made when a library is first searched, told of every commit from then on.

A LiveIndex is registered before its load reads the store, and a commit tells the indexes before anybody is answered.
So whatever an acknowledged write did is either in what the load reads or left at the LiveIndex: nothing falls between.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from .. import limits
from ..errors import Code, VecError
from ..index.live import LiveIndex, Loaded, Write, make_pool
from ..store import documents, events
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Commit

log = logging.getLogger("vecd.index")


class Indexes:
    """LiveIndexes by library id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = make_pool(limits.INDEX_THREADS)
        self._live: dict[int, LiveIndex] = {}
        self._dropped: set[int] = set()  # who found a library just before it was deleted must not load it again
        self._lock = threading.Lock()  # guards _live: a commit and a first search may meet here

    def of(self, library: Library) -> LiveIndex:
        """The library's LiveIndex. The library must have a dimension. Raises VecError `not_found` if it was deleted."""
        with self._lock:
            if library.library_id in self._dropped:
                raise VecError(Code.NOT_FOUND, f"library {library.name!r} has just been deleted", library=library.name)
            live = self._live.get(library.library_id)
            if live is None:
                assert library.dimension is not None
                live = self._live[library.library_id] = LiveIndex(
                    library.dimension, library.metric, self._pool, lambda: self._load(library), self._discard
                )
            return live

    def apply(self, commit: Commit) -> None:
        """Leaves a commit's changes at the LiveIndexes that there are. On the writer's thread, in commit order."""
        with self._lock:
            for change in commit.changes:
                if change.dropped:
                    self._live.pop(change.library_id, None)
                    self._dropped.add(change.library_id)
                elif (live := self._live.get(change.library_id)) is not None:
                    live.write(Write(change.seq, change.labels, change.vectors, change.removed))

    def describe(self, library: Library) -> dict[str, Any]:
        """For status: what is in memory of this library."""
        with self._lock:
            live = self._live.get(library.library_id)
        return live.describe() if live is not None else {"state": "unloaded"}

    def close(self) -> None:
        with self._lock:
            for live in self._live.values():
                live.close()
        self._pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _load(self, library: Library) -> Iterator[Loaded]:
        """What a LiveIndex begins with: a seq, and the vectors as of it. Runs on its strand."""
        with self._database.snapshot() as db:
            yield events.head(db), documents.vectors(db, library.library_id)
        log.info("index loaded", extra={"library": library.name})

    def _discard(self, failed: LiveIndex) -> None:
        log.error("index failed", exc_info=failed.failure, extra={"dimension": failed.dimension})
        with self._lock:
            for library_id, live in list(self._live.items()):
                if live is failed:
                    del self._live[library_id]
