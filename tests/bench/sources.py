"""Sources from real brokers on this machine: documents/s that are written, beside the rate at which the client library
alone reads the same messages, and beside an ingest of the same documents over the socket.

For some brokers only: `python -m tests.bench.sources redis kafka`. All three run one after the other with the same
server and daemon. The clock runs from the first document in the library to the last.
"""

from __future__ import annotations

import asyncio
import json
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

_DOCUMENTS: Final = 20_000
_BATCH: Final = 512
_NAME: Final = "bench"


class Target(Protocol):
    """A broker, with the code of a program that uses its client library."""

    url: str
    parameters: Mapping[str, Any]

    def write(self, bodies: Sequence[bytes]) -> None:
        """Fills the stream, topic or queue."""

    def read(self, count: int) -> None:
        """Reads so many messages from the beginning."""


class Redis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = f"{server.url}/{_NAME}"
        self.parameters: Mapping[str, Any] = {}

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
        self.url = f"amqp://{server.user}@{server.address}/{_NAME}"
        self.parameters: Mapping[str, Any] = {"password_file": str(self._password)}

    def write(self, bodies: Sequence[bytes]) -> None:
        asyncio.run(self._write(bodies, (_NAME, f"{_NAME}-read")))

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
        self.url = f"{server.url}/{_NAME}"
        self.parameters: Mapping[str, Any] = {}

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
    count = len(bodies)
    target.write(bodies)
    began = time.perf_counter()
    target.read(count)
    alone = count / (time.perf_counter() - began)

    client.create_library("direct", index="flat")
    began = time.perf_counter()
    for start in range(0, count, _BATCH):
        client.ingest(documents[start : start + _BATCH], "direct")
    direct = count / (time.perf_counter() - began)

    client.create_library("copied", index="flat")
    client.add_source("bench", target.url, library="copied", parameters=target.parameters)
    while not (first := _documents(client)):
        time.sleep(0.01)
    began = time.perf_counter()
    while _documents(client) < count:
        time.sleep(0.01)
    rate = (count - first) / (time.perf_counter() - began)
    client.remove_source("bench")
    print(
        f"  {name}: a source writes {rate:,.0f} documents/s; an ingest of {_BATCH} at a time {direct:,.0f}/s"
        f" (ratio {rate / direct:.2f}); the client library alone reads {alone:,.0f}/s (ratio {rate / alone:.2f})",
        flush=True,
    )


def _documents(client: Client) -> int:
    return int(client.library("copied")["documents"])


if __name__ == "__main__":
    main()
