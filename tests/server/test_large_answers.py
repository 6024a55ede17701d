"""Answers larger than a frame come as a stream; a document's events are never split."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import history
from tests.support.instance import Instance
from vecd import limits
from vecd.client import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start()
        with instance.connect() as connected:
            connected.request("library.create", library="default", embedder="hash")
            yield connected


def test_search_get_and_list_give_more_than_a_frame_holds(client: Client) -> None:
    count, size = 150, 200_000
    assert count * size > limits.FRAME_BYTES_MAX
    for start in range(0, count, 30):
        client.ingest(
            [
                {"id": f"d{n:03}", "text": "word", "metadata": {"n": n, "x": "y" * size}}
                for n in range(start, start + 30)
            ]
        )
    ids = [f"d{n:03}" for n in range(count)]
    assert [each["document_id"] for each in client.search("word", k=count, mode="vector")] == ids
    assert [each["id"] for each in client.get(ids) if each is not None] == ids
    assert [each["id"] for each in client.items("list", "documents", library="default")] == ids


def test_the_largest_document_and_its_events_travel_whole(client: Client) -> None:
    largest = "i" * limits.ID_BYTES_MAX
    texts = [f"chunk {n}" for n in range(limits.DOCUMENT_CHUNKS_MAX)]
    assert client.ingest([{"id": largest, "title": "t" * limits.TITLE_BYTES_MAX, "texts": texts}])["added"] == 1
    assert client.ingest([{"id": largest, "title": "t" * limits.TITLE_BYTES_MAX, "texts": texts[::-1]}])["updated"] == 1
    assert history.check(client)["default"][largest] == len(texts)
    open_document = None
    for reply in client.pages("watch", **{"from": "beginning", "follow": False}):
        for event in reply.body if reply.kind == "items" else ():
            if event["type"].startswith("document."):
                open_document = event["data"]["id"]
            elif event["type"].startswith("chunk."):
                assert event["data"]["document_id"] == open_document
        open_document = None  # a frame must not begin with the chunks of another frame's document
