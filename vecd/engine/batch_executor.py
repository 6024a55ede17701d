"""A batch executor: threads that answer all requests that wait as one batch.

Handing a request from thread to thread costs about as much as a search does, and threads that compete for the
interpreter lock cost more than that: with eight clients, a thread for each search makes a third of the searches that
one thread for all makes. So one thread takes whatever waits as a batch, and its answers go back to the event loop
together. Only when it has worked on a batch for BATCH_STUCK_S does another thread begin on what has come since.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from .. import limits
from ..resources import start

Q = TypeVar("Q")
R = TypeVar("R")


class QueuedRequest(Generic[Q, R]):
    """One request of a batch. The handler of the batch sets `result` or `error`."""

    __slots__ = ("error", "future", "request", "result")

    def __init__(self, request: Q, future: asyncio.Future[R]) -> None:
        self.request = request
        self.future = future
        self.result: R | None = None
        self.error: BaseException | None = None

    @contextmanager
    def catching(self) -> Iterator[None]:
        """An exception inside is the answer to this request only; the others of its batch go on."""
        try:
            yield
        except Exception as error:
            self.error = error


#: Answers a whole batch; may block.
Handler = Callable[[list[QueuedRequest[Q, R]]], None]


class BatchExecutor:
    """`submit` on the event loop."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._loop: asyncio.AbstractEventLoop
        self._threads: list[threading.Thread] = []
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # wakes one thread; false ends it
        self._lock = threading.Lock()  # guards all that follows
        self._waiting: deque[tuple[Handler[Any, Any], QueuedRequest[Any, Any]]] = deque()
        self._busy: dict[int, float] = {}  # by thread: since when it has worked on its batch
        self._woken = 0  # threads that were woken and have not begun yet
        self._checking = False  # a check for threads that are stuck is due on the loop

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises VecError `busy` if the system does not give a thread."""
        self._loop = loop
        thread = self._thread()
        start([thread])
        self._threads.append(thread)

    def _thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)

    def submit(self, handler: Handler[Q, R], request: Q) -> asyncio.Future[R]:
        """On the event loop. Requests with the same handler are answered together. The future has the result, or raises
        the error, that the handler sets."""
        future: asyncio.Future[R] = self._loop.create_future()
        with self._lock:
            self._waiting.append((handler, QueuedRequest(request, future)))
            if not self._busy and not self._woken:
                self._wake_thread()
            elif not self._checking:
                self._checking = True
                self._loop.call_later(limits.BATCH_STUCK_S, self._check)
        return future

    def close(self) -> None:
        """Ends the threads when they have answered their batches; what waits is dropped. Blocks."""
        with self._lock:
            self._waiting.clear()
        for _ in self._threads:
            self._wake.put(False)
        for thread in self._threads:
            thread.join()

    def _check(self) -> None:
        """Wakes another thread if all active ones are stuck while requests wait."""
        with self._lock:
            self._checking = bool(self._waiting)
            if not self._waiting:
                return
            stuck_s = time.monotonic() - max(self._busy.values(), default=0.0)
            if not self._woken and stuck_s >= limits.BATCH_STUCK_S:
                self._wake_thread()
        self._loop.call_later(limits.BATCH_STUCK_S, self._check)

    def _wake_thread(self) -> None:
        """With the lock held."""
        if len(self._busy) == len(self._threads):
            if len(self._threads) == self._threads_max:
                return
            thread = self._thread()
            try:
                thread.start()
            except RuntimeError:  # no more threads: the present ones take what waits
                return
            self._threads.append(thread)
        self._woken += 1
        self._wake.put(True)

    def _run(self) -> None:
        me = threading.get_ident()
        while self._wake.get():
            with self._lock:
                self._woken -= 1
                handler, batch = self._take(me)
            while handler is not None:
                try:
                    handler(batch)
                except BaseException as error:
                    for pending in batch:
                        pending.error = pending.error or error
                self._loop.call_soon_threadsafe(self._deliver, batch)
                with self._lock:
                    handler, batch = self._take(me)

    def _take(self, me: int) -> tuple[Handler[Any, Any] | None, list[QueuedRequest[Any, Any]]]:
        """The next batch: requests that wait, as long as they have the same handler. With the lock held."""
        batch: list[QueuedRequest[Any, Any]] = []
        if not self._waiting:
            self._busy.pop(me, None)
            return None, batch
        self._busy[me] = time.monotonic()
        handler = self._waiting[0][0]
        while self._waiting and self._waiting[0][0] is handler and len(batch) < limits.SEARCHES_A_TURN:
            batch.append(self._waiting.popleft()[1])
        return handler, batch

    @staticmethod
    def _deliver(batch: list[QueuedRequest[Any, Any]]) -> None:
        for pending in batch:
            if pending.future.done():  # the request was cancelled
                continue
            if pending.error is not None:
                pending.future.set_exception(pending.error)
            else:
                pending.future.set_result(pending.result)
