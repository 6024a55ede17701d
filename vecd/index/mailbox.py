"""The mailbox of a LiveIndex: the queue of writes, calls and searches, which one thread at a time handles in turns.

The LiveIndex is an actor. `take` gives a turn all waiting writes and calls, and a bounded number of searches. A turn is
scheduled on a shared pool when something is posted, and never two at once. All methods may be called from any thread;
`take` and `release` by the thread whose turn it is. It knows nothing of vectors.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple, TypeVar

from ..errors import VecError
from .requests import Search, Write

T = TypeVar("T")


class QueuedCall(NamedTuple):
    """A function to run in a turn, and the future of its result."""

    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except Exception as error:
            self.future.set_exception(error)


class Turn(NamedTuple):
    """What one turn handles, in this order."""

    writes: deque[Write]
    calls: deque[QueuedCall]
    searches: list[Search]


class Mailbox:
    """The queue of a LiveIndex."""

    def __init__(
        self,
        pool: Executor,
        run_turn: Callable[[], None],
        ready: Callable[[], bool],
        on_pool_closed: Callable[[], None],
    ) -> None:
        """`run_turn` runs on the pool and must `take` and `release`. Until `ready`, nothing is taken."""
        self._pool, self._run_turn = pool, run_turn
        self._ready, self._on_pool_closed = ready, on_pool_closed
        self.failure: VecError | None = None  # the error for every later post
        self._lock = threading.Lock()  # guards all below
        self._writes: deque[Write] = deque()
        self._calls: deque[QueuedCall] = deque()
        self._searches: deque[Search] = deque()
        self._scheduled = False

    def post_write(self, write: Write) -> None:
        """Every search that is posted later sees it."""
        with self._lock:
            if self.failure is None:
                self._writes.append(write)
                self._schedule()

    def post_search(self, search: Search, *, wake: bool = True) -> None:
        """Without `wake` the caller runs a turn itself next; see `claim`."""
        with self._lock:
            if self.failure is None:
                self._searches.append(search)
                if wake:
                    self._schedule()
                return
        search.future.set_exception(self.failure)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Runs the function in a turn."""
        future: Future[T] = Future()
        with self._lock:
            if self.failure is None:
                self._calls.append(QueuedCall(function, future))
                self._schedule()
                return future
        future.set_exception(self.failure)
        return future

    def wake(self) -> None:
        """Schedules a turn."""
        with self._lock:
            self._schedule()

    def claim(self) -> bool:
        """Gives the calling thread the next turn; false if another thread has it."""
        with self._lock:
            if self._scheduled or self.failure is not None:
                return False
            self._scheduled = True
            return True

    def take(self, searches_max: int) -> Turn | None:
        """What this turn handles; None if it is not `ready`. Then the turn has ended, and becoming ready wakes the
        mailbox."""
        with self._lock:
            if not self._ready():  # with the lock held, so that a wake in between is not lost
                self._scheduled = False
                return None
            writes, self._writes = self._writes, deque()
            calls, self._calls = self._calls, deque()
            searches = [self._searches.popleft() for _ in range(min(len(self._searches), searches_max))]
        return Turn(writes, calls, searches)

    def release(self, *, again: bool) -> None:
        """Ends a turn; schedules the next one if something waits, or `again`. The next turn goes to the end of the
        pool's queue, after the turns of other libraries."""
        with self._lock:
            self._scheduled = False
            if self._writes or self._calls or self._searches or again:
                self._schedule()

    def fail(self, failure: VecError) -> list[Future[Any]]:
        """Empties the mailbox for good, and schedules a last turn. Returns the waiting futures."""
        with self._lock:
            self.failure = failure
            futures = [*(call.future for call in self._calls), *(search.future for search in self._searches)]
            self._searches.clear()
            self._writes.clear()
            self._calls.clear()
            self._scheduled = False
            self._schedule()
        return futures

    def _schedule(self) -> None:
        """With the lock held."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self._pool.submit(self._run_turn)
            except RuntimeError:  # the pool is shut down: no caller waits any more
                self._on_pool_closed()
