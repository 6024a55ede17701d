"""Batches of a delivery: groups the events of a source by count, age and idle time.

A batch is complete when it is full, when no further event arrives for a moment, or when its first event has waited for
long enough. The events of one document stay in one batch, unless there are more of them than a batch may hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from ..errors import VecError
from .source import Event, EventSource, Stop

T = TypeVar("T")


class DeliveryBatch(NamedTuple, Generic[T]):
    """Encoded events, and the position behind them. Without items it only moves the position."""

    items: Sequence[T]  # for a command: lines, each with its newline; for a broker: messages
    events: int  # of the source; there may be fewer items
    cursor: str
    attempt: int = 1
    again: bool = False  # dead letters: later events may have been delivered already, and the position stays


class Batcher(Generic[T]):
    """Iterate over it once. It ends when the source ends, or when `stop` is set.

    A VecError of the source is raised after all that was read before it.
    """

    def __init__(
        self,
        source: EventSource,
        encode: Callable[[Sequence[Event]], Sequence[T]],
        stop: Stop,
        *,
        events_max: int,
        messages_max: int | None = None,
        age_s: float,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._encode = encode
        self._stop = stop
        self._events_max = events_max
        self._messages_max = messages_max
        self._age_s = age_s
        self._idle_s = idle_s
        self._clock = clock
        self._rewinds = source.rewinds
        self._events: list[Event] = []
        self._cursor = self._before = source.committed  # behind the events, and in front of them
        self._returned = ""  # the cursor of the last batch
        self._failure: VecError | None = None

    def __iter__(self) -> Iterator[DeliveryBatch[T]]:
        while not self._stop.is_set():
            self._check_rewind()
            if self._failure is None and not self._source.ended:
                self._gather()
            if self._events:
                yield self._cut()
            elif self._failure is not None:
                raise self._failure
            elif self._cursor != self._returned:
                self._before = self._returned = self._cursor
                yield DeliveryBatch((), 0, self._cursor)
            elif self._source.ended:
                return

    def _check_rewind(self) -> None:
        if self._source.rewinds != self._rewinds:
            self._rewinds = self._source.rewinds
            self._events = []
            self._cursor = self._before = self._source.committed

    def _gather(self) -> None:
        """Reads what has arrived; waits only if nothing has."""
        began, messages = self._clock(), 0
        try:
            while len(self._events) < self._events_max and not self._stop.is_set():
                message = self._source.read(self._idle_s if self._events else None)
                self._check_rewind()
                if message is None:
                    return
                if message.events and not self._events:
                    began = self._clock()
                self._events += message.events
                self._cursor = message.cursor
                messages += 1
                if not self._events or messages == self._messages_max or self._clock() - began > self._age_s:
                    return
        except VecError as error:
            self._failure = error

    def _cut(self) -> DeliveryBatch[T]:
        """The first of the events, up to the limit."""
        place = len(self._events)
        if place > self._events_max:
            place = self._events_max
            while place and self._events[place]["type"].startswith("chunk."):  # it belongs to the document before it
                place -= 1
            place = place or self._events_max
        events, self._events = self._events[:place], self._events[place:]
        cursor = self._before
        if not self._events:
            cursor = self._cursor
        else:  # the last one that has a cursor: within a message of a snapshot there is none
            cursor = next((event["cursor"] for event in reversed(events) if event["cursor"]), cursor)
        self._before = self._returned = cursor
        return DeliveryBatch(self._encode(events), len(events), cursor)
