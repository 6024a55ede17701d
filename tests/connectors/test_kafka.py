"""Kafka through the real door: vec relay and vec source, the daemon, a real server, another program's consumer."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.connectors.kafka_client import create_topic, headers_of, messages_in, produce
from tests.connectors.test_relay import connector_pids, put, relay
from tests.connectors.test_source import source
from tests.support.brokers import KafkaServer, fresh_name
from tests.support.instance import Instance
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def bodies(bootstrap: str, topic: str) -> list[Any]:
    return [json.loads(value) for each in messages_in(bootstrap, topic) if (value := each.value()) is not None]


def kill_connectors(instance: Instance) -> None:
    for pid in until(lambda: connector_pids(instance), "the process"):
        os.kill(pid, signal.SIGKILL)


def test_a_consumer_reads_the_log_as_vec_watch_prints_it_on_a_cluster_of_three(
    instance: Instance, kafka_cluster: Sequence[str]
) -> None:
    bootstrap, topic = ",".join(kafka_cluster), fresh_name()
    put(instance, "before")
    instance.vec("relay", "add", "out", f"kafka://{bootstrap}/{topic}", "--from", "beginning")
    put(instance, "a", "b")
    instance.vec("delete", "a")
    watched = instance.objects("watch", "--from", "beginning", "--no-follow")
    until(lambda: relay(instance)["lag"] == 0, "the stored position")
    found = messages_in(bootstrap, topic)
    assert sorted((json.loads(each.value() or b"") for each in found), key=lambda each: each["seq"]) == watched
    for each in found:
        event = json.loads(each.value() or b"")
        assert headers_of(each)["vec-cursor"] == event["cursor"]
        assert headers_of(each)["vec-type"] == event["type"]
        data = event["data"]
        document = data["id"] if event["type"].startswith("document.") else data.get("document_id")
        key = each.key()
        assert key == (event["library"] if document is None else f"{event['library']}/{document}").encode()


def test_a_consumer_gets_each_event_once_however_often_the_relay_is_killed(
    instance: Instance, kafka_server: KafkaServer
) -> None:
    """With exactly_once. The process of the connectors dies again and again in the middle of its work."""
    topic = fresh_name()
    url = f"{kafka_server.url}/{topic}"
    instance.vec("relay", "add", "out", url, "--type", "document.added", "-p", "exactly_once=true")
    ended = threading.Event()

    def write() -> None:
        for number in range(40):
            put(instance, *(f"d{number}-{each}" for each in range(25)))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        before = len(bodies(kafka_server.address, topic))
        until(lambda: len(bodies(kafka_server.address, topic)) > before or ended.is_set(), "more")  # noqa: B023
        kill_connectors(instance)
    writer.join()
    until(lambda: relay(instance)["lag"] == 0, "the last position")
    got = [event["data"]["id"] for event in bodies(kafka_server.address, topic)]
    assert got == [f"d{number}-{each}" for number in range(40) for each in range(25)]


def test_a_relay_says_that_its_broker_is_away_and_goes_on_when_it_is_back(
    instance: Instance, own_kafka: KafkaServer
) -> None:
    instance.vec("relay", "add", "out", f"{own_kafka.url}/t", "--type", "document.added", "-p", "timeout_s=1")
    put(instance, "a")
    until(lambda: bodies(own_kafka.address, "t"), "a message")
    own_kafka.stop()
    put(instance, "b", "c")
    shown = until(lambda: (found := relay(instance))["state"] == "retrying" and found, "the state")
    assert own_kafka.address in shown["error"]["message"]
    assert "Connection refused" in shown["error"]["message"]
    own_kafka.start()
    until(lambda: relay(instance)["lag"] == 0, "the other messages")
    until(lambda: relay(instance)["state"] == "running", "the state")  # reported behind the commit
    assert list(dict.fromkeys(event["data"]["id"] for event in bodies(own_kafka.address, "t"))) == ["a", "b", "c"]


def test_a_refused_event_is_a_dead_letter_and_is_sent_once_when_the_topic_takes_it(
    instance: Instance, kafka_server: KafkaServer
) -> None:
    """Behind later events, which the relay knows to have sent."""
    topic = fresh_name()
    create_topic(kafka_server.address, topic, max_message_bytes=5_000)
    url = f"{kafka_server.url}/{topic}"
    instance.vec("relay", "add", "out", url, "--type", "document.*", "--payload", "-p", "exactly_once=true")
    with instance.connect() as client:
        client.ingest([{"id": "small", "text": "x"}, {"id": "large", "text": "words " * 2_000}])
        client.ingest([{"id": "later", "text": "x"}])
    until(lambda: relay(instance)["lag"] == 0, "the position")
    assert [event["data"]["id"] for event in bodies(kafka_server.address, topic)] == ["small", "later"]
    (letter,) = instance.objects("relay", "dead", "out")
    assert "Message size too large" in letter["reason"]
    admin = AdminClient({"bootstrap.servers": kafka_server.address})
    entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    instance.vec("relay", "retry", "out", "--all")
    until(lambda: not instance.objects("relay", "dead", "out"), "the retry")
    assert [event["data"]["id"] for event in bodies(kafka_server.address, topic)] == ["small", "later", "large"]


def test_a_relay_that_is_reset_or_added_again_sends_again(instance: Instance, kafka_server: KafkaServer) -> None:
    """Although its position is in the broker too."""
    topic = fresh_name()
    add = ("relay", "add", "out", f"{kafka_server.url}/{topic}", "--type", "document.added", "-p", "exactly_once=true")
    put(instance, "a", "b")

    def sent() -> list[str]:
        return [event["data"]["id"] for event in bodies(kafka_server.address, topic)]

    instance.vec(*add, "--from", "beginning")
    until(lambda: sent() == ["a", "b"], "the events")
    instance.vec("relay", "reset", "out", "--to", "beginning")
    until(lambda: sent() == ["a", "b"] * 2, "the events again")
    instance.vec("relay", "remove", "out")
    instance.vec(*add, "--from", "beginning")
    until(lambda: sent() == ["a", "b"] * 3, "the events once more")


def test_what_cannot_be_a_topic_is_refused_at_once(instance: Instance) -> None:
    for url, *more in (
        ("kafka://localhost",), ("kafka://user:hunter2@localhost/t",), ("kafka://user@localhost/t",),
        ("kafka://localhost/t", "-p", "compression=rar"), ("kafka://localhost/t", "-p", "position_topic=t"),
        ("kafka://localhost/t", "-p", "ca_file=/etc/ssl/ca.pem"),
    ):  # fmt: skip
        assert "hunter2" not in instance.vec("relay", "add", "out", url, *more, status=2).stderr
    assert instance.objects("relay", "list") == []


def applied(instance: Instance, ends: dict[str, int]) -> Any:
    """Waits until the source has applied all before these offsets, by partition."""
    wanted = {partition: str(end - 1) for partition, end in ends.items()}
    return until(lambda: (found := source(instance))["offsets"] == wanted and found, "the last message")


def test_a_source_applies_each_message_once_however_often_its_process_is_killed(
    instance: Instance, kafka_server: KafkaServer
) -> None:
    """A message that is applied twice would have a second event."""
    topic, count = fresh_name(), 400
    create_topic(kafka_server.address, topic, partitions=2)
    instance.vec("source", "add", "in", f"{kafka_server.url}/{topic}", "--library", "notes")
    for start in range(0, count, 20):
        numbers = range(start, start + 20)
        lines = [json.dumps({"id": f"d{number % 50}", "text": f"version {number}"}).encode() for number in numbers]
        produce(kafka_server.address, topic, lines[:10], partition=0)
        produce(kafka_server.address, topic, lines[10:], partition=1)
        if start % 100 == 60:
            kill_connectors(instance)
    applied(instance, {"0": count // 2, "1": count // 2})
    changes = instance.objects(
        "watch", "--from", "beginning", "--no-follow", "--library", "notes", "--type", "document.*"
    )
    assert len(changes) == count
    shown = until(lambda: (found := source(instance))["lag"] == 0 and found, "the lag")
    assert (shown["dead_letters"], shown["state"]) == (0, "running")


def test_a_message_that_is_no_document_is_a_dead_letter_with_its_place(
    instance: Instance, kafka_server: KafkaServer
) -> None:
    topic = fresh_name()
    produce(kafka_server.address, topic, [b"{", b'{"id": "a", "text": "good"}', None], [b"x", b"a", None])
    produce(kafka_server.address, topic, [b'{"id": "b", "text": "good"}', None], [b"b", b"a"])
    instance.vec("source", "add", "in", f"{kafka_server.url}/{topic}", "--library", "notes")
    applied(instance, {"0": 5})
    positions = [letter["position"] for letter in instance.objects("source", "dead", "in")]
    assert len(positions) == 2
    assert "0" in positions[0]
    assert "2" in positions[1]
    assert [each["id"] for each in instance.objects("list", "--library", "notes")] == ["b"]  # a has a tombstone


@pytest.mark.parametrize("form", ["vec", "cloudevents"])
def test_a_relay_and_a_source_keep_a_replica_while_kafka_restarts_and_both_are_killed(
    own_kafka: KafkaServer, form: str
) -> None:
    with (
        Instance({"VEC_EMBEDDER": "hash"}) as first,
        Instance({"VEC_EMBEDDER": "hash"}) as second,
        own_kafka.behind_proxy() as network,
    ):
        url = f"kafka://{network.address}/replica"
        for each in (first, second):
            each.start()
        first.vec("library", "create", "notes")
        first.vec(
            "relay", "add", "out", url, "--library", "notes", "--payload", "--format", form, "-p", "exactly_once=true",
            "-p", "tombstones=true", "-p", "timeout_s=3",
        )  # fmt: skip
        second.vec("source", "add", "in", url, "--library", "notes", "-p", "timeout_s=3")

        def write(start: int) -> None:
            with first.connect() as client:
                for number in range(start, start + 30):
                    client.ingest(
                        [{"id": f"d{number % 40}", "text": f"text {number}", "metadata": {"n": number}}], "notes"
                    )
                    if number % 7 == 0:
                        client.delete([f"d{(number - 3) % 40}"], library="notes")

        def all_sent() -> None:  # a restart makes this broker forget an open transaction, and often all later ones
            until(lambda: relay(first)["lag"] == 0, "the relay's position")

        write(0)
        all_sent()
        own_kafka.restart_behind(network)
        write(30)
        all_sent()
        kill_connectors(first)
        kill_connectors(second)
        own_kafka.restart_behind(network)
        write(60)

        def exported(instance: Instance) -> Any:
            found = instance.objects("get", *(f"d{number}" for number in range(40)), "--library", "notes", status=None)
            return sorted((each["id"], each["metadata"], [chunk["text"] for chunk in each["chunks"]]) for each in found)

        def changes(instance: Instance) -> list[Any]:
            options = ("--from", "beginning", "--no-follow", "--library", "notes", "--type", "document.*")
            return [(each["type"], each["data"]["id"]) for each in instance.objects("watch", *options)]

        all_sent()
        last = messages_in(own_kafka.address, "replica")[-1].offset()
        assert last is not None
        applied(second, {"0": last + 1})
        assert len(exported(first)) > 20
        assert exported(second) == exported(first)
        assert changes(second) == changes(first)  # each change, once
