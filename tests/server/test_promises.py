"""Recall as a promise, through the socket: what a library and a search can ask for, what is refused, what is logged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.vectors import create, drawn, put, rows, structured
from vecd.client import Client
from vecd.errors import VecError

_VECTORS = drawn(8_300, 16)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def told(client: Client, library: str) -> list[dict[str, Any]]:
    """The data of the library's `index.recall` events."""
    watched = client.watch("beginning", follow=False, types=["index.recall"], libraries=[library])
    return [event["data"] for event in watched]


def shown(client: Client, library: str) -> dict[str, Any]:
    return client.request("library.show", library=library)


# --- libraries ------------------------------------------------------------------------------------------------------


def test_a_library_promises_what_was_asked_of_it_and_says_so_in_its_event(client: Client) -> None:
    made = client.request("library.create", library="asked", recall=0.9, language="german")
    assert (made["recall"]["promise"], made["language"]) == (0.9, "german")
    assert (shown(client, "asked")["recall"]["promise"], shown(client, "asked")["language"]) == (0.9, "german")
    (event,) = client.watch("beginning", follow=False, types=["library.created"], libraries=["asked"])
    assert (event["data"]["recall"], event["data"]["language"]) == (0.9, "german")
    usual = client.request("library.create", library="usual")
    assert (usual["recall"]["promise"], usual["language"]) == (0.98, "english")


def test_the_promise_outlives_the_daemon(instance: Instance) -> None:
    with Instance({"VEC_EMBEDDER": "hash", "VEC_RECALL": "0.75", "VEC_LANGUAGE": "none"}) as own:
        for _ in range(2):
            daemon = own.start()
            with own.connect() as client:
                if not client.request("library.list")["libraries"]:
                    create(client, "kept")
                    client.request("library.create", library="other", recall=1, language="finnish")
                kept, other = client.request("library.list")["libraries"]
                assert (kept["recall"]["promise"], kept["language"]) == (0.75, "none")
                assert (other["recall"]["promise"], other["language"]) == (1.0, "finnish")
                client.request("shutdown")
            daemon.wait()


def test_another_promise_is_logged_and_builds_nothing(client: Client) -> None:
    library = create(client, "changed", dimension=16, index="flat")
    put(client, library, rows(_VECTORS[:100]))
    answer = client.request("library.rebuild", library=library, recall=0.9)
    assert (answer["recall"]["promise"], answer["vectors"], answer["seconds"]) == (0.9, 0, 0.0)
    assert told(client, library) == [
        {"promise": 0.9, "met": None, "queries": None, "mean": None, "p5": None, "worst": None, "effort": None}
    ]
    client.request("library.rebuild", library=library, recall=0.9)
    assert len(told(client, library)) == 1, "the same promise is no change"
    assert not list(client.watch("beginning", follow=False, types=["index.rebuilt"], libraries=[library]))
    both = client.request("library.rebuild", library=library, index="kdtree", recall=0.8)
    assert (both["index"], both["recall"]["promise"], both["vectors"]) == ("kdtree", 0.8, 100)
    assert [each["promise"] for each in told(client, library)] == [0.9, 0.8]
    history.check(client)


def test_a_job_changes_the_promise_too(client: Client) -> None:
    library = create(client, "by-job", dimension=16, index="flat")
    put(client, library, rows(_VECTORS[:100]))
    for params, vectors in (({"recall": 0.9}, 0), ({"recall": 0.8, "index": "kdtree"}, 100)):
        job_id = client.request("jobs.submit", kind="rebuild", params=params, library=library)["job_id"]
        waited = client.pages("jobs.wait", job_ids=[job_id])
        (done,) = [reply.body[0] for reply in waited if reply.kind == "items"][-1:]
        assert (done["state"], done["result"]["vectors"]) == ("completed", vectors)
        assert shown(client, library)["recall"]["promise"] == params["recall"]
    with pytest.raises(VecError) as refused:
        client.request("jobs.submit", kind="rebuild", params={"recall": 2}, library=library)
    assert "'recall' must be a number from 0.5 to 1, not 2" in refused.value.message


@pytest.mark.parametrize("recall", [0.49, 1.01, math.nan, math.inf, True, "0.9"])
def test_a_rebuild_with_a_promise_that_there_cannot_be_changes_nothing(client: Client, recall: Any) -> None:
    before = client.request("library.create", library=f"kept-{recall}", embedder="none")
    with pytest.raises(VecError) as refused:
        client.request("library.rebuild", library=before["name"], index="flat", recall=recall)
    assert refused.value.code == "invalid_request"
    assert "field 'recall' must be a number from 0.5 to 1" in refused.value.message
    after = shown(client, before["name"])
    assert (after["index"], after["recall"]["promise"]) == (before["index"], 0.98)


# --- searches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recall": 0.49}, "field 'recall' must be a number from 0.5 to 1"),
        ({"recall": math.nan}, "field 'recall' must be a number from 0.5 to 1"),
        ({"recall": "high"}, "field 'recall' must be a number from 0.5 to 1"),
        ({"min_score": math.nan}, "field 'min_score' must be a number"),
        ({"min_score": math.inf}, "field 'min_score' must be a finite number"),
        ({"min_score": True}, "field 'min_score' must be a number"),
        ({"group_by": "word"}, "hits cannot be grouped by 'word'"),
        ({"group_by": ""}, "hits cannot be grouped by ''"),
        ({"group_by": 1}, "field 'group_by' must be a string"),
        ({"explain": 1}, "field 'explain' must be true or false"),
        ({"explain": True, "k": 101}, "up to 100 hits can be explained, and k is 101"),
    ],
)
def test_what_a_search_cannot_be_asked_for_is_refused(client: Client, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(VecError) as refused:
        client.request("search", query="anything", **fields)
    assert refused.value.code == "invalid_request"
    assert message in refused.value.message


# --- how searches do ------------------------------------------------------------------------------------------------


def test_an_index_is_probed_with_titles_and_words_where_there_is_an_embedder(client: Client) -> None:
    library = create(client, "words", embedder="hash", index="hnsw", parameters={"m": 8, "ef_construction": 32})
    words = [f"word{number}" for number in range(600)]
    randomly = np.random.default_rng(5)
    documents = []
    for number in range(8_300):
        text = " ".join(words[each] for each in randomly.integers(0, len(words), 8))
        documents.append({"id": str(number), "title": text.rpartition(" ")[2] if number % 2 else None, "text": text})
    for start in range(0, len(documents), 4_000):
        client.ingest(documents[start : start + 4_000], library)
    structured(client, library)
    probe = shown(client, library)["recall"]["probe"]
    assert list(probe) == ["titles", "words", "stored"]
    for each in probe.values():
        assert 15 <= each["queries"] <= 20
        assert 0 <= each["worst"] <= min(each["p5"], each["mean"]) <= 1


def test_copies_are_no_misses(client: Client) -> None:
    """Of equal vectors it makes no difference which are found."""
    library = create(client, "copies", dimension=16, index="lsh", parameters={"bits": 512})
    put(client, library, rows(np.repeat(_VECTORS[:850], 20, axis=0)))
    structured(client, library)
    assert shown(client, library)["recall"]["probe"]["stored"]["mean"] > 0.95
