"""LiveIndex: real-time behaviour, once, for every kind of structure.

One owner at a time. A LiveIndex is an actor on a small pool of threads that all libraries share (a strand): whoever
wants something leaves it here, and one thread at a time does, in turns:

    1. all writes that wait, in the order of their commits
    2. the searches that wait, together as one batch
    3. when nothing waits, one slice of maintenance

Nothing else touches the structure, so there is no lock to get wrong. Because writes come first in a turn, a search
sees every write that was left here before it: a write may be acknowledged as soon as it has been left.

The vectors are loaded by the first turn, from whatever `load` gives as of one seq. Writes left since the LiveIndex was
made are applied on top; those that the load saw already are passed over by their seq.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Code, VecError
from .flat import Flat, Floats, Labels

#: As many queries as one turn answers, so that writes left meanwhile do not wait long.
_SEARCHES_A_TURN = 64

#: What `load` gives: the seq the data is as of, and pages of (labels ascending, vectors as packed float32).
Loaded = tuple[int, Iterator[tuple[Labels, bytes]]]


@dataclass(slots=True)
class Write:
    """What one commit did: rows that came (shape (n, dimension)), labels that went."""

    seq: int
    labels: Labels
    vectors: Floats
    removed: list[int]


@dataclass(slots=True)
class _Search:
    query: Floats  # shape (dimension,)
    k: int
    future: Future[tuple[Floats, Labels]]


def make_pool(threads: int) -> Executor:
    """The threads that all strands share. Each runs faiss on one core: the cores are shared by the libraries."""

    def one_core() -> None:
        import faiss

        faiss.omp_set_num_threads(1)

    return ThreadPoolExecutor(threads, "vecd-index", initializer=one_core)


class LiveIndex:
    """A library's vectors, searchable while they change."""

    def __init__(
        self,
        dimension: int,
        metric: str,
        pool: Executor,
        load: Callable[[], AbstractContextManager[Loaded]],
        on_failure: Callable[[LiveIndex], None],
    ) -> None:
        self.dimension = dimension
        self.metric = metric
        self._pool = pool
        self._load = load
        self._on_failure = on_failure
        self._structure = Flat(dimension, metric)
        self._seq: int | None = None  # what was loaded stands for the log up to here; None before that
        self.failure: VecError | None = None
        self._closed = False  # gives up a load; a large one would hold up the daemon's stop
        self._lock = threading.Lock()  # guards the three below
        self._writes: deque[Write] = deque()
        self._searches: deque[_Search] = deque()
        self._scheduled = False

    # --- any thread -------------------------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Leaves a write; every search that is left after it sees it."""
        with self._lock:
            self._writes.append(write)
            self._schedule()

    def search(self, query: npt.ArrayLike, k: int) -> Future[tuple[Floats, Labels]]:
        """The k best for one query of shape (dimension,): scores and labels of shape (min(k, n),), best first.

        The future raises VecError `index_failed` if the vectors could not be loaded.
        """
        future: Future[tuple[Floats, Labels]] = Future()
        with self._lock:
            if self.failure is not None:
                future.set_exception(self.failure)
                return future
            self._searches.append(_Search(np.asarray(query, np.float32), k, future))
            self._schedule()
        return future

    def describe(self) -> dict[str, Any]:
        """For `vec status`; the figures may be a turn old."""
        state = "failed" if self.failure else "loading" if self._seq is None else "ready"
        structure = self._structure
        return {
            "state": state,
            "vectors": len(structure),
            "dead": structure.dead,
            "memory_bytes": structure.memory_bytes,
        }

    def close(self) -> None:
        """Gives up what it is at; searches that wait are told."""
        self._closed = True

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._pool.submit(self._turn)

    # --- the strand -------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        with self._lock:
            writes, self._writes = self._writes, deque()
            waiting = [self._searches.popleft() for _ in range(min(len(self._searches), _SEARCHES_A_TURN))]
        searches = [search for search in waiting if search.future.set_running_or_notify_cancel()]
        more = False
        try:
            if self._seq is None:
                self._fill()
            for write in writes:
                self._apply(write)
            if searches:
                self._answer(searches)
            else:
                more = not writes and self._structure.maintain()
        except Exception as error:
            self._fail(searches, error)
            return
        with self._lock:
            if self._writes or self._searches or writes or searches or more:
                self._pool.submit(self._turn)  # to the end of the pool's queue: other libraries have their turn
            else:
                self._scheduled = False

    def _fill(self) -> None:
        with self._load() as (seq, pages):
            for labels, packed in pages:
                if self._closed:
                    raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later")
                self._structure.add(labels, np.frombuffer(packed, "<f4").reshape(len(labels), self.dimension))
        self._seq = seq

    def _apply(self, write: Write) -> None:
        assert self._seq is not None
        if write.seq <= self._seq:
            return
        self._structure.remove(write.removed)
        self._structure.add(write.labels, write.vectors)
        self._seq = write.seq

    def _answer(self, searches: list[_Search]) -> None:
        scores, labels = self._structure.search(
            np.stack([search.query for search in searches]), max(search.k for search in searches)
        )
        for search, its_scores, its_labels in zip(searches, scores, labels, strict=True):
            search.future.set_result((its_scores[: search.k], its_labels[: search.k]))

    def _fail(self, searches: list[_Search], error: Exception) -> None:
        """The vectors cannot be trusted any more: everybody who waits is told, and the next search loads anew."""
        failure = (
            error
            if isinstance(error, VecError)
            else VecError(
                Code.INDEX_FAILED,
                f"the index could not be loaded or searched: {error!r}",
                "try again; vecd's log has more",
            )
        )
        failure.__cause__ = None if failure is error else error
        with self._lock:
            self.failure = failure
            searches += [search for search in self._searches if search.future.set_running_or_notify_cancel()]
            self._searches.clear()
            self._writes.clear()
        self._on_failure(self)
        for search in searches:
            if not search.future.done():
                search.future.set_exception(failure)
