"""A desk: threads that answer what is asked, together as much as waits.

Handing a thing from thread to thread costs about as much as a search does, and threads that want the interpreter lock
at the same time cost more than that: with eight clients, a thread for each search made a third of the searches that one
thread for all makes. So one thread takes whatever waits as a batch, and its answers go back to the event loop as one.
Only when it has been at a batch for STUCK_S does another thread begin on what has come since.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from .. import limits

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


class Desk:
    """`ask` on the event loop; what is to be done with a question answers a whole batch of them, on one of the desk's
    threads, and may block."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._loop: asyncio.AbstractEventLoop
        self._waiting: deque[tuple[Work[Any, Any], Asked[Any, Any]]] = deque()
        self._changed = threading.Condition()  # guards all that follows, and _waiting
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._begun: dict[int, float] = {}  # by thread: since when it has been at its batch
        self._looking = False  # a look for threads that are stuck is due on the loop
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def ask(self, work: Work[Q, A], question: Q) -> asyncio.Future[A]:
        """On the event loop. The future raises what the work sets as the error."""
        future: asyncio.Future[A] = self._loop.create_future()
        with self._changed:
            self._waiting.append((work, Asked(question, future)))
            if not self._begun:
                self._call_a_thread()
            elif not self._looking:
                self._looking = True
                self._loop.call_later(limits.DESK_STUCK_S, self._look)
        return future

    def close(self) -> None:
        """Ends the threads when they are done with what they are at. Blocks."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        """Whether all threads that work are stuck while something waits."""
        with self._changed:
            self._looking = False
            if self._waiting and not self._closed:
                if time.monotonic() - max(self._begun.values(), default=0.0) >= limits.DESK_STUCK_S:
                    self._call_a_thread()
                self._looking = True
                self._loop.call_later(limits.DESK_STUCK_S, self._look)

    def _call_a_thread(self) -> None:
        """With the condition held."""
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._threads_max:
            thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._changed:
                self._begun.pop(me, None)
                while not self._waiting and not self._closed:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if self._closed:
                    return
                work, batch = self._take()
                self._begun[me] = time.monotonic()
            try:
                work(batch)
            except BaseException as error:
                for asked in batch:
                    asked.error = asked.error or error
            self._loop.call_soon_threadsafe(self._deliver, batch)

    def _take(self) -> tuple[Work[Any, Any], list[Asked[Any, Any]]]:
        """What waits, as long as it is the same work. With the condition held."""
        work = self._waiting[0][0]
        batch: list[Asked[Any, Any]] = []
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
