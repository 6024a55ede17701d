"""A relay: delivers its events to its transport's sink, and stores the position when the broker has confirmed.

    relay.watch -> RelayFeed -> Delivery -> _Sink -> the transport's sink
                       |            |
                       +- relay.commit: position and dead letters

One thread, with two connections to the daemon of its own. After any error that the delivery loop does not retry itself,
it starts again with a new connection, at the stored position. So every event is sent at least once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from .. import backoff, limits
from ..delivery import AttemptFailed, Delivery, DeliveryBatch, DeliveryOptions, Observer, Refused
from ..errors import Code, VecError
from . import dead_letters, messages, table
from .definition import RelayDefinition
from .messages import OutMessage
from .relay_feed import RelayFeed
from .runner import RETRY_S, RETRY_S_MAX, Connect, Runner
from .status import Status
from .stopping import Stopping
from .transport import MessageSink, Opening
from .url import parse

#: Messages of a watch in one batch, if they have documents: each is about a MiB then, or one large document.
_PAYLOAD_MESSAGES: Final = 8
#: The longest pause between attempts to store dead letters while there is no room for them.
_FULL_S_MAX: Final = 10.0


class Relay(Runner):
    """Runs one generation of a relay. Use once, on one thread."""

    def __init__(self, definition: RelayDefinition, connect: Connect, status: Status, stop: Stopping) -> None:
        super().__init__(definition, connect, status, stop)
        self._relay = definition
        self._retry_at: float | None = 0.0  # when to try dead letters again; None: nobody has asked for it
        self._letters_failed = False  # the last attempt at them did not reach the broker

    def retry(self) -> None:
        self._retry_at = 0.0

    def _explained(self, error: VecError) -> VecError:
        """What to do about a position that was trimmed, in words for a relay."""
        if error.code != Code.COMPACTED:
            return error
        hint = f"continue with what is left: vec relay reset {self.name} --to beginning"
        return VecError(error.code, error.message, hint, **error.details)

    def _run(self) -> None:
        definition = self._relay
        transport = table.transport_of(definition)
        with self._connect() as client, self._connect() as watching:
            for each in (client, watching):
                each.set_timeout(limits.STALL_S)
            parameters = {**table.defaults(transport), **definition.parameters}
            opening = Opening(definition, parse(definition.url), parameters, client.log, self._stop)
            opener = table.load_sink(transport)
            sink = _Sink(lambda: opener(opening))
            feed = RelayFeed(
                client,
                watching,
                definition,
                self._stop,
                between=lambda: self._retry_letters(feed, sink, client.log),
                full=self._full,
            )
            options = DeliveryOptions(
                messages_max=_PAYLOAD_MESSAGES if definition.payload else None,
                age_s=0.25,  # what has arrived already is one batch: under load, one write each would be too slow
                idle_s=0.0,
                attempts_max=None,
                retry_s=RETRY_S,
                retry_s_max=RETRY_S_MAX,
            )
            delivery = Delivery(
                feed,
                sink,
                options,
                encode=lambda events: messages.encode(events, definition.format, client.log),
                stop=self._stop,
                dead_letters=feed,
                observer=_Report(self._status, self),
            )
            try:
                if self._opened(sink):
                    self._status.connected()
                    delivery.run()
            except VecError:
                with contextlib.suppress(VecError):  # the first error says more
                    feed.settle()
                raise
            finally:
                sink.close()
            feed.settle()

    def _retry_letters(self, feed: RelayFeed, sink: _Sink, log_id: str) -> None:
        """Delivers dead letters that are to be tried again. While the broker is away, they wait."""
        if self._retry_at is None or time.monotonic() < self._retry_at:
            return
        self._retry_at = None
        letters = feed.letters_to_retry()
        if not letters:
            self._letters_tried()
            return
        found = [dead_letters.message_of(letter, log_id) for letter in letters]
        reasons = {place: "its body was too long to be kept" for place, each in enumerate(found) if each is None}
        places = [place for place, each in enumerate(found) if each is not None]
        items = [each for each in found if each is not None]
        left: list[int] = []  # places of those that were not tried to the end
        again_at = 0.0  # there may be more
        try:
            if items:
                sink.deliver(DeliveryBatch(items, len(items), items[-1].cursor, again=True))
        except Refused as refused:
            reasons.update((places[place], reason) for place, reason in refused.reasons.items())
        except AttemptFailed as failure:
            self.retrying(failure, RETRY_S_MAX)
            self._letters_failed = True
            reasons.update((places[place], reason) for place, reason in failure.refused.items())
            left = places[failure.delivered :]
            again_at = time.monotonic() + RETRY_S_MAX
        else:
            self._letters_tried()
        again = [{**letters[place], "reason": reason, "attempts": 1} for place, reason in reasons.items()]
        outstanding = {*reasons, *left}
        delivered = [letter["letter_id"] for place, letter in enumerate(letters) if place not in outstanding]
        if again or delivered:
            feed.retried(delivered, again)
        self._retry_at = again_at

    def _letters_tried(self) -> None:
        """No dead letter waits for the broker: an error of the last attempt at them is over."""
        if self._letters_failed:
            self._letters_failed = False
            self._status.connected()

    def _full(self, error: VecError | None, failures: int) -> None:
        """There is no room for dead letters: keeps the error, and pauses. Raises it if the relay is to stop."""
        if error is None:
            self._status.connected()
            return
        pause_s = backoff.pause_s(failures, RETRY_S, _FULL_S_MAX) / 2 + RETRY_S / 2
        self._status.failed("failing", error, pause_s)
        if self._stop.wait(pause_s):
            raise error

    def _opened(self, sink: _Sink) -> bool:
        """Opens the sink, however long its broker is away; false if `stop` was set before that."""
        attempt = 1
        while not self._stop.is_set():
            try:
                sink.open()
                return True
            except AttemptFailed as failure:
                pause_s = backoff.pause_s(attempt, RETRY_S, RETRY_S_MAX)
                self.retrying(failure, pause_s)
                self._stop.wait(pause_s)
                attempt += 1
        return False


class _Sink:
    """The transport's sink: opened when it is needed, and dropped after any error."""

    def __init__(self, open_: Callable[[], MessageSink]) -> None:
        self._open = open_
        self._sink: MessageSink | None = None

    def open(self) -> None:
        """Opens it before there is anything to deliver, so that `list` shows at once what is wrong."""
        self._sink = self._open()

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        try:
            if self._sink is None:
                self._sink = self._open()
            self._sink.deliver(batch)
        except (AttemptFailed, VecError):
            self.close()
            raise

    def close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()


class _Report(Observer[OutMessage]):
    """Keeps the status."""

    def __init__(self, status: Status, relay: Relay) -> None:
        self._status = status
        self._relay = relay

    def delivered(self, batch: DeliveryBatch[OutMessage]) -> None:
        self._status.moved(len(batch.items))
        self._relay.progressed()

    def retrying(self, batch: DeliveryBatch[OutMessage], failure: AttemptFailed, pause_s: float) -> None:
        self._relay.retrying(failure, pause_s)
