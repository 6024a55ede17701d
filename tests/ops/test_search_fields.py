"""The op search: several libraries, documents like one, pages, what has changed since, passages, and why there is
nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.inprocess import Ops, daemon
from vecd.errors import VecError

_numbers = itertools.count(1)


async def library(ops: Ops, documents: list[dict[str, Any]], **fields: Any) -> str:
    """A library of its own with these documents, whose vectors are lists."""
    name = f"several-{next(_numbers)}"
    await ops.call("library.create", library=name, **fields)
    if documents:
        packed = [
            {**each, "vector": np.array(each["vector"], "<f4").tobytes()} if "vector" in each else each
            for each in documents
        ]
        answer = await ops.call("ingest", library=name, documents=packed)
        assert answer["failed"] == 0, answer["errors"]
    return name


def points(*vectors: tuple[str, list[float]]) -> list[dict[str, Any]]:
    return [{"id": name, "vector": vector} for name, vector in vectors]


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


def found(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(hit["library"], hit["document_id"]) for hit in answer["hits"]]


async def refused(ops: Ops, **fields: Any) -> VecError:
    with pytest.raises(VecError) as raised:
        await ops.call("search", **fields)
    return raised.value


# --- several libraries ------------------------------------------------------------------------------------------------


async def test_vectors_of_libraries_of_one_kind_are_ranked_by_score(ops: Ops) -> None:
    one = await library(ops, points(("a", [1, 0.1]), ("b", [0, 1])), embedder="none")
    two = await library(ops, points(("c", [1, 0]), ("d", [1, 1])), embedder="none")
    answer = await ops.call("search", libraries=[one, two], vector=vector(1, 0))
    assert found(answer) == [(two, "c"), (one, "a"), (two, "d"), (one, "b")]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    alone = await ops.call("search", library=one, vector=vector(1, 0), group_by="document")
    assert {hit["score"] for hit in alone["hits"]} <= {hit["score"] for hit in answer["hits"]}
    assert list(answer["hits"][0])[:3] == ["rank", "score", "library"]


async def test_the_whole_is_ranked_as_one_library_would_be(ops: Ops) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(60, 4)).round(3).tolist()
    everything = points(*((f"p{n:02}", row) for n, row in enumerate(rows)))
    whole = await library(ops, everything, embedder="none")
    parts = [await library(ops, everything[start::3], embedder="none") for start in range(3)]
    query = vector(0.3, -1, 0.5, 0.2)
    expected = (await ops.call("search", library=whole, vector=query, k=20))["hits"]
    answer = (await ops.call("search", libraries=parts, vector=query, k=20))["hits"]
    assert [(hit["document_id"], hit["score"]) for hit in answer] == [
        (hit["document_id"], hit["score"]) for hit in expected
    ]
    pages = [(await ops.call("search", libraries=parts, vector=query, k=7, offset=at))["hits"] for at in (0, 7, 14)]
    assert [hit for page in pages for hit in page][:20] == answer


async def test_rankings_that_cannot_be_compared_are_fused(ops: Ops) -> None:
    words = await library(ops, [{"id": "w", "text": "rotate the logs", "vector": [1]}], embedder="none")
    both = await library(ops, [{"id": "h", "text": "rotate the logs"}, {"id": "x", "text": "mail"}], embedder="hash")
    answer = await ops.call("search", libraries=[words, both], query="rotate logs", explain=True)
    assert found(answer)[0] == (both, "h")
    assert (words, "w") in found(answer)
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert {name: each["mode"] for name, each in answer["explain"]["libraries"].items()} == {
        words: "text", both: "hybrid",
    }  # fmt: skip
    for hit in answer["hits"]:
        assert (hit["explain"]["vector"] is None) == (hit["library"] == words)


async def test_of_all_libraries_those_that_cannot_answer_are_left_out_with_a_warning(ops: Ops) -> None:
    two = await library(ops, points(("a", [1, 0])), embedder="none")
    three = await library(ops, points(("b", [1, 0, 0])), embedder="none")
    answer = await ops.call("search", libraries=["*"], vector=vector(1, 0, 0), k=100)
    assert (three, "b") in found(answer)
    assert any(two in warning and "left out" in warning for warning in answer["warnings"])
    assert (await refused(ops, libraries=[two, three], vector=vector(1, 0, 0))).code == "dimension_mismatch"
    assert (await refused(ops, libraries=[two, "nowhere"], vector=vector(1, 0))).code == "not_found"
    assert (await refused(ops, libraries=[], vector=vector(1, 0))).code == "invalid_request"


async def test_many_hits_of_several_libraries_are_streamed_in_their_order(ops: Ops) -> None:
    rows = [(f"p{n:03}", [1, n / 100]) for n in range(150)]
    parts = [await library(ops, points(*rows[start::2]), embedder="none") for start in range(2)]
    hits = (await ops.call("search", libraries=parts, vector=vector(1, 0), k=500))["items"]
    assert [hit["document_id"] for hit in hits] == [name for name, _ in rows]
    assert [hit["rank"] for hit in hits] == list(range(1, 151))


# --- like a document --------------------------------------------------------------------------------------------------


async def test_like_finds_the_nearest_documents_and_not_itself(ops: Ops) -> None:
    name = await library(
        ops, points(("a", [1, 0]), ("near", [1, 0.2]), ("far", [0, 1]), ("opposite", [-1, 0])), embedder="none"
    )
    hits = (await ops.call("search", library=name, like="a"))["hits"]
    assert [hit["document_id"] for hit in hits] == ["near", "far", "opposite"]
    first = (await ops.call("search", library=name, like="a", k=1))["hits"]
    assert [hit["document_id"] for hit in first] == ["near"]
    error = await refused(ops, library=name, like="nobody")
    assert (error.code, error.message) == ("not_found", f"document 'nobody' does not exist in library {name!r}")
    assert (await refused(ops, library=name, like="a", query="x")).code == "invalid_request"


async def test_like_leaves_out_every_chunk_of_the_document(ops: Ops) -> None:
    name = await library(
        ops,
        [{"id": "long", "texts": [f"rotate the logs {n}" for n in range(5)]}, {"id": "other", "text": "rotate logs"}],
        embedder="hash",
    )
    for group in ("chunk", "document"):
        hits = (await ops.call("search", library=name, like="long", group_by=group, k=3))["hits"]
        assert [hit["document_id"] for hit in hits] == ["other"]


async def test_like_works_between_libraries_of_different_kinds(ops: Ops) -> None:
    source = await library(ops, [{"id": "a", "text": 'rotate the "logs" every* night'}], embedder="hash")
    words = await library(
        ops,
        [{"id": "b", "text": "logs rotate", "vector": [1]}, {"id": "c", "text": "mail", "vector": [1]}],
        embedder="none",
    )
    answer = await ops.call("search", libraries=[words, source], like="a")
    assert found(answer) == [(words, "b")]


# --- pages and changes ------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other(ops: Ops) -> None:
    name = await library(ops, points(*((f"p{n:03}", [1, n / 50]) for n in range(130))), embedder="none")
    whole = (await ops.call("search", library=name, vector=vector(1, 0), k=100))["hits"]
    for offset in (0, 1, 37, 99):
        page = (await ops.call("search", library=name, vector=vector(1, 0), k=10, offset=offset))["hits"]
        assert page[: len(whole[offset : offset + 10])] == whole[offset : offset + 10]
        assert page[0]["rank"] == offset + 1
    many = (await ops.call("search", library=name, vector=vector(1, 0), k=200, offset=5))["items"]
    assert [hit["rank"] for hit in many] == list(range(6, 131))
    past = await ops.call("search", library=name, vector=vector(1, 0), offset=130)
    assert past == {"hits": [], "no_hits": "there are only 130 hits, and the offset is 130"}
    assert (await refused(ops, library=name, vector=vector(1, 0), k=1_000_000, offset=1)).code == "invalid_request"


async def test_since_finds_what_was_added_or_updated_after_it(ops: Ops) -> None:
    name = await library(ops, [{"id": each, "text": f"logs {each}"} for each in ("a", "b", "c")], embedder="hash")
    status = await ops.call("status")
    cursor = f"{status['log']}:{status['seq']}"
    assert (await ops.call("search", library=name, query="logs", since=cursor))["hits"] == []
    changed = [{"id": "b", "text": "logs changed"}, {"id": "a", "text": "logs a"}, {"id": "new", "text": "logs new"}]
    await ops.call("ingest", library=name, documents=changed)
    for mode in ("vector", "text", "hybrid"):
        hits = (await ops.call("search", library=name, query="logs", since=cursor, mode=mode))["hits"]
        assert {hit["document_id"] for hit in hits} == {"b", "new"}, mode
    narrowed = await ops.call("search", library=name, query="logs", since=cursor, where=["document_id = new"])
    assert [hit["document_id"] for hit in narrowed["hits"]] == ["new"]
    everything = await ops.call("search", library=name, query="logs", since="beginning")
    assert {hit["document_id"] for hit in everything["hits"]} == {"a", "b", "c", "new"}
    assert len((await ops.call("search", library=name, query="logs", since="-1h"))["hits"]) == 4
    assert (await refused(ops, library=name, query="logs", since="yesterday")).code == "invalid_cursor"


async def test_since_a_position_that_was_trimmed_is_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path, {"VEC_EMBEDDER": "hash"}) as own:
        ops = own.connect()
        name = await library(ops, [{"id": each, "text": f"logs {each}"} for each in ("a", "b")])
        status = await ops.call("status")
        await ops.call("ingest", library=name, documents=[{"id": "c", "text": "logs c"}])
        await ops.call("trim", keep_count=1)
        error = await refused(ops, library=name, query="logs", since=f"{status['log']}:1")
        assert error.code == "compacted"
        assert (await refused(ops, library=name, query="logs", since="-1h")).code == "compacted"
        everything = await ops.call("search", library=name, query="logs", since="beginning")
        assert len(everything["hits"]) == 3
        assert (await ops.call("search", libraries=["*"], query="logs"))["hits"][0]["library"] == name


# --- passages ---------------------------------------------------------------------------------------------------------


async def test_a_passage_shows_the_querys_words(ops: Ops) -> None:
    text = "Nothing here. " * 30 + "\n\nRotate the logs every night.\n" + "Nothing there. " * 30
    name = await library(ops, [{"id": "a", "title": "Rotating logs", "text": text}], embedder="hash", chunk_chars=5_000)
    (hit,) = (await ops.call("search", library=name, query="rotate logs", passage_chars=60))["hits"]
    passage = hit["passage"]
    assert [passage["text"][start:stop] for start, stop in passage["marks"]] == ["Rotate", "logs"]
    assert passage["title_marks"] == [[0, 8], [9, 13]]
    assert passage["lines"] == 2
    assert hit["text"] == text
    assert (await refused(ops, library=name, query="x", passage_chars=60, k=101)).code == "invalid_request"
