"""Relays to RabbitMQ, read by another client (pika): what arrives, in which order, what happens when a side fails."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.support.brokers import HOST, RabbitMQ
from tests.support.certificates import make_certificate
from tests.support.instance import Instance
from tests.support.proxy import Proxy
from tests.support.waiting import until
from vecd.delivery import AttemptFailed

from .direct import batch, events, open_sink
from .instances import fresh, new_library, put, put_many, state, wait_for


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def _some(got: tuple[Any, Any, Any]) -> tuple[Any, Any, Any] | None:
    return got if got[0] is not None else None


class Consumer:
    """pika: declares exchanges and queues, and takes messages."""

    def __init__(self, server: RabbitMQ) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(server.url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    def bind(self, exchange: str, *keys: str, **arguments: Any) -> str:
        """A new durable queue, bound to a topic exchange, which is declared if it is missing."""
        queue = fresh("queue")
        self.channel.exchange_declare(exchange, "topic", durable=True)
        self.channel.queue_declare(queue, durable=True, arguments=arguments)
        for key in keys or ("#",):
            self.channel.queue_bind(queue, exchange, key)
        return queue

    def take(self, queue: str, count: int) -> list[tuple[str, pika.BasicProperties, Any]]:
        """The next `count` messages: routing key, properties, the JSON of the body."""
        found: list[tuple[str, pika.BasicProperties, Any]] = []
        while len(found) < count:
            method, properties, body = until(lambda: _some(self.channel.basic_get(queue, auto_ack=True)), "a message")
            found.append((method.routing_key, properties, json.loads(body)))
        return found

    def waiting(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def consumer(rabbitmq_server: RabbitMQ) -> Iterator[Consumer]:
    made = Consumer(rabbitmq_server)
    yield made
    made.close()


def add(instance: Instance, library: str, address: str, exchange: str, *arguments: str) -> str:
    """Adds a relay of one library from the beginning of the log; returns its name."""
    name = fresh("relay")
    url = f"amqp://{address}/{exchange}"
    instance.vec("relay", "add", name, url, "-l", library, "--from", "beginning", *arguments)
    return name


def letters(instance: Instance, relay: str) -> list[Any]:
    with instance.connect() as client:
        found = client.request("relay.dead", name=relay)["dead_letters"]
    assert isinstance(found, list)
    return found


def test_each_event_is_a_persistent_message_whose_id_is_the_cursor(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    put(instance, library, "a")
    add(instance, library, rabbitmq_server.address, exchange, "--type", "document.*", "--payload")
    put(instance, library, "b")
    watched = instance.objects(
        "watch", "-l", library, "--from", "beginning", "--type", "document.*", "--payload", "--no-follow"
    )
    received = consumer.take(queue, 2)
    assert [body for _, _, body in received] == watched
    for (key, properties, _), event in zip(received, watched, strict=True):
        assert key == f"{library}.document.added"
        assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
        assert (properties.message_id, properties.type) == (event["cursor"], "document.added")
        assert properties.content_type == "application/json"
        assert properties.headers["vec-id"] == event["data"]["id"]


def test_queues_select_events_by_routing_key(instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer) -> None:
    library, exchange = new_library(instance), fresh("events")
    deletions = consumer.bind(exchange, "*.document.deleted")
    everything = consumer.bind(exchange)
    add(instance, library, rabbitmq_server.address, exchange)
    put(instance, library, "a", "b")
    instance.vec("delete", "a", "-l", library)
    (deleted,) = consumer.take(deletions, 1)
    assert deleted[2]["data"]["id"] == "a"
    events = [body for _, _, body in consumer.take(everything, 7)]
    assert [event["type"] for event in events] == [
        "library.created", "document.added", "chunk.added", "document.added", "chunk.added", "document.deleted",
        "chunk.deleted",
    ]  # fmt: skip


def test_events_keep_the_order_of_the_log(instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    add(instance, library, rabbitmq_server.address, exchange, "--type", "document.*")
    for version in range(3):
        put_many(instance, library, [f"d{number}" for number in range(400)], title=f"version {version}")
    received = [body["seq"] for _, _, body in consumer.take(queue, 1_200)]
    assert received == sorted(received)
    assert len(set(received)) == 1_200


def test_a_relay_declares_its_exchange_and_a_message_without_a_queue_is_a_dead_letter(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    relay = add(instance, library, rabbitmq_server.address, exchange, "--type", "document.*")
    until(lambda: state(instance, relay)["state"] == "running", "its connection")
    queue = fresh("queue")
    consumer.channel.queue_declare(queue, durable=True)
    consumer.channel.queue_bind(queue, exchange, "*.document.deleted")
    put(instance, library, "a")
    instance.vec("delete", "a", "-l", library)
    (received,) = consumer.take(queue, 1)
    assert received[2]["type"] == "document.deleted"
    wait_for(instance, relay, lambda found: found["dead_letters"] == 1, "the dead letter")
    (letter,) = letters(instance, relay)
    assert f"no queue is bound for the routing key '{library}.document.added'" in letter["reason"]


def test_what_nobody_wants_is_dropped_if_the_user_says_so(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange, "*.document.deleted")
    relay = add(instance, library, rabbitmq_server.address, exchange, "-p", "mandatory=false")
    put(instance, library, "a")
    instance.vec("delete", "a", "-l", library)
    assert consumer.take(queue, 1)[0][2]["type"] == "document.deleted"
    found = wait_for(instance, relay, lambda found: found["lag"] == 0, "the end of the log")
    assert found["dead_letters"] == 0


def test_a_message_that_is_too_large_is_a_dead_letter_and_its_neighbours_arrive(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    put(instance, library, "a")
    put(instance, library, "large", texts=["x" * 100_000] * 50)
    put(instance, library, "b")
    relay = add(instance, library, rabbitmq_server.address, exchange, "--type", "document.*", "--payload")
    # The attempt that failed may have delivered some before.
    seen: set[str] = set()
    while seen != {"a", "b"}:
        seen.add(consumer.take(queue, 1)[0][2]["data"]["id"])
    wait_for(instance, relay, lambda found: found["dead_letters"] == 1 and found["lag"] == 0, "the dead letter")
    (letter,) = letters(instance, relay)
    assert "larger than configured max size" in letter["reason"]


def test_a_full_queue_delays_events_and_loses_none(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    relay = add(instance, library, rabbitmq_server.address, exchange, "--type", "document.*")
    put_many(instance, library, ["a", "b", "c"])
    found = wait_for(instance, relay, lambda found: found["state"] == "retrying", "the refusal")
    assert "a queue is full" in found["error"]["message"]
    assert found["dead_letters"] == 0
    seen: set[str] = set()
    while seen != {"a", "b", "c"}:
        seen.add(consumer.take(queue, 1)[0][2]["data"]["id"])


def test_a_lost_confirm_repeats_messages_with_their_ids(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    with Proxy((HOST, rabbitmq_server.port)) as network:
        relay = add(instance, library, network.address, exchange, "--type", "document.*")
        put(instance, library, "a")
        wait_for(instance, relay, lambda found: found["lag"] == 0, "the first event")
        network.black_hole("replies")
        put(instance, library, "b")
        until(lambda: consumer.waiting(queue) == 2, "the message whose confirm is lost")
        network.cut()
        network.heal()
        received = consumer.take(queue, 3)
        assert [body["data"]["id"] for _, _, body in received] == ["a", "b", "b"]
        assert received[1][1].message_id == received[2][1].message_id


def test_a_frozen_network_delays_the_relay_and_no_ingest(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    with Proxy((HOST, rabbitmq_server.port)) as network:
        relay = add(instance, library, network.address, exchange, "--type", "document.*", "-p", "timeout_s=0.5")
        until(lambda: state(instance, relay)["state"] == "running", "its connection")
        network.black_hole()
        put(instance, library, "a")
        found = wait_for(instance, relay, lambda found: found["state"] == "retrying", "the time-out")
        assert "0.5 s" in found["error"]["message"]
        put(instance, library, "b")
        network.cut()
        network.heal()
        seen: list[str] = []
        while seen[-1:] != ["b"]:
            seen.append(consumer.take(queue, 1)[0][2]["data"]["id"])
        assert list(dict.fromkeys(seen)) == ["a", "b"]
        wait_for(instance, relay, lambda found: found["state"] == "running" and found["lag"] == 0, "its recovery")


def test_a_batch_whose_confirms_are_cut_off_again_and_again_is_delivered_part_by_part(
    rabbitmq_server: RabbitMQ, consumer: Consumer
) -> None:
    """Each attempt continues where the confirms of the one before ended."""
    exchange = fresh("events")
    queue = consumer.bind(exchange)
    sent = events(1, 200)
    done, attempts = 0, 0
    with Proxy((HOST, rabbitmq_server.port)) as network:
        while done < len(sent):
            attempts += 1
            assert attempts < 200
            with open_sink(f"amqp://{network.address}/{exchange}", timeout_s=5) as sink:
                network.cut_after(100, "replies")  # four confirms, each of one message or of several
                try:
                    sink.deliver(batch(sent[done:])._replace(attempt=2))
                except AttemptFailed as failure:
                    assert failure.unreachable
                    done += failure.delivered
                else:
                    done = len(sent)
            network.heal()
    assert attempts > 1, "the network cut nothing off"
    seen = [body["seq"] for _, _, body in consumer.take(queue, consumer.waiting(queue))]
    assert list(dict.fromkeys(seen)) == [message.seq for message in sent]


def test_nothing_is_lost_when_the_broker_is_killed(instance: Instance, own_rabbitmq: RabbitMQ) -> None:
    library, exchange = new_library(instance), fresh("events")
    before = Consumer(own_rabbitmq)
    queue = before.bind(exchange)
    relay = add(instance, library, own_rabbitmq.address, exchange, "--type", "document.*")
    put(instance, library, *[f"a{number}" for number in range(20)])
    until(lambda: before.waiting(queue) >= 5, "some messages")
    before.close()
    own_rabbitmq.kill()
    put(instance, library, *[f"b{number}" for number in range(20)])
    wait_for(instance, relay, lambda found: found["state"] == "retrying", "the loss of the broker")
    own_rabbitmq.start()
    after = Consumer(own_rabbitmq)
    expected = [f"{phase}{number}" for phase in "ab" for number in range(20)]
    seen: list[str] = []
    while seen[-1:] != expected[-1:]:
        seen.append(after.take(queue, 1)[0][2]["data"]["id"])
    assert list(dict.fromkeys(seen)) == expected
    after.close()


def test_a_password_is_read_from_its_file_at_each_attempt_and_never_shown(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer, tmp_path: Path
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    secret = tmp_path / "password"
    secret.write_text("not-the-password\n")
    put(instance, library, "a")
    url_user = f"{rabbitmq_server.user}@{rabbitmq_server.address}"
    relay = add(instance, library, url_user, exchange, "--type", "document.*", "-p", f"password_file={secret}")
    found = wait_for(instance, relay, lambda found: found["state"] == "failing", "the refusal")
    assert f"refuses the user '{rabbitmq_server.user}'" in found["error"]["message"]
    assert "password_file" in found["error"]["hint"]
    secret.write_text(f"{rabbitmq_server.password}\n")
    assert consumer.take(queue, 1)[0][2]["data"]["id"] == "a"
    assert "not-the-password" not in json.dumps(state(instance, relay)) + instance.log()


def test_a_certificate_is_verified(
    instance: Instance, rabbitmq_server: RabbitMQ, consumer: Consumer, tmp_path: Path
) -> None:
    library, exchange = new_library(instance), fresh("events")
    queue = consumer.bind(exchange)
    put(instance, library, "a")
    key, certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Proxy((HOST, rabbitmq_server.port), tls=context) as network:
        arguments = ("-l", library, "--type", "document.*", "--from", "beginning")
        untrusting, trusting = fresh("relay"), fresh("relay")
        url = f"amqps://{network.address}/{exchange}"
        instance.vec("relay", "add", untrusting, url, *arguments)
        found = wait_for(instance, untrusting, lambda found: found["state"] == "failing", "the refusal")
        assert "is not trusted (self-signed certificate)" in found["error"]["message"]
        assert consumer.waiting(queue) == 0
        instance.vec("relay", "add", trusting, url, *arguments, "-p", f"ca_file={certificate}")
        assert consumer.take(queue, 1)[0][2]["data"]["id"] == "a"
        for each in (untrusting, trusting):
            instance.vec("relay", "remove", each)


@pytest.mark.parametrize(
    ("url", "parameters", "said"),
    [
        ("amqp://localhost/", (), "names no exchange"),
        ("amqp://localhost/vhost?x=1", (), "names no exchange"),
        ("amqp://me:secret@localhost/x", (), "-p password_file=PATH"),
        ("amqp://localhost/x", ("-p", "prefetch=1"), "is only for a source"),
        ("amqps://localhost/x", ("-p", "ca_file=/x", "-p", "cert_file=/x"), "cert_file and key_file belong together"),
        ("amqp://localhost/" + "x" * 256, (), "exceeds 255 bytes"),
    ],
)
def test_what_cannot_be_a_relay_is_refused(
    instance: Instance, url: str, parameters: tuple[str, ...], said: str
) -> None:
    refused = instance.vec("relay", "add", fresh("relay"), url, *parameters, status=2).stderr
    assert said in refused
    assert "secret" not in refused


def test_a_missing_virtual_host_is_named(instance: Instance, rabbitmq_server: RabbitMQ) -> None:
    put(instance, library := new_library(instance), "a")
    relay = add(instance, library, rabbitmq_server.address, "x", "-p", "vhost=nosuch")
    found = wait_for(instance, relay, lambda found: found["state"] == "failing", "the refusal")
    assert "no virtual host 'nosuch'" in found["error"]["message"]
    instance.vec("relay", "remove", relay)
