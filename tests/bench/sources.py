"""Sources from real brokers on this machine: documents/s that are written, beside the rate at which the client library
alone reads the same messages, and beside an ingest of the same documents over the socket.

For some brokers only: `python -m tests.bench.sources redis kafka`. Ingest and source take turns, with the same server
and daemon. The clock of a source runs from the first document in the library to the last.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from tests.bench.measure import sentences
from tests.support.brokers import KafkaServer, RabbitMQ, RedisServer
from tests.support.brokers.broker import Broker
from tests.support.instance import Instance
from vecd.client import Client

_DOCUMENTS: Final = 5_000
_ROUNDS: Final = 5
_BATCH: Final = 512
_NAME: Final = "bench"


class Target(Protocol):
    """A broker, with the code of a program that uses its client library."""

    parameters: Mapping[str, Any]

    def url_of(self, number: int) -> str:
        """The URL of the source of a round."""

    def write(self, bodies: Sequence[bytes]) -> None:
        """Fills the stream, topic or queue."""

    def read(self, count: int) -> None:
        """Reads so many messages from the beginning."""


class Redis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.parameters: Mapping[str, Any] = {}

    def url_of(self, number: int) -> str:
        return f"{self._server.url}/{_NAME}"

    def write(self, bodies: Sequence[bytes]) -> None:
        import redis

        with redis.Redis(port=self._server.port) as client:
            for start in range(0, len(bodies), _BATCH):
                pipeline = client.pipeline(transaction=False)
                for body in bodies[start : start + _BATCH]:
                    pipeline.xadd(_NAME, {"body": body})
                pipeline.execute()

    def read(self, count: int) -> None:
        import redis

        with redis.Redis(port=self._server.port) as client:
            last: Any = "0"
            while count > 0:
                found: Any = client.xread({_NAME: last}, count=_BATCH)
                for _, entries in found:
                    count -= len(entries)
                    last = entries[-1][0]


class Rabbit:
    def __init__(self, server: RabbitMQ) -> None:
        self._server = server
        self._password = Path(tempfile.mkstemp()[1])
        self._password.write_text(server.password)
        self.parameters: Mapping[str, Any] = {"password_file": str(self._password)}

    def url_of(self, number: int) -> str:
        return f"amqp://{self._server.user}@{self._server.address}/{_NAME}{number}"

    def write(self, bodies: Sequence[bytes]) -> None:
        asyncio.run(self._write(bodies, [*(f"{_NAME}{number}" for number in range(_ROUNDS)), f"{_NAME}-read"]))

    async def _write(self, bodies: Sequence[bytes], queues: Sequence[str]) -> None:
        import aio_pika

        async with await aio_pika.connect(self._server.url) as connection:
            channel = await connection.channel()
            for queue in queues:
                await channel.declare_queue(queue, durable=True)
            for start in range(0, len(bodies), _BATCH):
                await asyncio.gather(
                    *(
                        channel.default_exchange.publish(aio_pika.Message(body), queue)
                        for body in bodies[start : start + _BATCH]
                        for queue in queues
                    )
                )

    def read(self, count: int) -> None:
        asyncio.run(self._read(count))

    async def _read(self, count: int) -> None:
        import aio_pika

        async with await aio_pika.connect(self._server.url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1_000)
            queue = await channel.get_queue(f"{_NAME}-read")
            async with queue.iterator() as messages:
                async for message in messages:
                    count -= 1
                    if count % _BATCH == 0:
                        await message.channel.basic_ack(message.delivery_tag or 0, multiple=True)
                    if count <= 0:
                        return


class Kafka:
    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self.parameters: Mapping[str, Any] = {}

    def url_of(self, number: int) -> str:
        return f"{self._server.url}/{_NAME}"

    def write(self, bodies: Sequence[bytes]) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._server.address, "acks": "all"})
        for start in range(0, len(bodies), 5_000):
            for body in bodies[start : start + 5_000]:
                producer.produce(_NAME, body)
            producer.flush()

    def read(self, count: int) -> None:
        from confluent_kafka import Consumer

        consumer = Consumer(
            {"bootstrap.servers": self._server.address, "group.id": "own", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([_NAME])
        while count > 0:
            count -= len(consumer.consume(_BATCH, 0.5))
        consumer.close()


_TARGETS: Final[Mapping[str, tuple[type[Broker], Callable[[Any], Target]]]] = {
    "redis": (RedisServer, Redis),
    "kafka": (KafkaServer, Kafka),
    "rabbitmq": (RabbitMQ, Rabbit),
}


def main() -> None:
    documents = [{"id": f"d{number}", "text": text} for number, text in enumerate(sentences(_DOCUMENTS))]
    bodies = [json.dumps(document).encode() for document in documents]
    wanted = [name for name in sys.argv[1:] if name in _TARGETS] or list(_TARGETS)
    for name in wanted:
        kind, target_of = _TARGETS[name]
        if (missing := kind.missing()) is not None:
            print(f"  {name}: needs {missing}")
            continue
        with ExitStack() as stack:
            server = stack.enter_context(kind(Path(stack.enter_context(tempfile.TemporaryDirectory())) / name))
            instance = stack.enter_context(Instance({"VEC_EMBEDDER": "hash"}))
            instance.start()
            client = stack.enter_context(instance.connect())
            _measure(name, client, target_of(server), documents, bodies)


def _measure(
    name: str, client: Client, target: Target, documents: Sequence[dict[str, Any]], bodies: Sequence[bytes]
) -> None:
    target.write(bodies)
    began = time.perf_counter()
    target.read(len(bodies))
    alone = len(bodies) / (time.perf_counter() - began)
    rates = [(_direct(client, number, documents), _copied(client, number, target)) for number in range(_ROUNDS)]
    direct, copied = (statistics.median(each) for each in zip(*rates, strict=True))
    ratio = statistics.median(source / ingest for ingest, source in rates)
    print(
        f"  {name}: a source writes {copied:,.0f} documents/s; an ingest of {_BATCH} at a time {direct:,.0f}/s (median"
        f" of the ratios {ratio:.2f}); the client library alone reads {alone:,.0f}/s",
        flush=True,
    )


def _direct(client: Client, number: int, documents: Sequence[dict[str, Any]]) -> float:
    """Documents/s of an ingest."""
    client.create_library(f"direct{number}", index="flat")
    began = time.perf_counter()
    for start in range(0, len(documents), _BATCH):
        client.ingest(documents[start : start + _BATCH], f"direct{number}")
    return len(documents) / (time.perf_counter() - began)


def _copied(client: Client, number: int, target: Target) -> float:
    """Documents/s of a source that reads from the beginning, between its first and its last document."""
    library = f"copied{number}"
    client.create_library(library, index="flat")

    def count() -> int:
        return int(client.library(library)["documents"])

    client.add_source(library, target.url_of(number), library=library, parameters=target.parameters)
    while not (first := count()):
        time.sleep(0.01)
    began = time.perf_counter()
    while (last := count()) < _DOCUMENTS:
        time.sleep(0.01)
    took = time.perf_counter() - began
    client.remove_source(library)
    return (last - first) / took


if __name__ == "__main__":
    main()
