"""A live replica: a relay of one daemon, a broker, a source of another daemon; whatever dies, both libraries end equal.

The broker is killed and started again, the daemons and their connector processes are killed, and the relay and the
source are paused, while documents are added, changed and deleted.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.test_relay import connector_pids
from tests.support.brokers import Broker, RabbitMQ, RedisServer, fresh_name
from tests.support.brokers.fixtures import require
from tests.support.instance import Instance
from tests.support.waiting import until

Options = tuple[str, ...]

WORDS = ("red", "blue", "größer", "日本", "\n\n", "x" * 80)


class Replica:
    """Two instances, with a broker between them."""

    def __init__(self, primary: Instance, replica: Instance) -> None:
        self.primary = primary
        self.replica = replica

    def connect(self, relay_url: str, relay: Options, source_url: str, source: Options) -> None:
        """Adds the source first: a queue that is bound later would not have what was sent before."""
        self.replica.vec("source", "add", "in", source_url, "--library", "notes", *source)
        until(lambda: self.replica.objects("source", "list")[0]["state"] == "running", "the source")
        self.primary.vec("relay", "add", "out", relay_url, "--library", "notes", "--from", "beginning", *relay)

    def equal(self) -> None:
        """Waits until both libraries are equal; nothing is left among the dead letters."""
        whole = contents(self.primary)
        until(lambda: contents(self.replica) == whole, "an equal replica")
        assert self.replica.objects("source", "dead", "in") == []
        assert self.primary.objects("relay", "list")[0]["dead_letters"] == 0


@pytest.fixture
def replica() -> Iterator[Replica]:
    with ExitStack() as stack:
        instances = [stack.enter_context(Instance({"VEC_EMBEDDER": "hash"})) for _ in range(2)]
        for each in instances:
            each.start()
        yield Replica(*instances)


def contents(instance: Instance) -> dict[str, Any]:
    """All documents of the library, whole, with their vectors."""
    with instance.connect() as client:
        if "notes" not in {each["name"] for each in client.libraries()}:
            return {}
        ids = [each["id"] for each in client.documents("notes")]
        return {each["id"]: each for each in client.get(ids, "notes", vectors=True) if each is not None}


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


def trouble(pair: Replica, broker: Broker, chance: random.Random) -> None:
    """Changes documents while everything dies in turn, the broker twice."""
    deaths: list[Callable[[], None]] = [
        lambda: broker.restart(killed=True),
        lambda: kill_process(pair.replica),
        lambda: kill_daemon(pair.primary),
        lambda: kill_process(pair.primary),
        lambda: kill_daemon(pair.replica),
        broker.restart,
    ]
    for death in deaths:
        change(pair.primary, chance, 60)
        death()
        change(pair.primary, chance, 20)
    pair.replica.vec("source", "pause", "in")
    change(pair.primary, chance, 20)
    pair.replica.vec("source", "resume", "in")


def test_a_replica_over_redis_ends_equal_though_all_parts_are_killed(replica: Replica, own_redis: RedisServer) -> None:
    stream = f"{own_redis.url}/{fresh_name()}"
    replica.primary.vec("library", "create", "notes")
    replica.connect(stream, ("--payload",), stream, ())
    trouble(replica, own_redis, random.Random(7))
    replica.equal()


def test_a_replica_with_vectors_has_those_of_the_primary(replica: Replica, redis_server: RedisServer) -> None:
    stream = f"{redis_server.url}/{fresh_name()}"
    with replica.primary.connect() as client:
        client.create_library("notes", dimension=3, embedder="none", metric="l2")
        client.ingest([{"id": "a", "vector": [0.1, 1e-7, -3e38]}, {"id": "b", "vector": [1, 2, 3]}], "notes")
    replica.connect(stream, ("--vectors",), stream, ())
    with replica.primary.connect() as client:
        client.ingest([{"id": "b", "vector": [3, 2, 1]}, {"id": "c", "text": "text", "vector": [0, 0, 1]}], "notes")
        client.delete(["a"], "notes")
    replica.equal()
    assert contents(replica.replica).keys() == {"b", "c"}


@pytest.mark.parametrize(("kind", "format"), [("queue", "cloudevents"), ("stream", "vec")])
def test_a_replica_over_rabbitmq_ends_equal_though_all_parts_are_killed(
    replica: Replica, tmp_path: Path, kind: str, format: str
) -> None:
    require(RabbitMQ)
    secret = tmp_path / "password"
    secret.write_text(RabbitMQ.password)
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        exchange, queue = fresh_name("exchange"), fresh_name("queue")
        place = f"amqp://{broker.user}@{broker.address}"
        login = ("-p", f"password_file={secret}")
        replica.primary.vec("library", "create", "notes")
        replica.connect(
            f"{place}/{exchange}", ("--payload", "--format", format, *login), f"{place}/{queue}",
            (*login, "-p", f"exchange={exchange}", *(("-p", "stream=true") if kind == "stream" else ())),
        )  # fmt: skip
        trouble(replica, broker, random.Random(8))
        replica.equal()
