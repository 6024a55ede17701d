"""Snapshots: the state as of one moment, then every later change, without a gap and without a double."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import VecError

from .watching import Event, Watching, daemon, ids, past, put, read

State = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def instance() -> Iterator[Instance]:
    with daemon() as (made, _):
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


def mirrored(events: list[Event]) -> State:
    """The documents by library and id, after a snapshot and what came behind it, all with payloads. Asserts that every
    change fits what was there."""
    state: State = {}
    libraries: set[str] = set()
    ended, seq = False, 0
    for event in events:
        kind, library, data = event["type"], event["library"], event["data"]
        key = (library, data.get("id"))
        if kind.startswith("snapshot."):
            assert not ended, "the state goes on behind its end"
            ended = kind == "snapshot.end"
            if kind == "snapshot.library":
                libraries.add(library)
            elif not ended:
                assert library in libraries
                assert key not in state, f"{key} comes twice"
                state[key] = data["document"]
            else:
                assert set(data["libraries"]) == libraries
            seq = event["seq"]
            continue
        assert ended, "a change in the middle of the state"
        assert event["seq"] == seq + 1
        seq = event["seq"]
        if kind == "library.created":
            libraries.add(library)
        elif kind == "library.deleted":
            libraries.remove(library)
            state = {each: document for each, document in state.items() if each[0] != library}
        elif kind.startswith("document."):
            assert state.pop(key, None) == data.get("replaced"), f"{kind} of {key}"
            if kind != "document.deleted":
                state[key] = data["document"]
    return state


def stored(client: Client) -> State:
    """The documents as they are."""
    found: State = {}
    for library in [each["name"] for each in client.request("library.list")["libraries"]]:
        listed = [each["id"] for each in client.items("list", "documents", library=library)]
        for start in range(0, len(listed), 1_000):
            for document in client.get(listed[start : start + 1_000], library):
                assert document is not None
                found[library, document["id"]] = document
    return found


class Writing(threading.Thread):
    """Adds, changes and deletes documents, and makes and deletes a library, until it is told to stop."""

    def __init__(self, instance: Instance, seed: int) -> None:
        super().__init__()
        self._instance = instance
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self._instance.connect() as client:
                while not self._over.is_set():
                    self._write(client)
        except BaseException as failure:
            self.failure = failure

    def _write(self, client: Client) -> None:
        chance = self._chance
        if chance.random() < 0.03:
            client.request("library.create", library="passing")
            put(client, *(f"d{number}" for number in range(20)), library="passing")
            client.request("library.delete", library="passing")
            return
        some = [f"d{chance.randrange(3_000)}" for _ in range(chance.randrange(1, 30))]
        if chance.random() < 0.3:
            client.delete(some)
        else:
            put(client, *some, text=f"{chance.random()}", metadata={"n": chance.random()})

    def __enter__(self) -> Writing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("limit", [None, 170])
def test_a_snapshot_among_writers_and_what_follows_is_what_is_stored(
    instance: Instance, client: Client, limit: int | None
) -> None:
    """In one go, or taken up again and again from its cursor while what it is of changes and goes."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for start in range(0, 3_000, 1_000):
        put(client, *(f"d{number}" for number in range(start, start + 1_000)), title="at first")
    told: list[Event] = []
    with Writing(instance, seed):
        begin: dict[str, Any] = {"snapshot": True}
        for _ in range(6 if limit is None else 40):
            seq = client.status()["seq"]
            if limit is None:
                started = Watching(client, payload=True, snapshot=True)
                told = list(started.first.body)
                while int(started.cursor.split("@")[0].split(":")[1]) < seq + 100:
                    told += started.page().body
                client.request("cancel", target=started.pending.number)
                more, end = started.rest()
                mirrored(told + more)
                told += more
            else:
                more, end = read(client, payload=True, limit=limit, timeout_s=60, **begin)
                assert len(more) == limit
                told += more
            begin = {"start": end["cursor"]}
    told += past(client, end["cursor"], payload=True)
    assert mirrored(told) == stored(client)
    assert ids(told, "snapshot.document")
    assert ids(told), "nothing was written meanwhile"


def test_a_limit_ends_a_snapshot_also_among_its_libraries(client: Client) -> None:
    for name in "xyz":
        client.request("library.create", library=name)
    put(client, "a", "b")
    for limit in range(1, 8):
        some, end = read(client, snapshot=True, follow=False, limit=limit)
        whole, _ = read(client, snapshot=True, follow=False)
        assert some == whole[:limit]
        rest = past(client, end["cursor"])
        assert ids(some + rest, "snapshot.document") == ["a", "b"]


def test_a_snapshot_whose_moment_was_trimmed_away_says_so_or_begins_anew(client: Client) -> None:
    put(client, *(f"d{number}" for number in range(2_000)))
    _, end = read(client, snapshot=True, limit=700)
    put(client, "d1", text="changed")
    client.request("trim", keep_count=0, wait=True)
    with pytest.raises(VecError) as refusal:
        past(client, end["cursor"])
    assert refusal.value.code == "compacted"
    told = past(client, end["cursor"], on_gap="snapshot", payload=True)
    assert mirrored(told) == stored(client)


def test_a_snapshot_with_a_filter_is_of_what_passes(client: Client) -> None:
    for parity in (0, 1):
        put(client, *(f"d{number}" for number in range(parity, 1_500, 2)), metadata={"parity": parity})
    told = past(client, "now", snapshot=True, where=["parity = 1"], libraries=["default"])
    assert sorted(ids(told, "snapshot.document")) == sorted(f"d{number}" for number in range(1, 1_500, 2))
    assert [event["type"] for event in told if event["type"] != "snapshot.document"] == [
        "snapshot.library",
        "snapshot.end",
    ]
