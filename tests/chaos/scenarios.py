"""How each broker is set up and read, and what is promised there. Adding one is one entry in the table."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.brokers import Broker, KafkaServer, NatsServer, RabbitMQ, RedisServer
from tests.support.proxy import Proxy

from .checks import Promise

#: The stream, topic or exchange of the relay.
PLACE: Final = "events"
_QUEUE: Final = "received"


@dataclass(frozen=True)
class Scenario:
    """One way to relay events to a broker and to read them from there."""

    make: Callable[[Path], Broker]
    promise: Promise
    #: The URL and the options of the relay, and those of a source that reads what it sends. The address is the proxy's.
    relay: Callable[[str, Path], list[str]]
    source: Callable[[str, Path], list[str]]
    #: The bodies of all messages, in the order in which a consumer gets them, read by another client.
    read: Callable[[Broker], list[bytes]]
    network: Callable[[Broker], contextlib.AbstractContextManager[Proxy]] = lambda broker: Proxy(
        ("127.0.0.1", broker.port)
    )
    #: Done at the broker before the relay is added.
    prepare: Callable[[Broker], None] = lambda broker: None
    without: frozenset[str] = frozenset()  # troubles that the server itself does not survive


_QUICK: Final = ["-p", "timeout_s=2"]


# --- Redis ------------------------------------------------------------------------------------------------------------


def _redis(address: str, folder: Path) -> list[str]:
    return [f"redis://{address}/{PLACE}", *_QUICK]


def _read_redis(broker: Broker) -> list[bytes]:
    import redis

    with redis.Redis(port=broker.port, protocol=2) as client:
        return [fields[b"body"] for _, fields in client.xrange(PLACE)]


# --- Kafka ------------------------------------------------------------------------------------------------------------


def _kafka(address: str, folder: Path) -> list[str]:
    return [f"kafka://{address}/{PLACE}", *_QUICK]


def _read_kafka(broker: Broker) -> list[bytes]:
    """One partition after the other: the events of a document are in one."""
    with _kafka_network(broker) as network:
        return _read_topic(network.address)


def _read_topic(address: str) -> list[bytes]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "chaos",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: list[bytes] = []
    try:
        for partition in consumer.list_topics(PLACE, timeout=30).topics[PLACE].partitions:
            consumer.assign([TopicPartition(PLACE, partition, 0)])
            while True:
                message = consumer.poll(30)
                assert message is not None, f"no end of partition {partition}"
                if (error := message.error()) is not None:
                    assert error.name() == "_PARTITION_EOF", error
                    break
                body = message.value()
                assert isinstance(body, bytes)
                found.append(body)
    finally:
        consumer.close()
    return found


@contextlib.contextmanager
def _kafka_network(broker: Broker) -> Iterator[Proxy]:
    assert isinstance(broker, KafkaServer)
    with broker.behind_proxy() as network:
        yield network


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------


def _rabbitmq(address: str, folder: Path, name: str = PLACE) -> list[str]:
    secret = folder / "password"
    secret.write_text(RabbitMQ.password)
    return [f"amqp://{RabbitMQ.user}@{address}/{name}", "-p", f"password_file={secret}", *_QUICK]


def _rabbitmq_source(address: str, folder: Path) -> list[str]:
    return [*_rabbitmq(address, folder, "source"), "-p", f"exchange={PLACE}", "-p", "stream=true"]


def _bind_queue(broker: Broker) -> None:
    import aio_pika

    async def bind() -> None:
        connection = await aio_pika.connect(_rabbitmq_login(broker))
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(PLACE, "topic", durable=True)
            queue = await channel.declare_queue(_QUEUE, durable=True)
            await queue.bind(exchange, "#")

    asyncio.run(bind())


def _read_rabbitmq(broker: Broker) -> list[bytes]:
    import aio_pika

    async def read() -> list[bytes]:
        found: list[bytes] = []
        connection = await aio_pika.connect(_rabbitmq_login(broker))
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(_QUEUE, passive=True)
            count = queue.declaration_result.message_count
            if count:
                async with queue.iterator(no_ack=True, timeout=30) as messages:
                    async for message in messages:
                        found.append(message.body)
                        if len(found) == count:
                            break
        return found

    return asyncio.run(read())


def _rabbitmq_login(broker: Broker) -> str:
    assert isinstance(broker, RabbitMQ)
    return broker.url


# --- NATS -------------------------------------------------------------------------------------------------------------


def _nats(address: str, folder: Path) -> list[str]:
    return [f"nats://{address}/{PLACE}", *_QUICK]


def _read_nats(broker: Broker) -> list[bytes]:
    import nats
    from nats.js import api

    assert isinstance(broker, NatsServer)
    url = broker.url

    async def read() -> list[bytes]:
        client = await nats.connect(url)
        stream = client.jetstream()
        count = (await stream.stream_info(PLACE)).state.messages
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.NONE)
        subscription = await stream.pull_subscribe(">", stream=PLACE, config=config)
        found: list[bytes] = []
        while len(found) < count:
            page = await subscription.fetch(min(1_000, max(2, count - len(found))), timeout=30)
            found += [message.data for message in page]
        await client.close()
        return found

    return asyncio.run(read())


# --- the table --------------------------------------------------------------------------------------------------------

SCENARIOS: Final[dict[str, Scenario]] = {
    "redis": Scenario(
        make=lambda folder: RedisServer(folder / "redis"),
        promise="exactly once",
        relay=_redis,
        source=_redis,
        read=_read_redis,
    ),
    "nats": Scenario(
        make=lambda folder: NatsServer(folder / "nats"),
        promise="exactly once",  # within the duplicate window
        relay=_nats,
        source=_nats,
        read=_read_nats,
    ),
    "kafka": Scenario(
        make=lambda folder: KafkaServer(folder / "kafka"),
        promise="at least once",
        relay=_kafka,
        source=_kafka,
        read=_read_kafka,
        network=_kafka_network,
        # Killed while somebody writes, this server loses messages that it has acknowledged (also a plain producer's).
        without=frozenset(("broker_killed",)),
    ),
    "kafka-exactly-once": Scenario(
        make=lambda folder: KafkaServer(folder / "kafka"),
        promise="exactly once",
        relay=lambda address, folder: [*_kafka(address, folder), "-p", "exactly_once=true"],
        source=_kafka,
        read=_read_kafka,
        network=_kafka_network,
        # This server (tests/support/brokers/kafka.py) forgets open transactions when it ends.
        without=frozenset(("broker_killed", "broker_restarted")),
    ),
    "rabbitmq": Scenario(
        make=lambda folder: RabbitMQ(folder / "rabbitmq"),
        promise="at least once",
        relay=_rabbitmq,
        source=_rabbitmq_source,
        read=_read_rabbitmq,
        prepare=_bind_queue,
    ),
}


def events(bodies: list[bytes]) -> list[dict[str, Any]]:
    """The events of a relay's messages, as the log has them."""
    return [json.loads(body) for body in bodies]
