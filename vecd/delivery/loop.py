"""The delivery loop: deliver each batch, retry what fails, give it up in the end, and commit the position behind it.

The position moves when the sink has taken the batch, or when the batch is durable among the dead letters. So every
event is delivered at least once, or kept. One batch is on its way at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import backoff
from ..errors import Code, VecError
from .batches import Batch, Batches
from .dead_letters import DeadLetters
from .feed import Event, Feed, Stop
from .sink import AttemptFailed, Sink


@dataclass(frozen=True, slots=True)
class Options:
    """How a feed is delivered. Times are in seconds."""

    events_max: int = 1_000  # of a batch
    age_s: float = 0.25  # a batch is delivered when its first event has waited for so long …
    idle_s: float = 0.01  # … or when no further event has come for so long
    attempts_max: int | None = 5  # of a batch; None: without end
    retry_s: float = 1.0  # the longest pause before the second attempt; it doubles before each further one
    retry_s_max: float = 60.0


class Observer:
    """Is told what goes wrong. This one ignores it."""

    def retrying(self, batch: Batch, failure: AttemptFailed, pause_s: float) -> None:
        """The attempt `batch.attempt` failed; the next one follows after `pause_s` seconds."""

    def gave_up(self, batch: Batch, failure: AttemptFailed) -> None:
        """The batch is among the dead letters."""


class Delivery:
    """Delivers one feed to one sink. Use once, on one thread."""

    def __init__(
        self,
        feed: Feed,
        sink: Sink,
        options: Options,
        *,
        encode: Callable[[Sequence[Event]], Sequence[bytes]],
        stop: Stop,
        dead_letters: DeadLetters | None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`encode` makes lines of a batch's events, once, whatever the number of attempts. Without `dead_letters` the
        delivery ends at a batch that it would give up."""
        self._feed = feed
        self._sink = sink
        self._options = options
        self._stop = stop
        self._dead_letters = dead_letters
        self._observer = observer or Observer()
        self._batches = Batches(
            feed,
            encode,
            stop,
            events_max=options.events_max,
            age_s=options.age_s,
            idle_s=options.idle_s,
            clock=clock,
        )
        self.given_up = 0  # batches

    def run(self) -> None:
        """Delivers until the feed ends, or `stop` is set.

        Raises VecError `handler_failed` at a batch that it would give up, if there are no dead letters; and what the
        feed, the sink and the dead letters raise. The position is before the batch then.
        """
        for batch in self._batches:
            if batch.lines and not self._deliver(batch):
                return
            self._feed.commit(batch.cursor, batch.events)

    def _deliver(self, batch: Batch) -> bool:
        """Attempts until the batch is delivered or given up; false if it was stopped before that."""
        while (failure := self._attempt(batch)) is not None:
            if self._stop.is_set():
                return False
            if failure.final or batch.attempt == self._options.attempts_max:
                self._give_up(batch, failure)
                return True
            pause_s = backoff.pause_s(batch.attempt, self._options.retry_s, self._options.retry_s_max)
            self._observer.retrying(batch, failure, pause_s)
            if self._stop.wait(pause_s):
                return False
            batch = batch._replace(attempt=batch.attempt + 1)
        return True

    def _attempt(self, batch: Batch) -> AttemptFailed | None:
        """None if the batch is delivered, or else why it is not."""
        try:
            self._sink.deliver(batch)
        except AttemptFailed as failure:
            return failure
        except VecError as error:
            if not error.retryable:
                raise
            return AttemptFailed(error.message, error=error.to_wire())
        return None

    def _give_up(self, batch: Batch, failure: AttemptFailed) -> None:
        if self._dead_letters is None:
            times = "once" if batch.attempt == 1 else f"{batch.attempt} times"
            events = "1 event" if len(batch.lines) == 1 else f"{len(batch.lines):,} events"
            raise VecError(
                Code.HANDLER_FAILED,
                f"{failure.reason} ({events}, tried {times})",
                "the cursor stays before them; correct the cause, and start again",
            )
        self._dead_letters.add(batch, failure)
        self.given_up += 1
        self._observer.gave_up(batch, failure)
