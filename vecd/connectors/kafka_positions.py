"""Positions of exactly-once relays, kept in Kafka: a compacted topic with one live record for each relay.

A record's key is the relay's transactional id, its value JSON: `generation`; `seq` and `cursor` of the last event that
was sent; `refused`, why messages of its batch were left out, by their seq. It is written in the transaction of those
events. A record of another generation means nothing: the relay
was reset, or removed and added again. All records are in partition 0, near its end, where they are looked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does not list what it exports
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from ..delivery import AttemptFailed
from ..errors import Code, VecError
from .kafka_client import LOOK_S, Connection

#: Of a topic that we create: segments are small, because only a closed one is compacted.
_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": "1048576",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
}
#: Offsets that are read at first, from the end; then ten times as many.
_WINDOW: Final = 1_000
_WIDER: Final = 10
_NOT_ALLOWED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class Position(NamedTuple):
    """What was sent: all events up to `seq` (inclusive), but those that Kafka refused in the last batch."""

    seq: int
    refused: Mapping[int, str]  # seq -> reason


class PositionTopic:
    """The record of one relay."""

    def __init__(self, connection: Connection, topic: str, key: str) -> None:
        self._connection = connection
        self._topic = topic
        self._key = key.encode()
        self._partition = TopicPartition(topic, 0)

    def produce(self, producer: Producer, generation: int, cursor: str, position: Position) -> None:
        """Adds the record to the producer's transaction."""
        refused = {str(seq): reason for seq, reason in position.refused.items()}
        value = orjson.dumps({"generation": generation, "seq": position.seq, "cursor": cursor, "refused": refused})
        producer.produce(self._topic, value, self._key, partition=0)

    def create(self) -> None:
        """Creates the topic if it does not exist, and checks that it is compacted. Raises AttemptFailed, VecError."""
        what = f"the topic {self._topic!r}, which keeps positions"
        timeout_s = self._connection.timeout_s
        with self._connection.errors(what):
            admin = AdminClient(self._connection.configuration())
            wanted = NewTopic(self._topic, num_partitions=1, replication_factor=-1, config=_CONFIG)
            try:
                admin.create_topics([wanted], request_timeout=timeout_s)[self._topic].result(timeout_s)
                return
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError.TOPIC_ALREADY_EXISTS, *_NOT_ALLOWED):
                    raise
            except TimeoutError:
                raise self._connection.failed(None, what) from None
            resource = ConfigResource(ResourceType.TOPIC, self._topic)
            try:
                found = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_ALLOWED:
                    raise
                return  # its administrator has to
            except TimeoutError:
                raise self._connection.failed(None, what) from None
        policy = found["cleanup.policy"].value
        if policy != "compact":
            raise VecError(
                Code.SETTINGS,
                f"{what}, has cleanup.policy={policy}, and would lose them",
                "set it to compact (kafka-configs --alter), or name another topic: -p position_topic=NAME",
            )

    def read(self, generation: int) -> Position:
        """What was sent in this generation.

        Call it when no transaction of this relay is open. Raises AttemptFailed and VecError.
        """
        what = f"the position in {self._topic!r}"
        with self._connection.errors(what):
            consumer = Consumer(
                self._connection.configuration(
                    group_id=self._key.decode(),
                    isolation_level="read_committed",
                    enable_auto_commit=False,
                    enable_partition_eof=True,
                    auto_offset_reset="error",
                )
            )
            try:
                return self._search(consumer, generation, what)
            finally:
                consumer.close()

    def _search(self, consumer: Consumer, generation: int, what: str) -> Position:
        first, _ = consumer.get_watermark_offsets(self._partition, timeout=self._connection.timeout_s)
        end = self._end(what)
        begin, width = end, _WINDOW
        while begin > first:
            before, begin = begin, max(first, end - width)
            value = self._last(consumer, begin, before, what)
            if value is not None:
                found = orjson.loads(value)
                if found["generation"] == generation:
                    return Position(found["seq"], {int(seq): reason for seq, reason in found["refused"].items()})
                break
            width *= _WIDER
        return Position(0, {})

    def _end(self, what: str) -> int:
        """The offset behind the last record, of open transactions too."""
        admin = AdminClient(self._connection.configuration())
        asked = admin.list_offsets(
            {self._partition: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._connection.timeout_s,
        )
        try:
            return int(asked[self._partition].result(self._connection.timeout_s).offset)
        except TimeoutError:
            raise self._connection.failed(None, what) from None

    def _last(self, consumer: Consumer, begin: int, end: int, what: str) -> bytes | None:
        """The last value of the key in [begin, end). Waits for other relays' transactions that are open there."""
        consumer.assign([TopicPartition(self._topic, 0, begin)])
        value: bytes | None = None
        position = begin
        deadline = time.monotonic() + self._connection.timeout_s
        while position < end:
            message = consumer.poll(LOOK_S)
            if self._connection.stopping:
                raise AttemptFailed(f"{what} was not read: the connector stops", unreachable=True)
            if message is not None:
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                offset = message.offset()
                assert offset is not None
                if error is not None:
                    position = offset
                elif offset < end:
                    position = offset + 1
                    if message.key() == self._key:
                        value = message.value()
                else:
                    position = end
            if time.monotonic() > deadline:
                raise self._connection.failed(None, what)
        with contextlib.suppress(KafkaException):
            consumer.unassign()
        return value
