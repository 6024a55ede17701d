"""FairPool: a thread pool that runs generators slice by slice, in fair order between requests.

Preparing a large request takes seconds. It is a generator that yields after each slice; after each slice the thread
takes the next request of a fair queue (fair_queue.py). One additional thread takes only small requests, of at most
PREPARE_SMALL_S: so a one-line write does not wait for a slice of another request. The slices of a request run in
sequence. A request that yields a future, such as of vectors that are made elsewhere, occupies no thread until that is
done.

The threads start with the daemon, so a thread that cannot be created is an error at the start, and not later.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .. import limits
from ..fair_queue import FairQueue
from ..resources import start
from .slices import Slices

T = TypeVar("T")


@dataclass(slots=True)
class _Work:
    slices: Slices[Any]
    future: asyncio.Future[Any]
    cost_s: float  # estimated, of its next slice


class FairPool:
    """Runs sliced computations. Call `prepare` on the event loop."""

    def __init__(self, name: str, count: int) -> None:
        """Makes `count` threads for all requests, and one for small ones."""
        self._loop: asyncio.AbstractEventLoop
        self._lock = threading.Lock()  # guards what follows
        self._large: FairQueue[_Work] = FairQueue()
        self._small: FairQueue[_Work] = FairQueue()
        self._for_small = threading.Condition(self._lock)  # the thread that waits for small requests
        self._for_all = threading.Condition(self._lock)  # the threads that wait for any request
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(number > 0,), name=f"{name}_{number}", daemon=True)
            for number in range(count + 1)
        ]

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises VecError `busy` if the system cannot create the threads."""
        self._loop = loop
        start(self._threads)

    def prepare(self, flow: Hashable, slices: Slices[T], cost_s: float) -> asyncio.Future[T]:
        """Runs all slices on the shared threads; `cost_s` is the estimated time of the first. The future has the result
        or the exception."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            if cost_s <= limits.PREPARE_SMALL_S:
                self._small.put(flow, _Work(slices, future, cost_s), cost_s)
                self._for_small.notify()
            else:
                self._large.put(flow, _Work(slices, future, cost_s), cost_s)
            self._for_all.notify()
        return future

    def close(self) -> None:
        """Ends the threads after their current slices; waiting requests are dropped. Blocks."""
        with self._lock:
            self._closed = True
            self._for_small.notify_all()
            self._for_all.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, takes_large: bool) -> None:
        while (taken := self._take(takes_large)) is not None:
            queue, flow, work = taken
            began = time.perf_counter()
            result: Any = None
            error: BaseException | None = None
            awaited: Future[Any] | None = None
            ended = True
            try:
                if work.future.cancelled():  # the caller has gone
                    work.slices.close()
                else:
                    awaited = next(work.slices)
                    ended = False
            except StopIteration as end:
                result = end.value
            except BaseException as raised:
                error = raised
            taken_s = time.perf_counter() - began
            with self._lock:
                queue.correct(flow, taken_s - work.cost_s)
                if not ended and awaited is None:
                    self._go_on(flow, work)
            if awaited is not None:
                awaited.add_done_callback(partial(self._awaited, flow, work))
            if ended:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(_deliver, work.future, result, error)

    def _awaited(self, flow: Hashable, work: _Work, _: Future[Any]) -> None:
        """On any thread: what the request has waited for is done."""
        with self._lock:
            self._go_on(flow, work)

    def _go_on(self, flow: Hashable, work: _Work) -> None:
        """The next slice of a request. With the lock held."""
        work.cost_s = limits.PREPARE_SLICE_S
        self._large.put(flow, work, work.cost_s, first=True)
        self._for_all.notify()

    def _take(self, takes_large: bool) -> tuple[FairQueue[_Work], Hashable, _Work] | None:
        with self._lock:
            while not self._closed:
                if takes_large and self._large:
                    return self._large, *self._large.get()
                if self._small:
                    return self._small, *self._small.get()
                (self._for_all if takes_large else self._for_small).wait()
            return None


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # the caller has gone
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
