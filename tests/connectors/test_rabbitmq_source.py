"""Sources that read RabbitMQ, fed by another client (pika): queues at least once, streams exactly once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from tests.support.brokers import HOST, RabbitMQ
from tests.support.instance import Instance
from tests.support.proxy import Proxy
from tests.support.waiting import until

from .direct import open_reader, read_until
from .instances import fresh, new_library, state, wait_for
from .test_relay import connector_pids


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


class Producer:
    """pika: declares queues and streams, and publishes with confirms."""

    def __init__(self, server: RabbitMQ) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(server.url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    def declare(self, **arguments: Any) -> str:
        queue = fresh("queue")
        self.channel.queue_declare(queue, durable=True, arguments=arguments)
        return queue

    def send(self, queue: str, *messages: Any) -> None:
        """JSON, or bytes as they are."""
        for each in messages:
            body = each if isinstance(each, bytes) else json.dumps(each).encode()
            self.channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))

    def waiting(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def producer(rabbitmq_server: RabbitMQ) -> Iterator[Producer]:
    made = Producer(rabbitmq_server)
    yield made
    made.close()


def add(instance: Instance, library: str, address: str, queue: str, *arguments: str) -> str:
    name = fresh("source")
    instance.vec("source", "add", name, f"amqp://{address}/{queue}", "-l", library, *arguments)
    return name


def source(instance: Instance, name: str) -> Any:
    return state(instance, name, "source")


def titles(instance: Instance, library: str) -> list[tuple[str, str | None]]:
    """Of each document event, in order: its type, and the title that the document has then."""
    events = instance.objects(
        "watch", "-l", library, "--type", "document.*", "--from", "beginning", "--payload", "--no-follow"
    )
    return [(each["type"], (each["data"].get("document") or {}).get("title")) for each in events]


def versions(first: int, last: int) -> list[dict[str, Any]]:
    """One document, many times: each that is applied changes it, so each has its event."""
    return [{"id": "a", "text": "text", "title": f"version {number}"} for number in range(first, last + 1)]


def as_applied(last: int) -> list[tuple[str, str | None]]:
    return [
        ("document.added" if number == 1 else "document.updated", f"version {number}") for number in range(1, last + 1)
    ]


def kill_connectors(instance: Instance) -> None:
    for pid in until(lambda: connector_pids(instance), "the process of the connectors"):
        os.kill(pid, signal.SIGKILL)


def test_messages_of_a_queue_become_documents_and_deletions(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), producer.declare()
    producer.send(queue, {"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"op": "delete", "id": "a"})
    add(instance, library, rabbitmq_server.address, queue)
    until(lambda: len(titles(instance, library)) == 3, "all three")
    assert [each["id"] for each in instance.objects("list", "-l", library)] == ["b"]
    until(lambda: producer.waiting(queue) == 0, "the acknowledgement")


def test_a_message_is_acknowledged_only_when_it_is_applied(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), producer.declare()
    name = add(instance, library, rabbitmq_server.address, queue)
    for number in range(1, 6):
        producer.send(queue, *versions(number * 20 - 19, number * 20))
        kill_connectors(instance)
    until(lambda: titles(instance, library)[-1:] == as_applied(100)[-1:], "the last version")
    seen = list(dict.fromkeys(title for _, title in titles(instance, library)))
    assert seen == [title for _, title in as_applied(100)]
    until(lambda: producer.waiting(queue) == 0, "the acknowledgement")
    instance.vec("source", "remove", name)
    assert producer.channel.basic_get(queue)[0] is None


def test_a_message_of_a_stream_is_applied_exactly_once_whatever_is_killed(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), producer.declare(**{"x-queue-type": "stream"})
    with Proxy((HOST, rabbitmq_server.port)) as network:
        name = add(instance, library, network.address, queue, "-p", "stream=true")
        for number in range(1, 4):
            producer.send(queue, *versions(number * 20 - 19, number * 20))
            if number % 2:
                kill_connectors(instance)
            else:
                network.cut()
        until(lambda: titles(instance, library)[-1:] == as_applied(60)[-1:], "the last version")
        assert titles(instance, library) == as_applied(60)
        assert source(instance, name)["offsets"] == {queue: "59"}
        instance.vec("source", "remove", name)


def test_a_stream_is_read_again_after_a_reset_and_from_its_end_if_asked(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    queue = producer.declare(**{"x-queue-type": "stream"})
    producer.send(queue, *versions(1, 3))
    whole, rest = new_library(instance), new_library(instance)
    name = add(instance, whole, rabbitmq_server.address, queue, "-p", "stream=true")
    later = add(instance, rest, rabbitmq_server.address, queue, "-p", "stream=true", "-p", "start=latest")
    wait_for(instance, later, lambda found: found["state"] == "running", "its connection", "source")
    until(lambda: titles(instance, whole) == as_applied(3), "what was there")
    producer.send(queue, *versions(4, 4))
    until(lambda: titles(instance, rest) == [("document.added", "version 4")], "what came later")
    instance.vec("source", "reset", name)
    again = [("document.updated", title) for _, title in as_applied(4)]
    until(lambda: titles(instance, whole)[4:] == again, "the stream, again")


def test_a_bad_message_is_a_dead_letter_and_the_others_are_applied(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), producer.declare()
    producer.send(queue, {"id": "a", "text": "one"}, b"\xff{", {"id": "b", "text": "two"})
    name = add(instance, library, rabbitmq_server.address, queue)
    until(lambda: len(titles(instance, library)) == 2, "the good ones")
    (letter,) = until(lambda: instance.objects("source", "dead", name), "the dead letter")
    assert letter["position"]
    until(lambda: producer.waiting(queue) == 0, "the acknowledgement")


def test_a_second_source_of_a_queue_waits_for_the_first(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), producer.declare()
    first = add(instance, library, rabbitmq_server.address, queue)
    wait_for(instance, first, lambda found: found["state"] == "running", "its connection", "source")
    second = add(instance, library, rabbitmq_server.address, queue)
    found = wait_for(instance, second, lambda found: found["error"], "the refusal", "source")
    assert f"another consumer reads the queue '{queue}'" in found["error"]["message"]
    instance.vec("source", "remove", first)
    wait_for(instance, second, lambda found: found["state"] == "running", "its turn", "source")
    instance.vec("source", "remove", second)


def test_a_missing_queue_is_named_and_read_once_it_is_there(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue = new_library(instance), fresh("queue")
    name = add(instance, library, rabbitmq_server.address, queue)
    found = wait_for(instance, name, lambda found: found["state"] == "failing", "the error", "source")
    assert f"RabbitMQ does not have the queue '{queue}'" in found["error"]["message"]
    producer.channel.queue_declare(queue, durable=True)
    producer.send(queue, {"id": "a", "text": "one"})
    until(lambda: len(titles(instance, library)) == 1, "the document")


def test_a_source_declares_and_binds_its_queue(
    instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    library, queue, exchange = new_library(instance), fresh("queue"), fresh("exchange")
    bound = ("-p", f"exchange={exchange}", "-p", "binding=notes.#")
    name = add(instance, library, rabbitmq_server.address, queue, *bound)
    wait_for(instance, name, lambda found: found["state"] == "running", "its connection", "source")
    properties = pika.BasicProperties(delivery_mode=2)
    for key, its_id in (("other.document.added", "no"), ("notes.document.added", "yes")):
        producer.channel.basic_publish(exchange, key, json.dumps({"id": its_id, "text": "text"}).encode(), properties)
    until(lambda: instance.objects("list", "-l", library), "the document")
    assert [each["id"] for each in instance.objects("list", "-l", library)] == ["yes"]


def test_a_deleted_queue_is_noticed(instance: Instance, rabbitmq_server: RabbitMQ, producer: Producer) -> None:
    library, queue = new_library(instance), producer.declare()
    name = add(instance, library, rabbitmq_server.address, queue)
    wait_for(instance, name, lambda found: found["state"] == "running", "its connection", "source")
    producer.channel.queue_delete(queue)
    found = wait_for(instance, name, lambda found: found["error"], "the loss", "source")
    assert queue in found["error"]["message"]
    producer.channel.queue_declare(queue, durable=True)
    producer.send(queue, {"id": "a", "text": "one"})
    until(lambda: len(titles(instance, library)) == 1, "the document")


def test_the_lag_is_what_was_not_read_and_what_was_not_acknowledged_stays(
    rabbitmq_server: RabbitMQ, producer: Producer
) -> None:
    queue = producer.declare()
    producer.send(queue, *versions(1, 50))
    url = f"amqp://{rabbitmq_server.address}/{queue}"
    with open_reader(url, prefetch=10) as reader:
        read = read_until(reader, 5)
        until(lambda: reader.lag() == 45, "the lag")
        reader.committed({read[1].partition: read[1].offset})
        read += read_until(reader, 7)
        until(lambda: producer.waiting(queue) == 38, "the messages beyond the prefetch of 10")
    assert [json.loads(each.body) for each in read] == versions(1, 12)
    until(lambda: producer.waiting(queue) == 48, "the return of what was not acknowledged")
    with open_reader(url) as reader:
        again = read_until(reader, 48)
        assert [json.loads(each.body) for each in again] == versions(3, 50)
        assert again[0].redelivered
