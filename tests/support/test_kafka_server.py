"""What a Kafka client gets from the server of the tests, directly and behind its proxy. No code of vec runs."""

from __future__ import annotations

from contextlib import closing

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from .brokers import KafkaServer
from .brokers.broker import fresh_name
from .brokers.fixtures import kafka_server
from .waiting import PATIENCE_S

__all__ = ["kafka_server"]  # a fixture


@pytest.fixture
def topic(kafka_server: KafkaServer) -> str:
    """A producer has committed 0 to 4, rolled back 5 to 9, and committed 10 to 14 and 15 to 19. The marks have offsets
    too: 5, 11, 17, 23."""
    name = fresh_name()
    producer = Producer({"bootstrap.servers": kafka_server.address, "transactional.id": name})
    producer.init_transactions(PATIENCE_S)
    for start in range(0, 20, 5):
        producer.begin_transaction()
        for number in range(start, start + 5):
            producer.produce(name, str(number).encode(), partition=0)
        producer.flush(PATIENCE_S)
        if start == 5:
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
    return name


def read(address: str, topic: str, offset: int) -> list[int]:
    """What a reader of committed messages gets from there to the end of the partition."""
    settings = {"bootstrap.servers": address, "group.id": "reader", "isolation.level": "read_committed",
                "enable.partition.eof": True}  # fmt: skip
    found: list[int] = []
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, 0, offset)])
        while True:
            message = consumer.poll(PATIENCE_S)
            assert message is not None
            if (error := message.error()) is not None:
                assert error.name() == "_PARTITION_EOF"
                assert message.offset() == 24  # the last stable offset
                return found
            found.append(int(message.value() or b""))


@pytest.mark.parametrize(("offset", "first"), [(0, 0), (8, 10), (12, 10), (15, 13), (18, 15)])
def test_behind_the_proxy_a_reader_gets_what_is_committed_and_nothing_else(
    kafka_server: KafkaServer, topic: str, offset: int, first: int
) -> None:
    with kafka_server.behind_proxy() as network:
        assert read(network.address, topic, offset) == [each for each in range(first, 20) if not 5 <= each < 10]


def test_without_the_proxy_a_reader_that_begins_behind_a_roll_back_gets_nothing_of_its_producer(
    kafka_server: KafkaServer, topic: str
) -> None:
    """The fault that the proxy corrects. When this fails, the server is better, and kafka_fetches.py can go."""
    assert read(kafka_server.address, topic, 8) == list(range(10, 20))
    assert read(kafka_server.address, topic, 12) == []
