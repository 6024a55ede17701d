"""Payloads: documents as they were at their events, whatever has become of them since, in frames that can be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.instance import Instance
from tests.support.vectors import create
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError

from .watching import Event, Watching, daemon, past, put

#: As long as an id may be, in characters of four bytes each.
LONG_ID = "\N{GRINNING FACE}" * (limits.ID_BYTES_MAX // 4)


@pytest.fixture
def instance() -> Iterator[Instance]:
    with daemon() as (made, _):
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


def of_documents(events: list[Event]) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["type"].startswith("document.")]


def texts(document: dict[str, Any] | None) -> list[str]:
    assert document is not None
    return [chunk["text"] for chunk in document["chunks"]]


def test_a_payload_is_the_document_as_it_was_then_and_what_it_replaced(client: Client) -> None:
    for turn in range(4):
        put(client, "a", text=f"turn {turn}", metadata={"turn": turn}, title=f"title {turn}")
    client.delete(["a"])
    told = of_documents(past(client, payload=True))
    for turn, data in enumerate(told[:4]):
        assert texts(data["document"]) == [f"turn {turn}"]
        assert (data["document"]["metadata"], data["document"]["title"]) == ({"turn": turn}, f"title {turn}")
    assert [texts(data["replaced"]) for data in told[1:]] == [[f"turn {turn}"] for turn in range(4)]
    assert "replaced" not in told[0]
    assert "document" not in told[4]
    assert all("replaced" not in data for data in of_documents(past(client, payload=True, replaced=False)))


def test_a_payload_stays_exact_behind_a_vacuum(client: Client) -> None:
    for turn in range(6):
        put(client, "a", "b", text=f"turn {turn}")
    whole = past(client, payload=True)
    client.request("trim", keep_count=11, wait=True)  # in the middle of a change, which stays whole
    with pytest.raises(VecError) as refusal:
        past(client)
    oldest = refusal.value.details["oldest"]
    kept = past(client, oldest, payload=True)
    assert kept == whole[-len(kept) :]
    assert len(kept) >= 11
    assert kept[0]["type"] == "document.updated"
    (first, *_) = of_documents(kept)
    assert texts(first["replaced"]) == ["turn 3"]


def test_the_vectors_of_a_payload_are_those_that_were_given(client: Client) -> None:
    create(client, "raw", dimension=4)
    given = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    for row in given:
        client.ingest([{"id": "v", "vectors": [row, 2 * row], "texts": ["one", "two"]}], "raw")
    told = of_documents(past(client, libraries=["raw"], payload=True, vectors=True))
    for data, row in zip(told, given, strict=True):
        got = [np.frombuffer(chunk["vector"], "<f4") for chunk in data["document"]["chunks"]]
        assert np.array_equal(got, [row, 2 * row])


def test_odd_characters_come_as_they_were_given(client: Client) -> None:
    odd = ["a\u202eb", "\ud7ff", "\U0010ffff", "'\"; --", "%s", "a b", "#1", LONG_ID]
    put(client, *odd, text="n\0x\u2028", title="t\0u\u2028", metadata={"k\0": "v\0", "\u2028": [1, None]})
    there = client.get(odd)
    for data in (past(client, payload=True), past(client, "now", snapshot=True, payload=True)):
        told = [each["data"]["document"] for each in data if "document" in each["data"]]
        assert told == there


@pytest.mark.parametrize("fields", [{}, {"payload": True, "vectors": True}, {"payload": True, "types": ["chunk.*"]}])
def test_the_largest_document_with_the_longest_names_fits_a_frame(client: Client, fields: dict[str, Any]) -> None:
    """An update of it: twice its chunks' events, in one message. A payload that does not fit is left out by name."""
    library, vectors = "L" * limits.NAME_BYTES_MAX, [b"\0\0\x80?"] * limits.DOCUMENT_CHUNKS_MAX
    create(client, library, dimension=1)
    for text in ("one", "two"):
        client.ingest([{"id": LONG_ID, "texts": [text] * len(vectors), "vectors": vectors}], library)
    got = [reply.body for reply in client.pages("watch", follow=False, **{"from": "beginning", **fields})]
    sizes = [sum(event["type"].startswith("chunk.") for event in body) for body in got[:-1]]
    assert [size for size in sizes if size] == [len(vectors), 2 * len(vectors)]
    told = of_documents([event for body in got[:-1] for event in body])
    if fields and "types" not in fields:
        assert all(set(data.get("omitted", ())) | data.keys() >= {"document"} for data in told)
        assert texts(told[0]["document"]) == ["one"] * len(vectors)
        assert told[1]["omitted"] == ["document", "replaced"]


def test_a_watcher_of_chunks_alone_gets_their_texts(client: Client) -> None:
    put(client, "a", text="before")
    put(client, "a", text="after")
    told = past(client, types=["chunk.*"], payload=True)
    assert [(event["type"], event["data"]["text"]) for event in told] == [
        ("chunk.added", "before"), ("chunk.deleted", "before"), ("chunk.added", "after"),
    ]  # fmt: skip


def test_what_leaves_a_filter_is_told_of_once_and_as_having_left(client: Client) -> None:
    watching = Watching(client, where=["kind = 'x'"], types=["document.*"])
    for kind in ("x", "x", "y", "y", "x", None):
        put(client, "a", text=f"{client.status()['seq']}", metadata={"kind": kind} if kind else {})
    client.delete(["a"])
    put(client, "end", metadata={"kind": "x"})
    told = of_documents(watching.events(6))
    assert [(data["id"], data.get("left", False)) for data in told] == [
        ("a", False), ("a", False), ("a", True), ("a", False), ("a", True), ("end", False),
    ]  # fmt: skip
    assert of_documents(past(client, where=["kind = 'x'"])) == told


def test_an_answer_that_is_read_while_its_documents_go_has_the_others(instance: Instance, client: Client) -> None:
    """A search whose hits are read slowly meets a trim and its vacuum."""
    create(client, "raw", dimension=2)
    rows = [{"id": f"d{number}", "text": "x" * 8_000, "vector": [1.0, number / 1_000]} for number in range(1_000)]
    client.ingest(rows, "raw")
    hits = client.search(vector=[1.0, 0.0], k=1_000, library="raw", exact=True)
    found = [next(hits)["document_id"]]
    with instance.connect() as other:
        other.ingest([{**row, "text": "changed"} for row in rows[500:]], "raw")
        other.request("trim", keep_count=0, wait=True)
    found += [hit["document_id"] for hit in hits]
    assert found[:500] == [f"d{number}" for number in range(500)]
    assert set(found) <= {row["id"] for row in rows}
