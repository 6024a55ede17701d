"""Named consumers and flush: cursors that the daemon keeps, and barriers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import VecError

from .watching import NO_MODEL, Watching, daemon, ids, past, put, read


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with daemon() as (made, client):
        put(client, *(f"d{number}" for number in range(10)))
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


def refused(client: Client, op: str, **fields: object) -> str:
    with pytest.raises(VecError) as refusal:
        client.request(op, **fields)
    return refusal.value.code


def test_a_consumer_goes_on_behind_what_it_acknowledged_also_after_a_kill() -> None:
    with Instance(NO_MODEL) as instance:
        process = instance.start()
        with instance.connect() as client:
            put(client, "a", "b", "c")
            events = Watching(client, "beginning", consumer="mirror").events(7)
            client.request("ack", consumer="mirror", cursor=f"{client.log}:{events[4]['seq']}")
        process.kill()
        process.wait()
        instance.start()
        with instance.connect() as client:
            assert past(client, consumer="mirror") == events[5:]


def test_an_ack_never_moves_a_consumer_backwards_and_a_reset_does(client: Client) -> None:
    Watching(client, "beginning", consumer="back")
    for seq, place in ((9, 9), (4, 9), (12, 12)):
        client.request("ack", consumer="back", cursor=f"{client.log}:{seq}")
        (shown,) = [each for each in client.request("consumers.list")["consumers"] if each["name"] == "back"]
        assert (shown["seq"], shown["lag"]) == (place, client.status()["seq"] - place)


def test_a_consumer_has_one_holder_who_is_named_to_the_second(instance: Instance, client: Client) -> None:
    held = Watching(client, consumer="mine")
    with instance.connect() as other:
        with pytest.raises(VecError) as refusal:
            Watching(other, consumer="mine")
        assert refusal.value.code == "consumer_held"
        assert "process" in refusal.value.message
        assert refused(other, "consumers.reset", consumer="mine", to="now") == "consumer_held"
        assert refused(other, "consumers.delete", consumer="mine") == "consumer_held"
        client.request("cancel", target=held.pending.number)
        assert held.rest()[1]["reason"] == "cancelled"
        Watching(other, consumer="mine")


def test_acks_of_another_log_of_the_future_and_of_nobody_are_refused(client: Client) -> None:
    Watching(client, consumer="strict")
    head = client.status()["seq"]
    for cursor, code in (("0123:1", "foreign_cursor"), (f"{client.log}:{head + 1}", "foreign_cursor")):
        assert refused(client, "ack", consumer="strict", cursor=cursor) == code
    assert refused(client, "ack", consumer="strict", cursor="nonsense") == "invalid_cursor"
    assert refused(client, "ack", consumer="nobody", cursor=f"{client.log}:1") == "not_found"


def test_a_consumer_that_is_reset_into_a_snapshot_goes_on_in_it(client: Client) -> None:
    with_libraries, end = read(client, snapshot=True, limit=4)
    assert end["reason"] == "done"
    held = Watching(client, consumer="mirror")
    client.request("cancel", target=held.pending.number)
    held.rest()
    client.request("consumers.reset", consumer="mirror", to=end["cursor"])
    rest = past(client, "now", consumer="mirror")
    assert ids(with_libraries + rest, "snapshot.document") == [f"d{number}" for number in range(10)]
    assert rest[-1]["type"] == "snapshot.end"


def test_where_a_consumer_is_counts_even_if_where_it_began_was_trimmed_away() -> None:
    with daemon() as (_, client):
        put(client, "a", "b")
        held = Watching(client, "-1h", consumer="old")
        held.events(5)
        client.request("ack", consumer="old", cursor=held.cursor)
        client.request("cancel", target=held.pending.number)
        held.rest()
        put(client, "c")
        client.request("trim", keep_count=2)
        with pytest.raises(VecError) as refusal:
            past(client, "-1h")
        assert refusal.value.code == "compacted"
        assert ids(past(client, "-1h", consumer="old")) == ["c"]


def test_a_flush_answers_when_all_that_was_committed_before_it_has_been_delivered(client: Client) -> None:
    """Also to one whose filter lets nothing of it through."""
    wide, narrow = Watching(client), Watching(client, types=["library.deleted"])
    for turn in range(20):
        seq = put(client, f"flush-{turn}", text=f"turn {turn}")
        for watching in (wide, narrow):
            answer = client.request("flush", target=watching.pending.number, timeout_s=60)
            assert int(answer["cursor"].split(":")[1]) >= seq
        got = [event for reply in wide.pending._replies for event in reply.body]
        assert f"flush-{turn}" in ids(got), "flushed, and not here"


def test_a_flush_of_a_consumer_waits_for_its_ack(instance: Instance, client: Client) -> None:
    watching = Watching(client, consumer="slow")
    put(client, "waited-for", text="anew")
    watching.events(2)
    assert refused(client, "flush", consumer="slow", timeout_s=0.01) == "timeout"
    with instance.connect() as other:
        pending = other.submit("flush", consumer="slow", timeout_s=60)
        client.request("ack", consumer="slow", cursor=watching.cursor)
        assert pending.result()["cursor"] == watching.cursor
    assert refused(client, "flush", consumer="nobody") == "not_found"
    assert refused(client, "flush", target=4_711) == "not_found"
