"""However a watch ends, its last cursor goes on exactly there; and one connection does many things at once."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client

from .test_snapshots import Writing
from .watching import Event, Watching, daemon, ids, past, put, read, seqs


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with daemon() as (made, _):
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


@pytest.mark.parametrize("types", [None, ["chunk.added"]])
def test_watches_that_end_at_any_moment_are_taken_up_without_a_gap_or_a_double(
    instance: Instance, client: Client, types: list[str] | None
) -> None:
    """By a timeout, a limit, a cancel, or the connection's end; far behind the head and near it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    begin = cursor = f"{client.log}:{client.status()['seq']}"
    told: list[Event] = []
    with Writing(instance, seed):
        for turn in range(150):
            how = turn % 4
            if how == 0:
                more, end = read(client, cursor, types=types, timeout_s=chance.choice((0, 0.001, 0.01, 0.05)))
            elif how == 1:
                more, end = read(client, cursor, types=types, limit=chance.randrange(1, 200), timeout_s=60)
            elif how == 2:
                watching = Watching(client, cursor, types=types)
                more = list(watching.first.body)
                client.request("cancel", target=watching.pending.number)
                rest, end = watching.rest()
                more += rest
            else:
                with instance.connect() as other:
                    watching = Watching(other, cursor, types=types)
                    more = [*watching.first.body, *watching.page().body]
                    end = {"cursor": watching.cursor}
            told += more
            cursor = end.get("cursor", cursor)  # none if it ended before it began
    told += past(client, cursor, types=types)
    assert seqs(told) == seqs(past(client, begin, types=types))
    assert len(told) > 200


def test_one_connection_watches_writes_and_searches_and_a_cancel_ends_one_watch_alone(client: Client) -> None:
    watches = [Watching(client) for _ in range(3)]
    writes = [
        client.submit("ingest", library="default", documents=[{"id": f"two-way-{n}", "text": f"word {n}"}])
        for n in range(20)
    ]
    client.request("cancel", target=watches[0].pending.number)
    assert watches[0].rest()[1]["reason"] == "cancelled"
    assert client.request("cancel", target=watches[0].pending.number) == {"cancelled": False}
    assert writes[7].result()["added"] == 1
    search = client.submit("search", library="default", query="word 7", k=5, mode="text")
    assert [write.result()["added"] for write in writes[:7] + writes[8:]] == [1] * 19
    assert search.result()["hits"][0]["document_id"] == "two-way-7"
    for watching in watches[1:]:
        assert ids(watching.events(40)) == [f"two-way-{n}" for n in range(20)]


def test_a_watch_from_now_has_all_that_its_sender_writes_behind_it(client: Client) -> None:
    """Also if its filters take long to parse."""
    long = " or ".join(f"n = {number}" for number in range(1_000))
    for where in ([], [long]):
        for turn in range(10):
            watch = client.submit("watch", where=where, types=["document.*"], limit=1, timeout_s=60)
            put(client, "behind", text=f"{len(where)} {turn}", metadata={"n": 1})
            got = [event for reply in watch.parts() if reply.kind == "items" for event in reply.body]
            assert ids(got) == ["behind"]


def test_watchers_of_many_different_views_each_get_what_theirs_lets_through(client: Client) -> None:
    count = 60
    watches = [Watching(client, where=[f"of = {number}"], types=["document.*"]) for number in range(count)]
    for turn in range(3):
        documents = [
            {"id": f"view-{number}", "text": f"turn {turn}", "metadata": {"of": number}} for number in range(count)
        ]
        client.ingest(documents)
    for number, watching in enumerate(watches):
        assert ids(watching.events(3)) == [f"view-{number}"] * 3


def test_whoever_goes_in_the_middle_of_catching_up_leaves_nothing_behind(instance: Instance, client: Client) -> None:
    put(client, *(f"left-{number}" for number in range(3_000)))
    before = client.status()["watchers"]
    for _ in range(20):
        with instance.connect() as other:
            Watching(other, "beginning", payload=True)
    until(lambda: client.status()["watchers"] == before, "the watches to end")
