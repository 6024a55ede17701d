"""A watch cut into batches: what has accumulated comes together. And the signals that end it between two of them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from vecd.errors import VecError

if TYPE_CHECKING:
    from vecd.client.subscription import Message

    from .following import Following

#: A batch that is not full goes when nothing more has come for so long …
_IDLE_S = 0.01
#: … or when its first event has waited for so long.
_GATHER_S = 0.25


class Signals:
    """SIGTERM and SIGINT, remembered until the block's work is at a place where it can end."""

    def __init__(self) -> None:
        self.got: int | None = None
        self.group: int | None = None  # of a command that runs: a second signal is for it
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def fileno(self) -> int:
        """Readable once one has come."""
        return self._read

    def _take(self, number: int, frame: object) -> None:
        if self.got is not None and self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, number)
        self.got = self.got or number

    def sleep(self, seconds: float) -> None:
        """Until that has passed, or a signal comes."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        poll.poll(int(seconds * 1000))


class Batch(NamedTuple):
    """Events, and the cursor behind them. Without events it is a bookmark."""

    events: list[dict[str, Any]]
    cursor: str


class Batches:
    """Iterate once. It ends with the watch, or at a signal. Raises VecError when what came before it was handed on."""

    def __init__(self, feed: Following, messages: Iterator[Message], events_max: int, signals: Signals) -> None:
        self._feed = feed
        self._events_max = events_max
        self._signals = signals
        self._messages = messages
        self._restarts = 0
        self._events: list[dict[str, Any]] = []
        self._cursor = self._before = feed.done  # behind the events, and in front of them
        self._told = ""
        self._ended = False
        self._failure: VecError | None = None

    def __iter__(self) -> Iterator[Batch]:
        while self._signals.got is None:
            self._look_for_restart()
            if not self._ended:
                self._gather()
            if self._events:
                yield self._cut()
            elif self._failure is not None:
                raise self._failure
            elif self._cursor != self._told:
                self._before = self._told = self._cursor
                yield Batch([], self._cursor)
            elif self._ended:
                return

    def _look_for_restart(self) -> None:
        """Events that were gathered before the connection was lost come again."""
        if self._feed.restarts != self._restarts:
            self._restarts = self._feed.restarts
            self._events = []
            self._cursor = self._before = self._feed.done

    def _gather(self) -> None:
        """Takes what is there; waits for more only if that is nothing."""
        began = time.monotonic()
        try:
            while len(self._events) < self._events_max and self._signals.got is None:
                if self._events and not self._feed.wait(_IDLE_S):
                    return
                message = next(self._messages, None)
                self._look_for_restart()
                if message is None:
                    self._ended = True
                    self._cursor = self._feed.watch.cursor
                    return
                if message.events and not self._events:
                    began = time.monotonic()
                self._events += message.events
                self._cursor = message.cursor
                if not self._events or time.monotonic() - began > _GATHER_S:
                    return
        except VecError as error:
            self._failure, self._ended = error, True

    def _cut(self) -> Batch:
        """The first of the events, up to the limit: a document's stay together if they can."""
        place = len(self._events)
        if place > self._events_max:
            place = self._events_max
            while place and self._events[place]["type"].startswith("chunk."):
                place -= 1
            place = place or self._events_max
        events, self._events = self._events[:place], self._events[place:]
        cursor = self._before
        if not self._events:
            cursor = self._cursor
        else:  # the last one that has a cursor: within a message of a snapshot there is none
            cursor = next((event["cursor"] for event in reversed(events) if event["cursor"]), cursor)
        self._before = self._told = cursor
        return Batch(events, cursor)
