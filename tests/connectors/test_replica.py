"""A live replica: a relay of one daemon, a broker, a source of another daemon; whatever dies, both libraries end equal.

The broker is killed and started again, the daemons and their connector processes are killed, and sources are paused,
while documents are added, changed and deleted.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.test_relay import connector_pids
from tests.support.brokers import KafkaServer, NatsServer, RabbitMQ, RedisServer, fresh_name
from tests.support.brokers.fixtures import require
from tests.support.instance import Instance
from tests.support.proxy import Proxy
from tests.support.waiting import until

WORDS = ("red", "blue", "größer", "日本", "\n\n", "x" * 80)


class Replica:
    """Two instances, with a broker between them. Each library of the second one is a copy of `notes` of the first."""

    def __init__(self, primary: Instance, replica: Instance) -> None:
        self.primary = primary
        self.replica = replica
        self.copies: list[str] = []

    def add_source(self, library: str, url: str, *options: str) -> None:
        """For a queue, before the relay: one that is bound later would not have what was sent before."""
        self.replica.vec("source", "add", library, url, "--library", library, *options)
        until(lambda: self.replica.objects("source", "list")[len(self.copies)]["state"] == "running", "the source")
        self.copies.append(library)

    def add_relay(self, url: str, *options: str) -> None:
        self.primary.vec("relay", "add", "out", url, "--library", "notes", "--from", "beginning", *options)

    def check(self) -> None:
        """Waits until the libraries are equal; nothing is left among the dead letters."""
        whole = contents(self.primary, "notes")
        for copy in self.copies:
            until(lambda copy=copy: contents(self.replica, copy) == whole, "an equal replica")  # type: ignore[misc]
            assert self.replica.objects("source", "dead", copy) == []
        assert self.primary.objects("relay", "list")[0]["dead_letters"] == 0


@pytest.fixture
def replica() -> Iterator[Replica]:
    with ExitStack() as stack:
        instances = [stack.enter_context(Instance({"VEC_EMBEDDER": "hash"})) for _ in range(2)]
        for each in instances:
            each.start()
        yield Replica(*instances)


def contents(instance: Instance, library: str) -> dict[str, Any]:
    """All documents of the library, whole, with their vectors."""
    with instance.connect() as client:
        if library not in {each["name"] for each in client.libraries()}:
            return {}
        ids = [each["id"] for each in client.documents(library)]
        return {each["id"]: each for each in client.get(ids, library, vectors=True) if each is not None}


def change(instance: Instance, chance: random.Random, count: int) -> None:
    """Adds, changes and deletes documents."""
    with instance.connect() as client:
        batch: list[dict[str, Any]] = []
        for _ in range(count):
            its_id = f"dir/{chance.randrange(40)}"
            if chance.random() < 0.2:
                batch.append({"op": "delete", "id": its_id})
            else:
                document: dict[str, Any] = {"id": its_id, "title": chance.choice(["T", None, ""]), "metadata": {}}
                if chance.random() < 0.5:
                    document["metadata"] = {"n": chance.random(), "tags": ["a", {"b": None}]}
                document["text"] = " ".join(chance.choice(WORDS) for _ in range(40)) + "."
                batch.append(document)
        client.ingest(batch, "notes")


def kill_daemon(instance: Instance) -> None:
    daemon = instance.pid()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    until(lambda: not connector_pids(instance), "the end of the process of a daemon that was killed")
    instance.start()


def kill_process(instance: Instance) -> None:
    for pid in until(lambda: connector_pids(instance), "the process of the connectors"):
        os.kill(pid, signal.SIGKILL)


def trouble(pair: Replica, chance: random.Random, deaths: Sequence[Callable[[], object]]) -> None:
    """Changes documents while parts die."""
    for death in deaths:
        change(pair.primary, chance, 60)
        death()
        change(pair.primary, chance, 20)
    for library in pair.copies:
        pair.replica.vec("source", "pause", library)
    change(pair.primary, chance, 20)
    for library in pair.copies:
        pair.replica.vec("source", "resume", library)


def test_a_replica_over_redis_ends_equal_though_all_parts_are_killed(replica: Replica, own_redis: RedisServer) -> None:
    stream = f"{own_redis.url}/{fresh_name()}"
    replica.primary.vec("library", "create", "notes")
    replica.add_source("copy", stream)
    replica.add_relay(stream, "--payload")
    deaths = [
        lambda: own_redis.restart(killed=True),
        lambda: kill_process(replica.replica),
        lambda: kill_daemon(replica.primary),
        lambda: kill_process(replica.primary),
        lambda: kill_daemon(replica.replica),
        own_redis.restart,
    ]
    trouble(replica, random.Random(7), deaths)
    replica.check()


def test_a_replica_over_nats_ends_equal_though_the_broker_and_a_daemon_are_killed(
    replica: Replica, own_nats: NatsServer
) -> None:
    stream = f"nats://{own_nats.address}/{fresh_name()}"
    replica.primary.vec("library", "create", "notes")
    replica.add_relay(stream, "--payload")  # it creates the stream
    replica.add_source("copy", stream)
    deaths = [lambda: own_nats.restart(killed=True), lambda: kill_daemon(replica.replica)]
    trouble(replica, random.Random(10), deaths)
    replica.check()


def test_a_replica_over_kafka_ends_equal_though_daemons_are_killed_and_the_network_is_cut(
    replica: Replica, own_kafka: KafkaServer
) -> None:
    """The broker is not killed: this one loses messages that it has confirmed (tests/support/brokers/kafka.py)."""
    with own_kafka.behind_proxy() as network:
        _replicates_over_kafka(replica, network)


def _replicates_over_kafka(replica: Replica, network: Proxy) -> None:
    topic = f"kafka://{network.address}/{fresh_name()}"
    replica.primary.vec("library", "create", "notes")
    replica.add_relay(topic, "--payload", "--format", "cloudevents", "-p", "tombstones=true")  # it creates the topic
    replica.add_source("copy", topic)
    deaths = [
        network.cut,
        lambda: kill_daemon(replica.primary),
        lambda: kill_process(replica.replica),
        network.cut,
        lambda: kill_daemon(replica.replica),
    ]
    trouble(replica, random.Random(9), deaths)
    replica.check()


def test_a_replica_over_rabbitmq_ends_equal_though_the_broker_is_restarted_and_a_daemon_killed(
    replica: Replica, tmp_path: Path
) -> None:
    """A queue and a stream, which get the messages of one relay. The broker is stopped and not killed: a stream that is
    younger than some seconds does not come back after that ("home node is down")."""
    require(RabbitMQ)
    secret = tmp_path / "password"
    secret.write_text(RabbitMQ.password)
    replica.primary.vec("library", "create", "notes")
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        place = f"amqp://{broker.user}@{broker.address}"
        login = ("-p", f"password_file={secret}")
        bound = (*login, "-p", "exchange=notes")
        replica.add_source("by-queue", f"{place}/queue", *bound)
        replica.add_source("by-stream", f"{place}/stream", *bound, "-p", "stream=true")
        replica.add_relay(f"{place}/notes", "--payload", "--format", "cloudevents", *login)
        trouble(replica, random.Random(8), [broker.restart, lambda: kill_daemon(replica.replica)])
        replica.check()


def test_a_replica_with_vectors_has_those_of_the_primary(replica: Replica, redis_server: RedisServer) -> None:
    stream = f"{redis_server.url}/{fresh_name()}"
    with replica.primary.connect() as client:
        client.create_library("notes", dimension=3, embedder="none", metric="l2")
        client.ingest([{"id": "a", "vector": [0.1, 1e-7, -3e38]}, {"id": "b", "vector": [1, 2, 3]}], "notes")
    replica.add_source("copy", stream)
    replica.add_relay(stream, "--vectors")
    with replica.primary.connect() as client:
        client.ingest([{"id": "b", "vector": [3, 2, 1]}, {"id": "c", "text": "text", "vector": [0, 0, 1]}], "notes")
        client.delete(["a"], "notes")
    replica.check()
    assert contents(replica.replica, "copy").keys() == {"b", "c"}
