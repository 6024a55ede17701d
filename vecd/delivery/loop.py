"""The delivery loop: delivers each batch, retries failures, writes what keeps failing to the dead letters, and commits
the position.

The position moves when the sink has taken the batch, or when the batch is durable among the dead letters. So every
event is delivered at least once, or is in the dead letters. One batch is delivered at a time.
An attempt that delivers only the first items of a batch is progress: the rest has all its attempts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .. import backoff
from ..errors import Code, VecError
from .batches import Batcher, DeliveryBatch
from .dead_letters import DeadLetters
from .sink import AttemptFailed, Refused, Sink
from .source import Event, EventSource, Stop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How events are delivered. Times are in seconds."""

    events_max: int = 1_000  # of a batch
    messages_max: int | None = None  # of the source, in one batch; None: no limit
    age_s: float = 0.25  # a batch is delivered when its first event has waited for this long …
    idle_s: float = 0.01  # … or when no further event has come for this long
    attempts_max: int | None = 5  # of a batch, without those that reached nothing; None: no limit
    retry_s: float = 1.0  # the longest pause before the second attempt; it doubles before each further one
    retry_s_max: float = 60.0


class Observer(Generic[T]):
    """Receives reports of what becomes of batches. This base class ignores them."""

    def delivered(self, batch: DeliveryBatch[T]) -> None:
        """The sink has taken the batch, or the first items of it, without what it refused."""

    def retrying(self, batch: DeliveryBatch[T], failure: AttemptFailed, pause_s: float) -> None:
        """The attempt `batch.attempt` failed; the next one follows after `pause_s` seconds."""

    def gave_up(self, batch: DeliveryBatch[T], failure: AttemptFailed) -> None:
        """The batch, or the item of it that was refused, is among the dead letters."""


class Delivery(Generic[T]):
    """Delivers one source to one sink. Use once, on one thread."""

    def __init__(
        self,
        source: EventSource,
        sink: Sink[T],
        options: DeliveryOptions,
        *,
        encode: Callable[[Sequence[Event]], Sequence[T]],
        stop: Stop,
        dead_letters: DeadLetters[T] | None,
        observer: Observer[T] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`encode` turns a batch's events into items, once for all attempts. Without `dead_letters` the delivery ends
        at the first batch that it would give up."""
        self._source = source
        self._sink = sink
        self._options = options
        self._stop = stop
        self._dead_letters = dead_letters
        self._observer: Observer[T] = observer or Observer()
        self._batches = Batcher(
            source,
            encode,
            stop,
            events_max=options.events_max,
            messages_max=options.messages_max,
            age_s=options.age_s,
            idle_s=options.idle_s,
            clock=clock,
        )
        self.given_up = 0  # batches, and refused items

    def run(self) -> None:
        """Delivers until the source ends, or `stop` is set.

        Raises VecError `handler_failed` at a batch that it would give up, if there are no dead letters; and what the
        source, the sink and the dead letters raise. The position is before the batch then.
        """
        for batch in self._batches:
            if batch.items and not self._deliver(batch):
                return
            self._source.commit(batch.cursor, batch.events)

    def _deliver(self, batch: DeliveryBatch[T]) -> bool:
        """Tries until the batch is delivered or given up; false if `stop` was set before that."""
        failures = 0  # of attempts that count
        while (failure := self._attempt(batch)) is not None:
            if count := failure.delivered:
                self._taken(batch._replace(items=batch.items[:count], events=count), failure.refused)
                batch = batch._replace(items=batch.items[count:], events=max(0, batch.events - count), attempt=1)
                failures = 0
            if self._stop.is_set():
                return False
            if not failure.unreachable:
                failures += 1
                if failure.final or failures == self._options.attempts_max:
                    self._give_up(batch, failure)
                    return True
            pause_s = backoff.pause_s(batch.attempt, self._options.retry_s, self._options.retry_s_max)
            pause_s = max(pause_s, failure.retry_after_s)
            self._observer.retrying(batch, failure, pause_s)
            if self._stop.wait(pause_s):
                return False
            batch = batch._replace(attempt=batch.attempt + 1)
        return True

    def _attempt(self, batch: DeliveryBatch[T]) -> AttemptFailed | None:
        """None if the batch is delivered, or else why it is not."""
        try:
            self._sink.deliver(batch)
        except AttemptFailed as failure:
            return failure
        except Refused as refused:
            self._taken(batch, refused.reasons)
        except VecError as error:
            if not error.retryable:
                raise
            return AttemptFailed(error.message, error=error.to_wire())
        else:
            self._taken(batch, {})
        return None

    def _taken(self, batch: DeliveryBatch[T], refused: Mapping[int, str]) -> None:
        """All items are delivered, except those that are refused: for each, by its index, the reason."""
        self._observer.delivered(batch)
        for place, reason in sorted(refused.items()):
            self._give_up(batch._replace(items=[batch.items[place]], events=1), AttemptFailed(reason, final=True))

    def _give_up(self, batch: DeliveryBatch[T], failure: AttemptFailed) -> None:
        if self._dead_letters is None:
            times = "once" if batch.attempt == 1 else f"{batch.attempt} times"
            events = "1 event" if len(batch.items) == 1 else f"{len(batch.items):,} events"
            raise VecError(
                Code.HANDLER_FAILED,
                f"{failure.reason} ({events}, tried {times})",
                "the cursor stays before them; correct the cause, and start again",
            )
        self._dead_letters.add(batch, failure)
        self.given_up += 1
        self._observer.gave_up(batch, failure)
