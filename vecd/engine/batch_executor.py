"""A desk: threads that answer what is asked, together as much as waits.

Handing a thing from thread to thread costs about as much as a search does, and threads that want the interpreter lock
at the same time cost more than that: with eight clients, a thread for each search made a third of the searches that one
thread for all makes. So one thread takes whatever waits as a batch, and its answers go back to the event loop as one.
Only when it has been at a batch for STUCK_S does another thread begin on what has come since.
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
A = TypeVar("A")


class Asked(Generic[Q, A]):
    """One question; whoever answers sets `answer` or `error`."""

    __slots__ = ("answer", "error", "future", "question")

    def __init__(self, question: Q, future: asyncio.Future[A]) -> None:
        self.question = question
        self.future = future
        self.answer: A | None = None
        self.error: BaseException | None = None

    @contextmanager
    def failing(self) -> Iterator[None]:
        """What is raised inside is the answer to this question, and none to the others of its batch."""
        try:
            yield
        except Exception as error:
            self.error = error


Work = Callable[[list[Asked[Q, A]]], None]


class BatchExecutor:
    """`ask` on the event loop; what is to be done with a question answers a whole batch of them, on one of the desk's
    threads, and may block."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._loop: asyncio.AbstractEventLoop
        self._threads: list[threading.Thread] = []
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()  # wakes one thread; false ends it
        self._lock = threading.Lock()  # guards all that follows
        self._waiting: deque[tuple[Work[Any, Any], Asked[Any, Any]]] = deque()
        self._busy: dict[int, float] = {}  # by thread: since when it has been at its batch
        self._called = 0  # threads that were woken and have not begun yet
        self._looking = False  # a look for threads that are stuck is due on the loop

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises VecError `busy` if the system does not give a thread."""
        self._loop = loop
        thread = self._thread()
        start([thread])
        self._threads.append(thread)

    def _thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)

    def ask(self, work: Work[Q, A], question: Q) -> asyncio.Future[A]:
        """On the event loop. The future raises what the work sets as the error."""
        future: asyncio.Future[A] = self._loop.create_future()
        with self._lock:
            self._waiting.append((work, Asked(question, future)))
            if not self._busy and not self._called:
                self._call_a_thread()
            elif not self._looking:
                self._looking = True
                self._loop.call_later(limits.DESK_STUCK_S, self._look)
        return future

    def close(self) -> None:
        """Ends the threads when they are done with what they are at. Blocks."""
        with self._lock:
            self._waiting.clear()
        for _ in self._threads:
            self._bell.put(False)
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        """Whether all threads that work are stuck while something waits."""
        with self._lock:
            self._looking = bool(self._waiting)
            if not self._waiting:
                return
            stuck_s = time.monotonic() - max(self._busy.values(), default=0.0)
            if not self._called and stuck_s >= limits.DESK_STUCK_S:
                self._call_a_thread()
        self._loop.call_later(limits.DESK_STUCK_S, self._look)

    def _call_a_thread(self) -> None:
        """With the lock held."""
        if len(self._busy) == len(self._threads):
            if len(self._threads) == self._threads_max:
                return
            thread = self._thread()
            try:
                thread.start()
            except RuntimeError:  # the system gives no more: those that are there take what waits
                return
            self._threads.append(thread)
        self._called += 1
        self._bell.put(True)

    def _run(self) -> None:
        me = threading.get_ident()
        while self._bell.get():
            with self._lock:
                self._called -= 1
                work, batch = self._take(me)
            while work is not None:
                try:
                    work(batch)
                except BaseException as error:
                    for asked in batch:
                        asked.error = asked.error or error
                self._loop.call_soon_threadsafe(self._deliver, batch)
                with self._lock:
                    work, batch = self._take(me)

    def _take(self, me: int) -> tuple[Work[Any, Any] | None, list[Asked[Any, Any]]]:
        """What waits, as long as it is the same work; notes that this thread is at it. With the lock held."""
        batch: list[Asked[Any, Any]] = []
        if not self._waiting:
            self._busy.pop(me, None)
            return None, batch
        self._busy[me] = time.monotonic()
        work = self._waiting[0][0]
        while self._waiting and self._waiting[0][0] is work and len(batch) < limits.SEARCHES_A_TURN:
            batch.append(self._waiting.popleft()[1])
        return work, batch

    @staticmethod
    def _deliver(batch: list[Asked[Any, Any]]) -> None:
        for asked in batch:
            if asked.future.done():  # whoever asked has gone
                continue
            if asked.error is not None:
                asked.future.set_exception(asked.error)
            else:
                asked.future.set_result(asked.answer)
