"""Kafka as another program sees it: what a consumer of a topic reads, and topics with settings of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.support.waiting import PATIENCE_S


def create_topic(bootstrap: str, topic: str, partitions: int = 1, **config: Any) -> None:
    """A name in `config` has underscores for dots."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    settings = {name.replace("_", "."): str(value) for name, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(PATIENCE_S)


def messages_in(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[Message]:
    """All that is in a topic now, partition by partition, in order. A topic that does not exist is empty."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False,
                "enable.partition.eof": True, "isolation.level": isolation}  # fmt: skip
    consumer = Consumer(settings)
    try:
        known = consumer.list_topics(timeout=PATIENCE_S).topics
        partitions = sorted(known[topic].partitions) if topic in known else []
        consumer.assign([TopicPartition(topic, each, 0) for each in partitions])
        found: dict[int, list[Message]] = {each: [] for each in partitions}
        left = set(partitions)
        deadline = time.monotonic() + PATIENCE_S
        while left:
            assert time.monotonic() < deadline
            message = consumer.poll(1.0)
            if message is None:
                continue
            partition = message.partition()
            assert partition is not None
            if (error := message.error()) is None:
                found[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(partition)
            else:
                raise KafkaException(error)
        return [message for each in partitions for message in found[each]]
    finally:
        consumer.close()


def headers_of(message: Message) -> dict[str, str]:
    headers: Any = message.headers()
    return {name: value.decode() for name, value in headers or ()}


@contextlib.contextmanager
def transaction(bootstrap: str, transactional_id: str) -> Iterator[Producer]:
    """A producer in an open transaction, which the test may end; it is rolled back otherwise."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": transactional_id})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    yield producer
    with contextlib.suppress(KafkaException):
        producer.abort_transaction(PATIENCE_S)


def produce(
    bootstrap: str,
    topic: str,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] = (),
    partition: int = -1,
    headers: Mapping[str, bytes] | None = None,
) -> None:
    """Returns when the broker has confirmed all. Partition -1: by the key."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    errors: list[Any] = []

    def known(error: KafkaError | None, _: object) -> None:
        errors.append(error)

    for place, value in enumerate(values):
        key = keys[place] if keys else None
        producer.produce(topic, value, key, partition, on_delivery=known, headers=dict(headers or {}))
    assert producer.flush(PATIENCE_S) == 0
    assert errors == [None] * len(values)
