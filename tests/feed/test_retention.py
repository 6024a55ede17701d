"""Retention: what a trim lets go, what holds it, and the space that the vacuum gives back."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.test_old_stores import DATA
from tests.support import history
from tests.support.instance import Instance
from tests.support.vectors import create
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

from .watching import NO_MODEL, Watching, daemon, ids, past, put, seqs

#: Stores of schemas that had no map of their free pages.
_STORES = [DATA / "schema-1.db.gz", DATA / "schema-2.db.gz"]


@pytest.fixture
def instance() -> Iterator[Instance]:
    with daemon() as (made, _):
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


def oldest(client: Client) -> str:
    """The cursor that all that is left is behind."""
    with pytest.raises(VecError) as refusal:
        past(client)
    assert refusal.value.code == "compacted"
    cursor: str = refusal.value.details["oldest"]
    return cursor


def test_a_trim_by_count_keeps_at_least_so_many_and_never_half_a_document(client: Client) -> None:
    for turn in range(5):
        put(client, "a", texts=None, text=f"turn {turn}" * 300)
    whole = past(client)
    starts = {event["seq"] for event in whole if not event["type"].startswith("chunk.")}
    for keep in range(len(whole) - 1, -1, -1):
        client.request("trim", keep_count=keep)
        kept = past(client, oldest(client))
        assert kept == whole[len(whole) - len(kept) :]
        assert len(kept) >= keep
        assert not kept or kept[0]["seq"] in starts
        following = [seq for seq in sorted(starts) if seq > whole[-1]["seq"] - keep]
        first = kept[0]["seq"] if kept else whole[-1]["seq"] + 1
        assert not following or first <= following[0], "it kept more than it had to"


def test_a_trim_by_age_lets_go_of_what_is_older(client: Client) -> None:
    put(client, "a")
    (answer,) = [client.request("trim", keep_age_s=3_600)]
    assert answer["trimmed"] == 0
    seq = client.status()["seq"]
    assert client.request("trim", keep_age_s=0)["trimmed"] == seq
    put(client, "b")
    assert ids(past(client, oldest(client))) == ["b"]


def test_a_trim_by_bytes_keeps_the_newest_that_fit(client: Client) -> None:
    for turn in range(20):
        put(client, "a", text=f"{turn:04}" * 25_000)
    assert client.request("trim", keep_bytes=10_000_000)["trimmed"] == 0
    client.request("trim", keep_bytes=550_000)
    kept = ids(past(client, oldest(client)))
    assert len(kept) == 2  # each keeps what it replaced: 100,000 bytes of text, and as much of vectors
    client.request("trim", keep_bytes=0)
    assert past(client, oldest(client)) == []


def test_a_trim_stops_at_the_hindmost_consumer_and_names_it(instance: Instance, client: Client) -> None:
    put(client, *"abc")
    with instance.connect() as other:
        for name, seq in (("behind", 3), ("ahead", 5)):
            Watching(other, f"{client.log}:{seq}", consumer=name)
    put(client, *"def")
    answer = client.request("trim", keep_count=0)
    assert (answer["held_by"], answer["oldest"]) == ("behind", f"{client.log}:3")
    assert ids(past(client, answer["oldest"])) == [*"bcdef"]
    answer = client.request("trim", keep_count=0, past_consumers=True)
    assert answer["held_by"] is None
    assert answer["oldest"] == f"{client.log}:{client.status()['seq']}"
    with instance.connect() as other:
        with pytest.raises(VecError) as refusal:
            Watching(other, consumer="behind").page()
        assert refusal.value.code == "compacted"
        watching = Watching(other, consumer="behind", on_gap="oldest", follow=False)
        assert watching.rest() == ([], {"reason": "done", "cursor": answer["oldest"]})


def test_whoever_reads_slowly_is_told_that_a_trim_overtook_them(instance: Instance, client: Client) -> None:
    texts = [f"{number:04}" * 500 for number in range(4_000)]
    for start in range(0, len(texts), 500):
        client.ingest([{"id": f"d{n}", "text": texts[n]} for n in range(start, start + 500)])
    with instance.connect() as other:
        slow = Watching(other, "beginning", payload=True)
        client.request("trim", keep_count=10, wait=True)
        got: list[dict[str, Any]] = list(slow.first.body)

        def read_on() -> None:
            while True:
                got.extend(slow.page().body)

        with pytest.raises(VecError) as refusal:
            read_on()
        assert refusal.value.code == "compacted"
        assert refusal.value.details["oldest"] == oldest(client)
    assert seqs(got) == list(range(1, len(got) + 1))
    assert [event["data"]["document"]["chunks"][0]["text"] for event in got if event["type"] == "document.added"] == [
        text[:1_000] for text in texts[: len(ids(got))]
    ]


def test_a_gap_is_bridged_as_it_was_asked_for(client: Client) -> None:
    put(client, *"abc")
    client.request("trim", keep_count=2)
    told = past(client, on_gap="oldest")
    assert ids(told) == ["c"]
    state = past(client, on_gap="snapshot")
    assert ids(state, "snapshot.document") == ["a", "b", "c"]


def test_the_vacuum_gives_space_back_to_the_disk(instance: Instance, client: Client) -> None:
    create(client, "big", dimension=1_024)
    for turn in range(6):
        rows = [{"id": f"d{n}", "text": f"{turn}", "vector": b"\0\0\x80?" * 1_024} for n in range(1_000)]
        client.ingest(rows, "big")
    client.request("library.create", library="gone", embedder="none", dimension=1_024)
    client.ingest(rows, "gone")
    client.request("library.delete", library="gone")
    size = instance.settings.store.stat().st_size
    answer = client.request("trim", keep_count=0, wait=True)
    assert answer["free_bytes"] == 0
    assert answer["bytes"] == instance.settings.store.stat().st_size
    assert answer["bytes"] < size / 3
    assert history.tables(client)["big"] == {f"d{n}": 1 for n in range(1_000)}


def test_writers_are_let_in_between_the_steps_of_a_vacuum(instance: Instance, client: Client) -> None:
    create(client, "big", dimension=8)
    for turn in range(10):
        client.ingest([{"id": f"d{n}", "text": f"{turn}", "vector": [1.0] * 8} for n in range(4_000)], "big")
    done = threading.Event()

    def trim() -> None:
        with instance.connect() as other:
            other.request("trim", keep_count=0, wait=True)
        done.set()

    trimming = threading.Thread(target=trim)
    trimming.start()
    written = 0
    while not done.is_set():
        put(client, f"between-{written}")
        written += 1
    trimming.join()
    assert written > 10


@pytest.mark.parametrize("path", _STORES, ids=lambda path: path.name)
def test_a_store_of_an_earlier_version_uses_its_free_space_again(path: Path) -> None:
    with Instance(NO_MODEL) as instance:
        instance.settings.data.mkdir(mode=0o700)
        instance.settings.store.write_bytes(gzip.decompress(path.read_bytes()))
        instance.start()
        with instance.connect() as client:
            create(client, "new", dimension=64)

            def write(turn: int) -> None:
                client.ingest([{"id": f"d{n}", "text": f"{turn}", "vector": [1.0] * 64} for n in range(2_000)], "new")

            sizes = []
            for turn in range(6):
                write(turn)
                sizes.append(client.request("trim", keep_count=0, wait=True)["bytes"])
            assert sizes[-1] <= sizes[1] * 1.1
            assert past(client, on_gap="oldest") == []


def test_the_settings_hold_the_log(tmp_path: Path) -> None:
    with Instance({**NO_MODEL, "VEC_KEEP_COUNT": "10"}) as instance:
        process = instance.start()
        with instance.connect() as client:
            put(client, *(f"d{n}" for n in range(50)))
        process.terminate()
        assert process.wait() == 0
        instance.start()
        with instance.connect() as client:
            until(lambda: _trimmed(client), "a trim by the settings")
            assert len(past(client, oldest(client))) == 10


def _trimmed(client: Client) -> bool:
    try:
        past(client)
    except VecError as error:
        return error.code == "compacted"
    return False
