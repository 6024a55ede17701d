"""A relay's sink for Kafka.

The sink's producer is idempotent and waits for all in-sync replicas (acks=all). A message's key is
`library/document id`, so the events of a document are in one partition, in order; the partition is the one that Kafka's
Java producer takes. Idempotence ends with its producer: after a failure a batch is sent again, and consumers
deduplicate by the header `vec-cursor`.

With `exactly_once`, a batch is one transaction, which also writes the relay's position to a compacted topic
(kafka_positions.py). A new producer reads the position back and leaves out what is there. It never trusts a commit
during which a connection was lost, but reads the position again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from ..delivery import AttemptFailed, DeliveryBatch, Refused
from .kafka_client import LOOK_S, Connection
from .kafka_positions import Position, PositionTopic
from .messages import OutMessage
from .transport import MessageSink, Opening

#: Bytes of a request to one partition; a larger message has a request of its own. Brokers take 1,048,588 by default.
_REQUEST_BYTES: Final = 1_000_000
#: Bytes of a message that the library takes; the broker has the limit that counts.
_MESSAGE_BYTES_MAX: Final = 1_000_000_000
#: An open transaction holds back the readers of the topic. One that its producer has left is rolled back after this
#: time, or by the next producer of the relay. A broker's default limit is 900.
_TRANSACTION_S_MAX: Final = 900.0

#: Errors that say that the broker will never take this message.
_REFUSALS: Final = frozenset((KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG))
#: Errors that follow from another one: in a transaction, one failure ends all that is queued, and refuses what comes.
_CONSEQUENCES: Final = frozenset((KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE))


class _KafkaSink:
    """Produces each batch, at least once."""

    #: Whether the messages beside refused ones are delivered; else the batch was rolled back.
    _keeps_the_others: ClassVar[bool] = True

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._connection = Connection(opening)
        self._tombstones = bool(opening.parameters["tombstones"])
        self._alone = False  # each message has a request of its own
        self._producer: Producer | None = None

    # --- opened, closed ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Raises AttemptFailed and VecError."""
        self.close()
        self._connection = Connection(self._opening)
        with self._connection.errors("connecting"):
            self._producer = Producer(self._connection.configuration(**self._settings()))
            self._connection.find_topic(self._producer)

    def _settings(self) -> dict[str, Any]:
        timeout_ms = int(self._connection.timeout_s * 1000)
        return {
            "enable_idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression_type": self._opening.parameters["compression"],
            "linger_ms": 1,  # a flush does not wait for it
            "batch_size": _REQUEST_BYTES,
            "message_max_bytes": _MESSAGE_BYTES_MAX,
            "message_timeout_ms": timeout_ms,
            **({"batch_num_messages": 1} if self._alone else {}),
        }

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)

    # --- delivered --------------------------------------------------------------------------------------------------

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        refused: dict[int, str] = {}
        while True:
            if self._producer is None:
                self.open()
            refused |= self._known_refusals(batch)
            items = [(index, message) for index, message in self._missing(batch) if index not in refused]
            with self._connection.errors("producing"):
                failures = self._attempt(items, batch, refused)
            if other := next((error for error in failures.values() if error.code() not in _REFUSALS), None):
                raise self._connection.failed(other, "producing")
            sizes = dict(items)
            # A limit under that of our requests refuses a whole request, with messages that would be taken alone.
            own = {index: error for index, error in failures.items() if self._alone or _is_large(sizes[index])}
            refused.update((index, f"Kafka refuses the message: {error.str()}") for index, error in own.items())
            if len(own) < len(failures):
                self._alone = True
                self.close()
            elif not failures or self._keeps_the_others:
                break
        if refused:
            raise Refused(refused)

    def _known_refusals(self, batch: DeliveryBatch[OutMessage]) -> dict[int, str]:
        """Why messages were refused when the batch was delivered before, by index."""
        return {}

    def _missing(self, batch: DeliveryBatch[OutMessage]) -> list[tuple[int, OutMessage]]:
        """The messages that are not there already, as far as that is known."""
        return list(enumerate(batch.items))

    def _attempt(
        self, items: list[tuple[int, OutMessage]], batch: DeliveryBatch[OutMessage], refused: Mapping[int, str]
    ) -> dict[int, KafkaError]:
        """Produces the messages, in order; returns the errors, by index."""
        return self._produce(items)

    def _produce(self, items: list[tuple[int, OutMessage]]) -> dict[int, KafkaError]:
        """Returns when the outcome of all messages is known: the errors, by index."""
        producer = self._producer
        assert producer is not None
        failures: dict[int, KafkaError] = {}

        def outcome(index: int, error: KafkaError | None, _: object) -> None:
            if error is not None:
                failures[index] = error

        for index, message in items:
            known = partial(outcome, index)
            headers = [*message.headers.items(), ("content-type", message.content_type)]
            bodies = [message.body, None] if message.deleted and self._tombstones else [message.body]
            for body in bodies:
                try:
                    self._queue(producer, body, message.key, headers, known)
                except KafkaException as error:  # the library refuses it
                    failures[index] = error.args[0]
        self._connection.wait(lambda seconds: producer.flush(seconds) == 0 or self._hopeless(failures), "producing")
        return _causes(failures) or dict(failures)

    def _hopeless(self, failures: Mapping[int, KafkaError]) -> bool:
        """Whether nothing more can be delivered after these failures."""
        return False

    def _queue(self, producer: Producer, body: bytes | None, key: bytes, headers: Any, outcome: Any) -> None:
        def attempt(seconds: float) -> bool:
            try:
                producer.produce(self._connection.topic, body, key, headers=headers, on_delivery=outcome)
            except BufferError:  # the library's queue is full
                producer.poll(seconds)
                return False
            return True

        if not attempt(0.01):
            self._connection.wait(attempt, "producing")


def _causes(failures: Mapping[int, KafkaError]) -> dict[int, KafkaError]:
    return {index: error for index, error in failures.items() if error.code() not in _CONSEQUENCES}


def _is_large(message: OutMessage) -> bool:
    """Whether it had a request of its own."""
    return len(message.body) + len(message.key) > _REQUEST_BYTES


class _TransactionalSink(_KafkaSink):
    """Produces each batch, and the position behind it, in one transaction: exactly once."""

    _keeps_the_others: ClassVar[bool] = False

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        definition = opening.definition
        self._id = f"vec.{opening.log_id}.{definition.name}"
        self._generation = definition.generation
        self._positions = PositionTopic(self._connection, opening.parameters["position_topic"], self._id)
        self._position = Position(0, {})

    def open(self) -> None:
        super().open()
        self._positions = PositionTopic(self._connection, self._opening.parameters["position_topic"], self._id)
        assert self._producer is not None
        self._positions.create()
        # Rolls back what an earlier producer of this relay left open, and shuts it out.
        self._call(self._producer.init_transactions, "beginning transactions")
        self._position = self._positions.read(self._generation)

    def close(self) -> None:
        if self._producer is not None:
            with contextlib.suppress(KafkaException):  # there may be none, or nobody to tell; it ends by itself then
                self._producer.abort_transaction(LOOK_S)
        super().close()

    def _settings(self) -> dict[str, Any]:
        transaction_s = min(_TRANSACTION_S_MAX, max(10.0, 2 * self._connection.timeout_s))
        return {
            **super()._settings(),
            "transactional_id": self._id,
            "transaction_timeout_ms": int(transaction_s * 1000),
        }

    def _missing(self, batch: DeliveryBatch[OutMessage]) -> list[tuple[int, OutMessage]]:
        if batch.again:
            return super()._missing(batch)
        return [(index, message) for index, message in enumerate(batch.items) if message.seq > self._position.seq]

    def _known_refusals(self, batch: DeliveryBatch[OutMessage]) -> dict[int, str]:
        if batch.again:
            return {}
        known = self._position.refused
        return {index: known[message.seq] for index, message in enumerate(batch.items) if message.seq in known}

    def _attempt(
        self, items: list[tuple[int, OutMessage]], batch: DeliveryBatch[OutMessage], refused: Mapping[int, str]
    ) -> dict[int, KafkaError]:
        producer = self._producer
        assert producer is not None
        if not items:
            return {}
        producer.poll(0)
        losses = self._connection.losses
        with self._connection.errors("a transaction"):
            producer.begin_transaction()
            failures = self._produce(items)
            if failures:
                self._call(producer.abort_transaction, "rolling back a transaction")
                return failures
            if not batch.again:
                seq = max(message.seq for message in batch.items)
                position = Position(seq, {batch.items[index].seq: reason for index, reason in refused.items()})
                self._positions.produce(producer, self._generation, batch.cursor, position)
            self._connection.wait(lambda seconds: producer.flush(seconds) == 0, "producing")
            self._check_connected(losses)
            self._call(producer.commit_transaction, "committing a transaction")
        producer.poll(0)
        self._check_connected(losses)
        if not batch.again:
            self._position = position
        return {}

    def _check_connected(self, losses: int) -> None:
        """Before the commit: a broker that was restarted may have forgotten a part of the transaction. After it: it may
        have forgotten all, and only the position tells."""
        if self._connection.losses != losses:
            raise AttemptFailed("the connection to Kafka was lost during a transaction", unreachable=True)

    def _hopeless(self, failures: Mapping[int, KafkaError]) -> bool:
        return bool(_causes(failures))

    def _call(self, call: Callable[[float], None], what: str) -> None:
        """A call of a transaction, which continues when it is repeated after its time."""

        def attempt(seconds: float) -> bool:
            try:
                call(seconds)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._TIMED_OUT and error.args[0].retriable():
                    return False
                raise
            return True

        with self._connection.errors(what):
            self._connection.wait(attempt, what, grace_s=0.0)  # these calls have no time-out of their own


def open_sink(opening: Opening) -> MessageSink:
    sink = _TransactionalSink(opening) if opening.parameters["exactly_once"] else _KafkaSink(opening)
    try:
        sink.open()
    except BaseException:
        sink.close()
        raise
    return sink
