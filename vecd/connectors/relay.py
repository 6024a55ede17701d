"""A relay: delivers its events to its transport's sink, and stores the position when the broker has confirmed.

    relay.watch -> _RelaySource -> Delivery -> _Sink -> the transport's sink
                        |             |
                        +-- relay.commit (cursor, dead letters) --+

One thread, with a connection to the daemon of its own. After any error that the delivery loop does not retry itself,
it begins again with a new connection, at the stored position. So every event is sent at least once.

The position is stored behind what the broker has confirmed, at most every limits.RELAY_COMMIT_S, and without waiting
for the answer, unless there are dead letters.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from .. import backoff, limits
from ..client import Client, Message, Pending, Watch
from ..delivery import AttemptFailed, Delivery, DeliveryBatch, DeliveryOptions, Observer
from ..errors import Code, VecError
from . import messages, table
from .definition import RelayDefinition
from .messages import OutMessage
from .status import Status
from .stopping import Stopping
from .transport import MessageSink, Opening
from .url import parse

log = logging.getLogger("vecd.connectors")

#: Messages of a watch in one batch, if they have documents: each is about a MiB then, or one large document.
_PAYLOAD_MESSAGES: Final = 8
#: Pauses of the delivery loop while the broker is away.
_RETRY_S, _RETRY_S_MAX = 0.2, 15.0
#: Pauses after an error of the configuration, or of the connection to the daemon.
_AGAIN_S, _AGAIN_S_MAX = 0.5, 30.0


class Relay:
    """Runs one generation of a relay. Use once, on one thread."""

    def __init__(
        self, definition: RelayDefinition, connect: Callable[[], Client], status: Status, stop: Stopping
    ) -> None:
        self._definition = definition
        self._connect = connect
        self._status = status
        self._stop = stop
        self._failures = 0  # in a row

    def run(self) -> None:
        """Returns when `stop` is set."""
        while not self._stop.is_set():
            try:
                self._run()
            except VecError as error:
                self._failed(error)
            except Exception as error:
                log.error("a relay failed", exc_info=error, extra={"relay": self._definition.name})
                bug = f"a bug in the relay: {type(error).__name__}: {error}"
                self._failed(VecError(Code.INTERNAL, bug, "see the daemon's log, and report this bug"))

    def _failed(self, error: VecError) -> None:
        if self._stop.is_set():
            return
        self._failures += 1
        self._status.failed("failing", error)
        pause_s = backoff.pause_s(self._failures, _AGAIN_S, _AGAIN_S_MAX) / 2 + _AGAIN_S / 2
        log.warning(
            "a relay begins again",
            extra={"relay": self._definition.name, "error": str(error), "pause_s": round(pause_s, 3)},
        )
        self._stop.wait(pause_s)

    def _run(self) -> None:
        definition = self._definition
        transport = table.transport_of(definition)
        with self._connect() as client:
            client.set_timeout(limits.STALL_S)
            parameters = {**table.defaults(transport), **definition.parameters}
            opening = Opening(definition, parse(definition.url), parameters, client.log, self._stop)
            watch = client.watch_relay(definition.name, definition.generation)
            source = _RelaySource(client, watch, definition, self._stop)
            opener = table.load_sink(transport)
            sink = _Sink(lambda: opener(opening))
            options = DeliveryOptions(
                messages_max=_PAYLOAD_MESSAGES if definition.payload else None,
                age_s=0.0,
                idle_s=0.0,
                attempts_max=None,
                retry_s=_RETRY_S,
                retry_s_max=_RETRY_S_MAX,
            )
            delivery = Delivery(
                source,
                sink,
                options,
                encode=lambda events: messages.encode(events, definition.format, client.log),
                stop=self._stop,
                dead_letters=source,
                observer=_Report(self._status, self),
            )
            try:
                if self._opened(sink):
                    self._status.connected()
                    delivery.run()
            finally:
                sink.close()
            source.settle()

    def _opened(self, sink: _Sink) -> bool:
        """Opens the sink, however long its broker is away; false if `stop` was set before that."""
        attempt = 1
        while not self._stop.is_set():
            try:
                sink.open()
                return True
            except AttemptFailed as failure:
                pause_s = backoff.pause_s(attempt, _RETRY_S, _RETRY_S_MAX)
                self.retrying(failure, attempt, pause_s)
                self._stop.wait(pause_s)
                attempt += 1
        return False

    def retrying(self, failure: AttemptFailed, attempt: int, pause_s: float) -> None:
        """An attempt failed; the next one follows after `pause_s`."""
        again = f"attempt {attempt:,}; the next one follows"
        self._status.failed("retrying", VecError(Code.BUSY, failure.reason, again, **failure.details))
        log.warning(
            "a relay's attempt failed",
            extra={"relay": self.name, "reason": failure.reason, "attempt": attempt, "pause_s": round(pause_s, 3)},
        )

    @property
    def name(self) -> str:
        return self._definition.name

    def progressed(self) -> None:
        """A batch was delivered: the next failure is the first."""
        self._failures = 0


class _RelaySource:
    """The log as the source of the delivery, and the place of its dead letters: both are stored by `relay.commit`."""

    def __init__(self, client: Client, watch: Watch, definition: RelayDefinition, stop: Stopping) -> None:
        self._client = client
        self._watch = watch
        self._messages = watch.messages()
        self._first = True
        self._stop = stop
        self._who = definition.name, definition.generation
        self._letters: list[dict[str, Any]] = []
        self._sent = self._wanted = watch.cursor  # the position that was sent to be stored, and the one to send
        self._sent_at = 0.0
        self._pending: Pending | None = None
        self.committed = watch.cursor
        self.rewinds = 0
        self.ended = False

    # --- read -------------------------------------------------------------------------------------------------------

    def read(self, wait_s: float | None) -> Message | None:
        if self._first:  # the beginning of the watch
            self._first = False
            return next(self._messages, None)
        until = None if wait_s is None else time.monotonic() + wait_s
        silent_since = time.monotonic()
        if not self._watch.ready:
            self._client.pump()
        while not self._watch.ready:
            now = time.monotonic()
            if self._stop.is_set() or (until is not None and now >= until):
                return None
            if now - silent_since > self._watch.patience_s:
                raise self._watch.stalled()
            due_s = self._commit_if_due()
            if self._stop.wait_with(self._client, min(due_s, 1.0 if until is None else until - now)):
                silent_since = time.monotonic()
        message = next(self._messages, None)
        if message is None:
            raise VecError(Code.CONNECTION_LOST, f"the watch has ended: {(self._watch.end or {}).get('reason')}")
        return message

    # --- commit -----------------------------------------------------------------------------------------------------

    def commit(self, cursor: str, events: int) -> None:
        self._wanted = cursor
        if self._letters:
            self._commit_letters()
        self._commit_if_due()

    def add(self, batch: DeliveryBatch[OutMessage], failure: AttemptFailed) -> None:
        """Keeps dead letters until the commit of their batch."""
        for message in batch.items:
            self._letters.append(_letter(message, failure.reason, batch.attempt))

    def _commit_letters(self) -> None:
        """Stores the dead letters of a batch, in requests of a moderate size; the last moves the position too."""
        self.settle()
        letters, self._letters = self._letters, []
        page: list[dict[str, Any]] = []
        size = 0
        for letter in letters:
            if page and (
                len(page) == limits.DEAD_LETTERS_PAGE or size + len(letter["body"]) > limits.DEAD_LETTERS_PAGE_BYTES
            ):
                self._client.commit_relay(*self._who, dead_letters=page).result()
                page, size = [], 0
            page.append(letter)
            size += len(letter["body"])
        self._client.commit_relay(*self._who, dead_letters=page, cursor=self._wanted).result()
        self._sent, self._sent_at = self._wanted, time.monotonic()

    def _commit_if_due(self) -> float:
        """Sends the position to be stored, if it is time. Returns after how many seconds to look again."""
        if self._pending is not None and self._pending.ready:
            pending, self._pending = self._pending, None
            pending.result()
        if self._pending is not None or self._wanted == self._sent:
            return 1.0
        left_s = self._sent_at + limits.RELAY_COMMIT_S - time.monotonic()
        if left_s > 0:
            return left_s
        self._send()
        return 1.0

    def _send(self) -> None:
        self._sent, self._sent_at = self._wanted, time.monotonic()
        self._pending = self._client.commit_relay(*self._who, cursor=self._sent)

    def settle(self) -> None:
        """Returns when the position is stored. Raises VecError."""
        while self._pending is not None or self._wanted != self._sent:
            if self._pending is None:
                self._send()
            pending, self._pending = self._pending, None
            assert pending is not None
            pending.result()


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
    """Keeps the status, and logs what fails."""

    def __init__(self, status: Status, relay: Relay) -> None:
        self._status = status
        self._relay = relay

    def delivered(self, batch: DeliveryBatch[OutMessage]) -> None:
        self._status.moved(len(batch.items))
        self._relay.progressed()

    def retrying(self, batch: DeliveryBatch[OutMessage], failure: AttemptFailed, pause_s: float) -> None:
        self._relay.retrying(failure, batch.attempt, pause_s)

    def gave_up(self, batch: DeliveryBatch[OutMessage], failure: AttemptFailed) -> None:
        log.warning(
            "a relay has a dead letter",
            extra={"relay": self._relay.name, "reason": failure.reason, "cursor": batch.items[0].cursor},
        )


def _letter(message: OutMessage, reason: str, attempts: int) -> dict[str, Any]:
    body, about = message.body, _about(message)
    if len(body) > limits.DEAD_LETTER_BYTES_MAX:
        about["omitted"] = len(body)
        body = b""
    return {
        "position": message.cursor, "code": Code.REFUSED, "reason": reason, "attempts": attempts, "about": about,
        "body": body,
    }  # fmt: skip


def _about(message: OutMessage) -> dict[str, Any]:
    """What a message has beside its body, as JSON."""
    return {
        "seq": message.seq, "type": message.type, "library": message.library, "document_id": message.document_id,
        "content_type": message.content_type,
    }  # fmt: skip


def message_of(letter: Mapping[str, Any], log_id: str) -> OutMessage:
    """The message of a dead letter."""
    about = letter["about"]
    return messages.message(
        about["seq"], letter["position"], about["type"], about["library"], about["document_id"], log_id,
        letter["body"], about["content_type"],
    )  # fmt: skip
