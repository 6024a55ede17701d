"""Slices: a computation in slices, as a generator that yields between them and returns the result.

It yields None to let others go first, or a future that it waits for; its runner continues when that is done.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Slices = Generator[Future[Any] | None, None, T]


class Begun(Generic[T]):
    """A sliced computation that this thread runs, while others of its kind wait for their futures."""

    def __init__(self, slices: Slices[T]) -> None:
        """Runs it until it first waits for a future. Its errors are raised by `finish`."""
        self._slices = slices
        self._awaited: Future[Any] | None = None
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._run()

    def finish(self, timeout_s: float | None = None) -> bool:
        """Continues; returns whether it has ended, which `timeout_s` without progress prevents. Raises what it
        raises."""
        while self._awaited is not None:
            if not wait([self._awaited], timeout_s).done:
                return False
            self._run()
        if self._error is not None:
            raise self._error
        return True

    @property
    def result(self) -> T:
        """Once `finish` has returned true."""
        return self._result[0]

    def close(self) -> None:
        """Abandons it."""
        self._slices.close()

    def _run(self) -> None:
        self._awaited = None
        try:
            while self._awaited is None:
                self._awaited = next(self._slices)
        except StopIteration as end:
            self._result = [end.value]
        except BaseException as error:
            self._error = error
