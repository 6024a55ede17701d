"""Helpers for concurrent futures: fail, resolve and chain them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def fail(futures: Iterable[Future[Any]], error: BaseException) -> None:
    """Fails all futures that are not done."""
    for future in futures:
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)


def resolve(futures: Iterable[Future[T]], result: T) -> None:
    """Resolves all futures that were not cancelled."""
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_result(result)


def then(source: Future[T], function: Callable[[T], R]) -> Future[R]:
    """A future of `function` applied to the source's result, on the thread that resolves the source. Cancelling it
    cancels the source."""
    chained: Future[R] = Future()

    def done(_: Future[T]) -> None:
        if not chained.set_running_or_notify_cancel():
            return
        try:
            chained.set_result(function(source.result()))
        except BaseException as error:
            chained.set_exception(error)

    chained.add_done_callback(lambda ended: source.cancel() if ended.cancelled() else None)
    source.add_done_callback(done)
    return chained
