"""URLs, parameters and definitions of connectors: what is accepted, what is refused; no error shows a secret."""

from __future__ import annotations

import json

import pytest

from vecd.connectors import definition, messages, table
from vecd.connectors.definition import Direction, RelayDefinition, SourceDefinition
from vecd.connectors.transport import Transport
from vecd.connectors.url import Host, parse
from vecd.errors import Code, VecError


def test_a_url_has_hosts_a_path_and_a_query() -> None:
    url = parse("kafka://me@one:9092,two/a%20topic?x=1")
    assert (url.scheme, url.user, url.hosts) == ("kafka", "me", (Host("one", 9092), Host("two")))
    assert (url.path, url.query) == ("a topic", "x=1")
    assert list(url.addresses(9092)) == ["one:9092", "two:9092"]
    assert parse("redis:///events").host == "localhost"
    assert parse("amqp://[::1]:5672/x").hosts == (Host("::1", 5672),)


@pytest.mark.parametrize(
    "text", ["redis://me:hunter2@host/x", "redis://:hunter2@host/x", "redis://me:hunter2@host:0/x#y", "me:hunter2@host"]
)
def test_a_password_in_a_url_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(VecError) as caught:
        table.check("relay", text, {})
    assert caught.value.code == Code.INVALID_REQUEST
    assert "hunter2" not in json.dumps(caught.value.to_wire())


@pytest.mark.parametrize("text", ["", "events", "redis://a b/x", "redis://host:99999/x", "redis://host/x#part", "\n"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(VecError) as caught:
        parse(text)
    assert caught.value.code == Code.INVALID_REQUEST
    assert caught.value.details["field"] == "url"


def test_an_unknown_scheme_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(VecError, match="unknown scheme 'fil'") as caught:
        table.check("relay", "fil:///tmp/x", {})
    assert caught.value.code == Code.UNSUPPORTED
    assert caught.value.hint == "did you mean file://?"


def test_a_definition_survives_the_wire() -> None:
    relay = RelayDefinition(name="a", url="file:///x", types=("document.*",), payload=True, generation=3)
    source = SourceDefinition(name="b", url="file:///x", library="notes", mapping={"id": "url"}, paused=True)
    for each in (relay, source):
        assert definition.from_wire(json.loads(json.dumps(each.to_wire()))) == each


def test_a_message_carries_its_cursor_type_and_log_and_is_keyed_by_its_document() -> None:
    event = {
        "seq": 7, "cursor": "ab:7", "type": "document.deleted", "library": "notes", "time": "t",
        "data": {"id": "a/b", "title": None, "chunks": 1, "chunk_ids": ["a/b#0"]},
    }  # fmt: skip
    (message,) = messages.encode([event], "vec", "ab")
    assert message.key == b"notes/a/b"
    assert message.deleted
    assert dict(message.headers) == {
        "vec-cursor": "ab:7", "vec-type": "document.deleted", "vec-log": "ab", "vec-library": "notes", "vec-id": "a/b",
    }  # fmt: skip
    assert list(json.loads(message.body)) == ["seq", "cursor", "type", "library", "time", "data"]


@pytest.mark.parametrize(
    ("direction", "url", "name", "only"),
    [
        ("relay", "redis://localhost/events", "start", "source"),
        ("relay", "redis://localhost/events", "field", "source"),
        ("relay", "amqp://localhost/events", "prefetch", "source"),
        ("relay", "file:///tmp/out", "start", "source"),
        ("source", "redis://localhost/events", "maxlen", "relay"),
        ("source", "kafka://localhost/events", "exactly_once", "relay"),
        ("source", "amqp://localhost/events", "mandatory", "relay"),
        ("source", "nats://localhost/events", "create", "relay"),
    ],
)
def test_a_parameter_of_the_other_direction_is_refused(direction: Direction, url: str, name: str, only: str) -> None:
    with pytest.raises(VecError, match=f"is only for a {only}") as caught:
        table.check(direction, url, {name: "1"})
    assert (caught.value.code, caught.value.details["field"]) == (Code.INVALID_REQUEST, name)
    assert name not in (caught.value.hint or "").split()


@pytest.mark.parametrize("transport", table.TRANSPORTS.values(), ids=lambda each: each.name)
def test_the_parameters_of_one_direction_are_declared(transport: Transport) -> None:
    assert transport.of_relay | transport.of_source <= transport.parameters.keys()
    assert not transport.of_relay & transport.of_source


@pytest.mark.parametrize(
    ("url", "parameters", "good", "bad"),
    [
        ("redis://localhost/notes", {}, {"notes": "1700-0"}, [{"notes": "abc"}, {"foo": "1-0"}, {"notes": "1-"}]),
        ("nats://localhost/notes", {}, {"notes": "7"}, [{"notes": "1-0"}, {"foo": "7"}]),
        ("kafka://localhost/notes", {}, {"0": "7", "12": "0"}, [{"notes": "7"}, {"0": "-1"}]),
        ("amqp://localhost/notes", {"stream": True}, {"notes": "7"}, [{"notes": "x"}]),
        ("amqp://localhost/notes", {}, {}, [{"notes": "7"}]),
        ("file:///notes", {}, {"": "7"}, [{"notes": "7"}, {"": "7.5"}]),
    ],
)
def test_offsets_have_the_form_of_their_transport(
    url: str, parameters: dict[str, object], good: dict[str, str], bad: list[dict[str, str]]
) -> None:
    source = SourceDefinition(name="in", url=url, parameters=parameters, library="notes")
    table.check_offsets(source, good)
    for each in bad:
        with pytest.raises(VecError) as caught:
            table.check_offsets(source, each)
        assert (caught.value.code, caught.value.details["field"]) == (Code.INVALID_REQUEST, "offsets")


def test_two_relays_of_one_stream_of_redis_have_the_same_place_however_it_is_written() -> None:
    def place(url: str, **parameters: object) -> object:
        return table.place_of(RelayDefinition(name="a", url=url, parameters=parameters))

    assert place("redis://localhost/events") == place("redis://127.0.0.1:6379/events")
    assert place("redis://localhost/events") == place("rediss://me@LOCALHOST/events", db=0)
    assert place("redis://localhost/events") != place("redis://localhost/other")
    assert place("redis://localhost/events") != place("redis://localhost:7000/events")
    assert place("redis://localhost/events") != place("redis://localhost/events", db=1)
    assert place("kafka://localhost/events") is None
