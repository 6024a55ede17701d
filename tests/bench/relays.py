"""Relays to real brokers on this machine: events/s beside the client library's own rate for the same messages; the time
from a write's answer to the broker at 1,000 events/s; what a relay costs an ingest.

Wanted: a ratio of at least 0.5; under 20 ms at the median; under 10 %. For some brokers only:
`python -m tests.bench.relays redis kafka`.

The library's own rate is that of a program that has the encoded messages in memory, and sends them in batches of the
same size, each confirmed before the next. It runs after the relay, with the same server. Parts: `rate`, `lag`, `cost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from tests.bench.measure import sentences, told
from tests.support.brokers.broker import Broker
from tests.support.instance import Instance
from vecd import limits
from vecd.client import Client
from vecd.connectors.messages import OutMessage, encode
from vecd.delivery import DeliveryOptions
from vecd.process import lower_priority

_DOCUMENTS: Final = 10_000  # each has two events: its own, and its chunk's
_BATCH: Final = DeliveryOptions().events_max
_WARM_UP: Final = 2_000
_EVENTS_S: Final = 1_000
_LAG_S: Final = 5.0
_LAG_BATCH: Final = 5  # documents of one write, each with two events
_ROUNDS: Final = 5
_INGEST: Final = 4_000  # documents of one round


class Target(Protocol):
    """A broker, with the code of a program that uses its client library."""

    def url(self, name: str) -> str: ...

    def parameters(self) -> Mapping[str, Any]: ...

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        """Sends all with the client library; returns the seconds."""

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        """The headers of each message that arrives from now on, at once. The first item says that it listens."""


def _batches(messages: Sequence[OutMessage]) -> Iterator[Sequence[OutMessage]]:
    for start in range(0, len(messages), _BATCH):
        yield messages[start : start + _BATCH]


class Redis:
    def __init__(self, server: Any) -> None:
        self._server = server

    def url(self, name: str) -> str:
        return f"{self._server.url}/{name}"

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        import redis.asyncio

        async def run() -> float:
            client = redis.asyncio.Redis(port=self._server.port)
            began = time.perf_counter()
            for batch in _batches(messages):
                pipeline = client.pipeline(transaction=False)
                for each in batch:
                    fields: dict[Any, Any] = {**each.headers, "content-type": each.content_type, "body": each.body}
                    pipeline.xadd(name, fields, id=f"{each.seq}-0", maxlen=1_000_000, approximate=True)
                await pipeline.execute()
            took = time.perf_counter() - began
            await client.aclose()
            return took

        return asyncio.run(run())

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        import redis

        client = redis.Redis(port=self._server.port)
        last: Any = "$"
        yield {}
        while not stop.is_set():
            found: Any = client.xread({name: last}, block=100)
            for _, entries in found or ():
                for entry, fields in entries:
                    last = entry
                    yield {"vec-cursor": fields[b"vec-cursor"].decode()}


class RabbitMQ:
    def __init__(self, server: Any) -> None:
        self._server = server
        self._password = Path(tempfile.mkstemp()[1])
        self._password.write_text(server.password)

    def url(self, name: str) -> str:
        asyncio.run(self._bind(name))
        return f"amqp://{self._server.user}@{self._server.address}/{name}"

    def parameters(self) -> Mapping[str, Any]:
        return {"password_file": str(self._password)}

    async def _bind(self, name: str) -> None:
        import aio_pika

        async with await aio_pika.connect(self._server.url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC, durable=True)
            queue = await channel.declare_queue(name, durable=True)
            await queue.bind(name, "#")

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        import aio_pika

        async def run() -> float:
            async with await aio_pika.connect(self._server.url) as connection:
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                exchange = await channel.get_exchange(name)
                began = time.perf_counter()
                for batch in _batches(messages):
                    await asyncio.gather(
                        *(
                            exchange.publish(
                                aio_pika.Message(
                                    each.body,
                                    headers=dict(each.headers),
                                    content_type=each.content_type,
                                    message_id=each.cursor,
                                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                                ),
                                f"{each.library}.{each.type}",
                            )
                            for each in batch
                        )
                    )
                return time.perf_counter() - began

        return asyncio.run(run())

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        import aio_pika

        arrived: asyncio.Queue[str] = asyncio.Queue()

        async def take(message: Any) -> None:
            arrived.put_nowait(message.message_id)

        async def listen() -> Any:
            connection = await aio_pika.connect(self._server.url)
            queue = await (await connection.channel()).get_queue(name)
            await queue.purge()
            await queue.consume(take, no_ack=True)
            return connection

        with asyncio.Runner() as runner:
            connection = runner.run(listen())
            yield {}
            while not stop.is_set():
                try:
                    cursor = runner.run(asyncio.wait_for(arrived.get(), 0.1))
                except TimeoutError:
                    continue
                yield {"vec-cursor": cursor}
            runner.run(connection.close())


class Kafka:
    def __init__(self, server: Any) -> None:
        self._server = server

    def url(self, name: str) -> str:
        return f"{self._server.url}/{name}"

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        from confluent_kafka import Producer

        producer = Producer(
            {"bootstrap.servers": self._server.address, "enable.idempotence": True, "acks": "all", "linger.ms": 0}
        )
        producer.list_topics(timeout=10)
        began = time.perf_counter()
        for batch in _batches(messages):
            for each in batch:
                producer.produce(name, each.body, each.key, headers={k: v.encode() for k, v in each.headers.items()})
            producer.flush()
        return time.perf_counter() - began

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._server.address, "group.id": "bench", "fetch.wait.max.ms": 5})
        ends = []
        for partition in consumer.list_topics(name, timeout=10).topics[name].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
            ends.append(TopicPartition(name, partition, end))
        consumer.assign(ends)
        yield {}
        while not stop.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                headers: Any = dict(message.headers() or ())
                yield {"vec-cursor": headers["vec-cursor"].decode()}
        consumer.close()


class KafkaOnce(Kafka):
    """Exactly once, in transactions; beside the library without them."""

    def parameters(self) -> Mapping[str, Any]:
        return {"exactly_once": True}


class Nats:
    def __init__(self, server: Any) -> None:
        self._server = server

    def url(self, name: str) -> str:
        asyncio.run(self._make(name))
        return f"nats://{self._server.address}/{name}"

    async def _make(self, name: str) -> None:
        import nats

        client = await nats.connect(self._server.url)
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
        await client.close()

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        import nats

        async def run() -> float:
            client = await nats.connect(self._server.url)
            stream = client.jetstream(publish_async_max_pending=_BATCH)
            began = time.perf_counter()
            for batch in _batches(messages):
                waiting = [
                    await stream.publish_async(
                        f"{name}.own", each.body, headers={**each.headers, "Nats-Msg-Id": f"own-{each.cursor}"}
                    )
                    for each in batch
                ]
                await asyncio.gather(*waiting)
            took = time.perf_counter() - began
            await client.close()
            return took

        return asyncio.run(run())

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        import nats

        loop = asyncio.new_event_loop()
        client = loop.run_until_complete(nats.connect(self._server.url))
        arrived = loop.run_until_complete(client.subscribe(f"{name}.>"))
        loop.run_until_complete(client.flush())
        yield {}
        while not stop.is_set():
            try:
                message = loop.run_until_complete(arrived.next_msg(0.1))
            except nats.errors.TimeoutError:
                continue
            yield {"vec-cursor": (message.headers or {}).get("vec-cursor", "")}
        loop.run_until_complete(client.close())
        loop.close()


class Webhook:
    """Posts the same bodies with http.client, unsigned."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def url(self, name: str) -> str:
        return f"{self._server.url}/{name}" + ("?tell" if name == "lag" else "")

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def send(self, name: str, messages: Sequence[OutMessage]) -> float:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._server.port)
        began = time.perf_counter()
        for batch in _batches(messages):
            body = b"".join(each.body + b"\n" for each in batch)
            connection.request("POST", f"/{name}", body, {"Content-Type": "application/x-ndjson"})
            response = connection.getresponse()
            response.read()
            assert response.status == 204
        took = time.perf_counter() - began
        connection.close()
        return took

    def receive(self, name: str, stop: threading.Event) -> Iterator[Mapping[str, str]]:
        with self._server.arrived.open() as file:
            file.seek(0, 2)
            yield {}
            while not stop.is_set():
                line = file.readline()
                if line.endswith("\n"):
                    yield {"vec-cursor": line.strip()}
                else:
                    assert not line
                    time.sleep(0.0005)


def _server(module: str, name: str) -> type[Broker] | None:
    import importlib

    try:
        kind: type[Broker] = getattr(importlib.import_module(f"tests.support.brokers.{module}"), name)
    except (ImportError, AttributeError) as error:
        print(f"  {module}: {error}")
        return None
    if (missing := kind.missing()) is not None:
        print(f"  {module}: needs {missing}")
        return None
    return kind


_TARGETS: Final[Mapping[str, tuple[str, str, Callable[[Any], Target]]]] = {
    "redis": ("redis", "RedisServer", Redis),
    "kafka": ("kafka", "KafkaServer", Kafka),
    "kafka-once": ("kafka", "KafkaServer", KafkaOnce),
    "rabbitmq": ("rabbitmq", "RabbitMQ", RabbitMQ),
    "nats": ("nats", "NatsServer", Nats),
    "webhook": ("http_server", "HttpServer", Webhook),
}


def main() -> None:
    texts = sentences(_DOCUMENTS)
    wanted = [name for name in sys.argv[1:] if name in _TARGETS] or list(_TARGETS)
    for name in wanted:
        module, kind_name, target_of = _TARGETS[name]
        kind = _server(module, kind_name)
        if kind is None:
            continue
        with ExitStack() as stack:
            server = stack.enter_context(kind(Path(stack.enter_context(tempfile.TemporaryDirectory())) / name))
            instance = stack.enter_context(Instance({"VEC_EMBEDDER": "hash"}))
            instance.start()
            client = stack.enter_context(instance.connect())
            target = target_of(server)
            client.create_library("bench", index="flat")
            parts = {each for each in sys.argv[1:] if each in ("rate", "lag", "cost")} or {"rate", "lag", "cost"}
            if "rate" in parts:
                _rate(name, instance, client, target, texts)
            if "lag" in parts:
                _lag(name, client, target)
            if "cost" in parts:
                _cost(name, client, target, texts)


# --- events per second ----------------------------------------------------------------------------------------------


def _rate(name: str, instance: Instance, client: Client, target: Target, texts: Sequence[str]) -> None:
    for start in range(0, len(texts), 1_000):
        client.ingest(
            [{"id": f"{start + place}", "text": text} for place, text in enumerate(texts[start : start + 1_000])],
            "bench",
        )
    with client.watch("beginning", follow=False) as feed:
        events = list(feed)
    client.add_relay("rate", target.url("rate"), parameters=target.parameters(), start="beginning", paused=True)
    client.resume_relay("rate")
    _until(client, "rate", lambda shown: (shown["delivered"] or 0) > 0)
    pid = _connectors_of(instance)
    first, began, cpu = client.relay("rate")["delivered"], time.perf_counter(), _cpu_s(pid)
    _until(client, "rate", lambda shown: shown["lag"] == 0)
    took, cpu = time.perf_counter() - began, _cpu_s(pid) - cpu
    count = len(events) - first
    client.remove_relay("rate")
    messages = encode(events, "vec", client.log)
    target.url("own")
    own_count, own_took, own_cpu = _alone(target, messages)
    relayed, own = count / took, own_count / own_took
    print(
        f"  {name:9} {relayed:>8,.0f} events/s relayed, {own:>8,.0f} by the library alone: ratio {relayed / own:.2f};"
        f" {1e6 * cpu / count:,.0f} µs and {1e6 * own_cpu / own_count:,.0f} µs of CPU an event"
        f" ({len(events):,} events)",
        flush=True,
    )


def _alone(target: Target, messages: Sequence[OutMessage]) -> tuple[int, float, float]:
    """Sends with the client library, in a process with the priority of a relay's. Returns how many were sent after the
    first ones, the seconds, and the seconds of CPU."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            lower_priority(limits.CONNECTORS_NICE)
            target.send("own", messages[:_WARM_UP])
            again = messages[_WARM_UP:]
            cpu = time.process_time()
            took = target.send("own", again)
            os.write(write_end, f"{len(again)} {took} {time.process_time() - cpu}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, encoding="ascii") as pipe:
        count, took_s, cpu_s = pipe.read().split()
    os.waitpid(child, 0)
    return int(count), float(took_s), float(cpu_s)


def _connectors_of(instance: Instance) -> int:
    """The pid of the process of the connectors."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"vecd.connectors" in command and os.fsencode(instance.settings.socket) in command:
                return int(entry.name)
    raise AssertionError("no connectors run")


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until(client: Client, name: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    until = time.monotonic() + 300
    while not reached(shown := client.relay(name)):
        assert time.monotonic() < until, shown
        time.sleep(0.02)
    return shown


# --- lag ------------------------------------------------------------------------------------------------------------


def _lag(name: str, client: Client, target: Target) -> None:
    client.add_relay("lag", target.url("lag"), parameters=target.parameters())
    _until(client, "lag", lambda shown: shown["state"] == "running")
    arrived: dict[str, float] = {}
    stop, listening = threading.Event(), threading.Event()

    def listen() -> None:
        for headers in target.receive("lag", stop):
            listening.set()
            if headers:
                arrived[headers["vec-cursor"].partition(":")[2]] = time.perf_counter()

    client.ingest([{"id": "first", "text": "makes the topic"}], "bench")
    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(60)
    answered: dict[str, float] = {}  # the last event of each write
    began = time.perf_counter()
    every_s = 2 * _LAG_BATCH / _EVENTS_S
    for count in range(int(_LAG_S / every_s)):
        if (early := began + count * every_s - time.perf_counter()) > 0:
            time.sleep(early)
        documents = [{"id": f"lag-{count}-{each}", "text": "rotate the logs"} for each in range(_LAG_BATCH)]
        answer = client.ingest(documents, "bench")
        answered[str(answer["seq"])] = time.perf_counter()
    took = time.perf_counter() - began
    until = time.monotonic() + 30
    while len(answered.keys() - arrived.keys()) > 0 and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    thread.join()
    lags = sorted(max(0.0, arrived[seq] - at) * 1e3 for seq, at in answered.items() if seq in arrived)
    print(
        f"  {name:9} at {2 * _LAG_BATCH * len(answered) / took:,.0f} events/s, from the answer to a reader of the"
        f" broker: {told(lags)},"
        f" {len(answered) - len(lags)} missing",
        flush=True,
    )
    client.remove_relay("lag")


# --- the cost to an ingest ------------------------------------------------------------------------------------------


def _cost(name: str, client: Client, target: Target, texts: Sequence[str]) -> None:
    client.add_relay("cost", target.url("cost"), parameters=target.parameters())
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu_us: dict[bool, list[float]] = {False: [], True: []}  # of the daemon, for a document
    daemon = int(client.status()["pid"])
    serial = 0
    for _ in range(_ROUNDS):
        for relayed in (False, True):
            (client.resume_relay if relayed else client.pause_relay)("cost")
            if relayed:
                _until(client, "cost", lambda shown: shown["state"] == "running" and shown["lag"] == 0)
            serial += 1
            began, cpu_s = time.perf_counter(), _cpu_s(daemon)
            for start in range(0, _INGEST, 500):
                rows = range(start, start + 500)
                client.ingest([{"id": f"{serial}-{row}", "text": texts[row]} for row in rows], "bench")
            rates[relayed].append(_INGEST / (time.perf_counter() - began))
            cpu_us[relayed].append(1e6 * (_cpu_s(daemon) - cpu_s) / _INGEST)
    without, with_ = (statistics.median(rates[each]) for each in (False, True))
    print(
        f"  {name:9} ingest {without:,.0f} documents/s without a relay, {with_:,.0f} with one:"
        f" {100 * (1 - with_ / without):.0f} % slower; {statistics.median(cpu_us[False]):.0f} µs and"
        f" {statistics.median(cpu_us[True]):.0f} µs of the daemon's CPU a document",
        flush=True,
    )
    client.remove_relay("cost")


if __name__ == "__main__":
    main()
