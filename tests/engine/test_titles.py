"""Titles that are similar to a query, in a hybrid search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from vecd.client import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start()
        with instance.connect(timeout_s=60) as connected:
            yield connected


def found(client: Client, library: str, query: str, **fields: object) -> list[str]:
    return [hit["document_id"] for hit in client.search(query, library=library, **fields)]  # type: ignore[arg-type]


def test_a_title_that_says_what_is_asked_brings_its_document_to_the_front(client: Client) -> None:
    """The texts alone prefer the pages that mention the words in passing."""
    client.create_library("pages", embedder="wordllama")
    client.ingest(
        [
            {"id": "chown", "title": "chown - change file owner and group", "text": "Usage: OPTION, OWNER, FILE."},
            {"id": "tar", "title": "tar - an archiving utility", "text": "Force the owner of a file in an archive."},
            {"id": "cp", "title": "cp - copy files", "text": "Preserve the owner; do not change the file's owner."},
        ],
        "pages",
    )
    assert found(client, "pages", "who may possess a file: change file owner")[0] == "chown"
    explained = next(client.search("change file owner", library="pages", explain=True, k=1))["explain"]
    assert 0 < explained["title_score"] <= 0.3


def test_titles_count_in_a_search_of_several_libraries(client: Client) -> None:
    client.create_library("others", embedder="wordllama")
    client.ingest([{"id": "x", "title": "gardening", "text": "change file owner"}], "others")
    hits = client.search("change file owner", libraries=["pages", "others"], mode="hybrid", explain=True, k=10)
    scores = {hit["document_id"]: hit["explain"].get("title_score", 0) for hit in hits}
    assert scores["chown"] > scores["x"]


def test_without_titles_scores_are_those_of_the_ranks(client: Client) -> None:
    client.create_library("plain", embedder="wordllama")
    client.ingest([{"id": "a", "text": "rotate the logs"}], "plain")
    (hit,) = client.search("rotate the logs", library="plain")
    assert hit["score"] == pytest.approx(2.5 / 21, abs=1e-6)


def test_documents_with_and_without_titles_are_found_together(client: Client) -> None:
    client.create_library("mixed", embedder="wordllama")
    client.ingest(
        [{"id": "a", "text": "rotate the logs"}, {"id": "b", "title": "Logs", "text": "rotate them"}], "mixed"
    )
    assert sorted(found(client, "mixed", "rotate the logs")) == ["a", "b"]
