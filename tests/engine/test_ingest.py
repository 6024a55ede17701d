"""What a request's documents do to each other, through the real socket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support import history
from tests.support.instance import Instance
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError
from vecd.wire.vectors import pack_vector

_NAMES = (f"library-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start()
        with instance.connect() as connected:
            yield connected


@pytest.mark.parametrize(
    "refused",
    [
        {"id": 5.5, "vector": [1.0, 2.0]},
        {"id": "x", "vector": [1.0, float("nan")]},
        {"id": "x", "vector": [1e30, 1.0]},
        {"id": "x", "texts": ["one", "two"], "vectors": [[1.0, 2.0]]},
    ],
)
def test_a_refused_document_does_not_set_the_dimension(client: Client, refused: dict[str, object]) -> None:
    name = next(_NAMES)
    client.request("library.create", library=name, embedder="none")
    answer = client.ingest([refused, {"id": "good", "vector": [1.0, 2.0, 3.0]}], name)
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [0])


def test_a_library_made_anew_takes_the_writes_behind_it(client: Client) -> None:
    name = next(_NAMES)
    client.request("library.create", library=name, embedder="hash")
    pending = [
        client.submit("library.delete", library=name),
        client.submit("library.create", library=name, embedder="none"),
        client.submit("ingest", library=name, documents=[{"id": "a", "vector": pack_vector([1.0, 2.0])}]),
    ]
    assert [each.result() for each in pending][2]["added"] == 1


def test_a_default_that_was_deleted_is_made_by_its_defaults_and_not_by_a_delete(client: Client) -> None:
    client.request("library.create", library="default", embedder="none", metric="l2")
    pending = [
        client.submit("library.delete", library="default"),
        client.submit("ingest", documents=[{"op": "delete", "id": "nobody"}]),
        client.submit("library.list"),
        client.submit("ingest", documents=[{"id": "a", "text": "some text"}]),
    ]
    answers = [each.result() for each in pending]
    assert answers[1]["unchanged"] == 1
    assert answers[3]["added"] == 1
    assert client.request("library.show", library="default")["metric"] == "cosine"


def test_a_request_with_more_chunks_than_a_part_is_done_in_order_and_whole(client: Client) -> None:
    name = next(_NAMES)
    client.request("library.create", library=name, embedder="hash")
    documents = [
        {"id": f"d{n % 7}", "texts": [f"{n} {chunk}" for chunk in range(n % 3 * 1_000 + 1)]} for n in range(40)
    ]
    documents.insert(20, {"id": "bad", "texts": []})
    assert sum(len(each["texts"]) for each in documents) > 3 * limits.PART_CHUNKS
    answer = client.request("ingest", library=name, documents=documents, detail=True)
    assert [each["index"] for each in answer["documents"]] == [n for n in range(41) if n != 20]
    assert [each["index"] for each in answer["errors"]] == [20]
    last: dict[str, object] = {str(each["id"]): each["texts"] for each in documents if each["id"] != "bad"}
    for document in client.get(sorted(last), name):
        assert document is not None
        assert [chunk["text"] for chunk in document["chunks"]] == last[document["id"]]
    history.check(client)


def test_strict_writes_what_is_before_the_first_refused_and_nothing_behind_it(client: Client) -> None:
    name = next(_NAMES)
    client.request("library.create", library=name, embedder="hash")
    documents = [{"id": "a", "text": "x"}, {"id": "b"}, {"id": "c", "text": "x"}, {"id": "d"}]
    answer = client.request("ingest", library=name, documents=documents, strict=True)
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [1])
    assert client.count(name)["documents"] == 1


def test_a_library_deleted_under_searches_gives_not_found_and_nothing_else(client: Client) -> None:
    for _ in range(20):
        name = next(_NAMES)
        client.request("library.create", library=name, embedder="hash")
        client.ingest([{"id": f"d{n}", "text": f"word {n}"} for n in range(50)], name)
        pending = [client.submit("search", library=name, query="word 7", mode=mode) for mode in ("text", "hybrid")]
        pending.append(client.submit("library.delete", library=name))
        pending += [client.submit("search", library=name, query="word 7", mode="hybrid") for _ in range(10)]
        for each in pending:
            try:
                each.result()
            except VecError as error:
                assert error.code == "not_found", error


def test_a_deleted_document_is_not_found_after_a_restart_in_whatever_order_ids_came() -> None:
    with Instance() as instance:
        for _ in range(2):
            daemon = instance.start()
            with instance.connect() as client:
                client.ingest([{"id": "z", "text": "word one"}, {"id": "a", "text": "word two"}])
                assert {hit["document_id"] for hit in client.search("word")} == {"a", "z"}
                client.delete(["z"])
                assert {hit["document_id"] for hit in client.search("word", mode="vector")} == {"a"}
            daemon.terminate()
            daemon.wait()


@pytest.mark.parametrize(
    "start", ["0001-01-01", "9999-12-31T23:59:59+23:59", "-" + "9" * 400 + "s", "ab:" + "9" * 5_000]
)
def test_an_odd_position_is_no_bug(client: Client, start: str) -> None:
    try:
        for _ in client.watch(start, follow=False):
            pass
    except VecError as error:
        assert error.code == "invalid_cursor", error


def test_an_ingest_of_nothing_changes_nothing_and_is_no_bug(client: Client) -> None:
    client.create_library("empty", embedder="hash")
    for _ in range(2):  # before the library has a dimension, and after
        assert client.ingest([], "empty")["seq"] >= 0
        client.ingest([{"id": "a", "text": "text"}], "empty")
    assert client.count("empty")["documents"] == 1
