"""Redis through the real door: vec relay and vec source, the daemon, a real server, redis-py as another program."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.connectors.test_relay import connector_pids, put, relay
from tests.connectors.test_source import source
from tests.support.brokers import RedisServer, fresh_name
from tests.support.instance import Instance
from tests.support.waiting import until


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


class Stream:
    """A stream, as another program sees it."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.url = f"{server.url}/{name}"
        self.name = name
        self.client: Any = redis.Redis(port=server.port, protocol=2)

    def entries(self) -> list[tuple[str, Any]]:
        """Ids and events."""
        return [(its_id.decode(), json.loads(fields[b"body"])) for its_id, fields in self.client.xrange(self.name)]

    def last_id(self) -> str:
        last: bytes = self.client.xinfo_stream(self.name)["last-generated-id"]
        return last.decode()

    def events(self) -> list[Any]:
        return [event for _, event in self.entries()]


@pytest.fixture
def stream(redis_server: RedisServer) -> Iterator[Stream]:
    made = Stream(redis_server, fresh_name("events"))
    yield made
    made.client.close()


def test_a_relay_adds_each_event_of_the_log_as_vec_watch_prints_it(instance: Instance, stream: Stream) -> None:
    put(instance, "before")
    instance.vec("relay", "add", "out", stream.url, "--from", "beginning")
    put(instance, "a", "b")
    instance.vec("delete", "a")
    watched = instance.objects("watch", "--from", "beginning", "--no-follow")
    until(lambda: len(stream.entries()) >= len(watched), "the last entry")
    assert stream.entries() == [(f"{event['seq']}-0", event) for event in watched]
    until(lambda: relay(instance)["lag"] == 0, "the stored position")


def test_a_consumer_group_gets_each_event_once_however_often_the_relay_is_killed(
    instance: Instance, stream: Stream
) -> None:
    """The process of the connectors dies again and again in the middle of its work."""
    instance.vec("relay", "add", "out", stream.url, "--type", "document.added")
    ended = threading.Event()

    def write() -> None:
        for number in range(40):
            put(instance, *(f"d{number}-{each}" for each in range(25)))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    kills = 0
    while not ended.is_set() or kills < 3:
        before = len(stream.entries())
        until(lambda: len(stream.entries()) > before or ended.is_set(), "another entry")  # noqa: B023
        for pid in until(lambda: connector_pids(instance), "the process"):
            with contextlib.suppress(ProcessLookupError):  # its end was seen late
                os.kill(pid, signal.SIGKILL)
        kills += 1
    writer.join()
    until(lambda: len(stream.entries()) >= 1_000, "the last entry")
    stream.client.xgroup_create(stream.name, "readers", id="0")
    ((_, entries),) = stream.client.xreadgroup("readers", "one", {stream.name: ">"}, count=5_000)
    got = [json.loads(fields[b"body"])["data"]["id"] for _, fields in entries]
    assert got == [f"d{number}-{each}" for number in range(40) for each in range(25)]


def test_a_relay_says_that_its_server_is_away_and_goes_on_when_it_is_back(
    instance: Instance, own_redis: RedisServer
) -> None:
    stream = Stream(own_redis, "events")
    instance.vec("relay", "add", "out", stream.url, "--type", "document.added")
    put(instance, "a")
    until(lambda: stream.entries(), "an entry")
    own_redis.kill()
    put(instance, "b", "c")
    shown = until(lambda: (found := relay(instance))["state"] == "retrying" and found, "the state")
    assert shown["error"]["message"].startswith(f"Redis at {own_redis.address} cannot be reached (Connection re")
    own_redis.start()
    until(lambda: len(stream.entries()) == 3, "the other entries")
    until(lambda: relay(instance)["state"] == "running", "the state")
    assert [event["data"]["id"] for event in stream.events()] == ["a", "b", "c"]
    stream.client.close()


def test_a_relay_into_anothers_stream_says_what_to_do(instance: Instance, stream: Stream) -> None:
    instance.vec("relay", "add", "first", stream.url)
    put(instance, "a")
    until(lambda: stream.entries(), "an entry")
    assert "first" in instance.vec("relay", "add", "second", stream.url, status=1).stderr
    instance.vec("relay", "remove", "first")
    instance.vec("relay", "add", "second", stream.url)
    shown = until(lambda: (found := relay(instance, "second"))["error"] and found, "an error")
    assert shown["state"] == "failing"
    assert "belongs to the relay 'first' of this log" in shown["error"]["message"]
    assert f"DEL {stream.name} {stream.name}:vec" in shown["error"]["hint"]


def test_cloudevents_and_payloads_go_to_a_stream(instance: Instance, stream: Stream) -> None:
    put(instance, "before")
    instance.vec(
        "relay", "add", "out", stream.url, "--format", "cloudevents", "--payload", "--type", "document.*",
        "-p", "maxlen=0",
    )  # fmt: skip
    put(instance, "a")
    until(lambda: stream.entries(), "an entry")
    ((_, fields),) = stream.client.xrange(stream.name)
    assert fields[b"content-type"] == b"application/cloudevents+json"
    event = json.loads(fields[b"body"])
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "document.added", "a")
    assert event["id"] == fields[b"vec-cursor"].decode()
    assert event["data"]["document"]["chunks"][0]["text"] == "text of a"


def test_what_cannot_be_a_stream_is_refused_at_once(instance: Instance, redis_server: RedisServer) -> None:
    for url, *more in (
        (redis_server.url,),
        (redis_server.url.replace("://", "://user:hunter2@") + "/x",),
        (redis_server.url + "/x", "-p", "maxlen=-1"),
        (redis_server.url + "/x", "-p", "ca_file=/etc/ssl/ca.pem"),
    ):
        said = instance.vec("relay", "add", "out", url, *more, status=2).stderr
        assert "hunter2" not in said
    assert instance.objects("relay", "list") == []


def test_a_source_applies_each_entry_once_however_often_its_process_is_killed(
    instance: Instance, stream: Stream
) -> None:
    """Each entry is applied once: a document that is written twice would have a second event."""
    instance.vec("source", "add", "in", stream.url, "--library", "notes")
    count = 400
    for number in range(count):
        stream.client.xadd(stream.name, {"body": json.dumps({"id": f"d{number % 50}", "text": f"version {number}"})})
        if number % 100 == 50:
            for pid in until(lambda: connector_pids(instance), "the process"):
                os.kill(pid, signal.SIGKILL)
    until(lambda: source(instance)["offsets"].get(stream.name) == stream.last_id(), "the last entry")
    changes = instance.objects(
        "watch", "--from", "beginning", "--no-follow", "--library", "notes", "--type", "document.*"
    )
    assert len(changes) == count
    assert [each["data"]["id"] for each in changes] == [f"d{number % 50}" for number in range(count)]
    (group,) = until(
        lambda: [each for each in stream.client.xinfo_groups(stream.name) if each["lag"] == 0],
        "the position at the server",
    )
    assert (group["name"], group["last-delivered-id"].decode()) == (b"vec-in", stream.last_id())
    assert until(lambda: (found := source(instance))["lag"] == 0 and found, "the lag")["dead_letters"] == 0


def test_an_entry_that_is_no_document_is_a_dead_letter_with_its_id(instance: Instance, stream: Stream) -> None:
    stream.client.xadd(stream.name, {"id": "a", "text": "all fields are one document"}, id="5-1")
    stream.client.xadd(stream.name, {"body": "not JSON"}, id="6-1")
    stream.client.xadd(stream.name, {"body": '{"id": "b", "text": "good"}'}, id="7-1")
    instance.vec("source", "add", "in", stream.url, "--library", "notes")
    until(lambda: source(instance)["offsets"].get(stream.name) == "7-1", "the last entry")
    (letter,) = instance.objects("source", "dead", "in")
    assert "6-1" in letter["position"]
    assert sorted(each["id"] for each in instance.objects("list", "--library", "notes")) == ["a", "b"]


@pytest.mark.parametrize("form", ["vec", "cloudevents"])
def test_a_relay_and_a_source_keep_a_replica_while_redis_restarts_between_them(
    own_redis: RedisServer, form: str
) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as first, Instance({"VEC_EMBEDDER": "hash"}) as second:
        stream = Stream(own_redis, "replica")
        for each in (first, second):
            each.start()
        first.vec("library", "create", "notes")
        first.vec("relay", "add", "out", stream.url, "--library", "notes", "--payload", "--format", form)
        second.vec("source", "add", "in", stream.url, "--library", "notes")

        def write(start: int) -> None:
            with first.connect() as client:
                for number in range(start, start + 30):
                    client.ingest(
                        [{"id": f"d{number % 40}", "text": f"text {number}", "metadata": {"n": number}}], "notes"
                    )
                    if number % 7 == 0:
                        client.delete([f"d{(number - 3) % 40}"], library="notes")

        write(0)
        own_redis.restart(killed=True)
        write(30)
        own_redis.restart()
        write(60)

        def exported(instance: Instance) -> Any:
            found = instance.objects("get", *(f"d{number}" for number in range(40)), "--library", "notes", status=None)
            return sorted(
                ((each["id"], each["metadata"], [chunk["text"] for chunk in each["chunks"]]) for each in found if each),
                key=lambda each: each[0],
            )

        until(lambda: relay(first)["lag"] == 0, "the relay's position")
        until(lambda: source(second)["offsets"].get("replica") == stream.last_id(), "the source's position")
        assert exported(first)
        assert exported(second) == exported(first)
        stream.client.close()
