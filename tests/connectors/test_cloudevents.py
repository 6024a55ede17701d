"""CloudEvents of a relay, read by the official SDK: what arrives over HTTP and over RabbitMQ."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pika
import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.support.brokers import RabbitMQ
from tests.support.http_receiver import Receiver
from tests.support.instance import Instance
from tests.support.waiting import until

from .instances import fresh, new_library, put


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def check(event: Any, watched: Mapping[str, Any], log: str) -> None:
    """Compares a CloudEvent with the event that `vec watch` prints."""
    assert event.get_specversion() == "1.0"
    assert event.get_id() == watched["cursor"]
    assert event.get_source() == f"/vec/{log}/{watched['library']}"
    assert event.get_type() == watched["type"]
    assert event.get_time() == datetime.datetime.fromisoformat(watched["time"])
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == watched["data"]
    data = watched["data"]
    assert event.get_subject() == (
        data.get("id") if watched["type"].startswith("document.") else data.get("document_id")
    )


def test_a_webhook_gets_batches_that_the_sdk_reads(instance: Instance) -> None:
    library = new_library(instance)
    with Receiver() as receiver:
        put(instance, library, "a", "größer/日本 #1")
        instance.vec("delete", "a", "-l", library)
        relay = fresh("relay")
        instance.vec(
            "relay", "add", relay, receiver.url, "-l", library, "--from", "beginning", "--format", "cloudevents"
        )
        watched = instance.objects("watch", "-l", library, "--from", "beginning", "--no-follow")
        until(lambda: sum(len(json.loads(each.body)) for each in list(receiver.received)) == len(watched), "the events")
        instance.vec("relay", "remove", relay)
    assert {each.headers["Content-Type"] for each in receiver.received} == {"application/cloudevents-batch+json"}
    with instance.connect() as client:
        log = client.log
    objects = [event for each in receiver.received for event in json.loads(each.body)]
    assert {event["type"] for event in watched} > {
        "library.created",
        "document.added",
        "document.deleted",
        "chunk.added",
    }
    for found, expected in zip(objects, watched, strict=True):
        event = JSONFormat().read(CloudEvent, json.dumps(found))
        check(event, expected, log)
        # No extension attributes: each name would be one that other producers may use otherwise.
        assert found.keys() - {"subject"} == {"specversion", "id", "source", "type", "time", "datacontenttype", "data"}


def test_rabbitmq_carries_events_that_the_sdk_reads(instance: Instance, rabbitmq_server: RabbitMQ) -> None:
    library, exchange, queue, relay = new_library(instance), fresh("events"), fresh("queue"), fresh("relay")
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "#")
    url = f"amqp://{rabbitmq_server.address}/{exchange}"
    instance.vec(
        "relay", "add", relay, url, "-l", library, "--type", "document.*", "--format", "cloudevents", "--payload"
    )
    put(instance, library, "a")

    def arrived() -> tuple[Any, Any, Any] | None:
        got = channel.basic_get(queue, auto_ack=True)
        return got if got[0] is not None else None

    _, properties, body = until(arrived, "the message")
    connection.close()
    with instance.connect() as client:
        log = client.log
    (watched,) = instance.objects(
        "watch", "-l", library, "--from", "beginning", "--type", "document.*", "--payload", "--no-follow"
    )
    event = from_rabbitmq_event(RabbitMQMessage(properties.headers, properties.content_type, body))
    check(event, watched, log)
    data: Any = event.get_data()
    assert data["document"]["chunks"][0]["text"] == "text of a"
