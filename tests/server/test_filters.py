"""Filters through the daemon: always as many hits as there could be, all of them let through, and the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.support.instance import Instance
from tests.support.vectors import Document, create, drawn, ids, put, scores, structured
from vecd.client import Client
from vecd.index.kinds import KINDS

_DIMENSION = 8
#: Kind -> so many documents that it makes a structure of them (every tenth has two chunks), and a metric.
_COUNTS = {"flat": 3_000, "pq": 16_000, "hnsw": 9_000, "kdtree": 3_000, "lsh": 16_000}
_METRICS = {"flat": "l2", "pq": "cosine", "hnsw": "cosine", "kdtree": "l2", "lsh": "dot"}
_VECTORS = drawn(2 * max(_COUNTS.values()), _DIMENSION)

#: Filters that let through nothing to everything, and what they mean for document n.
FILTERS: dict[tuple[str, ...], Callable[[int], bool]] = {
    ("n < 0",): lambda n: False,
    ("n = 7",): lambda n: n == 7,
    ("document_id in (d00001, d00010, nobody)",): lambda n: n in (1, 10),
    ("hundred = 'g3'",): lambda n: n % 100 == 3,
    ("metadata.title = m5 and title ^= T",): lambda n: n % 1_000 == 5 and n % 2 == 1,
    ("deep.er.n >= 100", "deep.er.n < 1e3"): lambda n: 100 <= n < 1_000,
    ("tags = red or 'odd key' = 0",): lambda n: n % 7 == 0 or n % 3 == 0,
    ("title exists",): lambda n: n % 2 == 1,
    ("not (tenth = 3 or tenth = 4)",): lambda n: n % 10 not in (3, 4),
    ("missing != 5",): lambda n: True,
}


def document(n: int) -> Document:
    chunks = 2 if n % 10 == 0 else 1
    return {
        "id": f"d{n:05}",
        "title": f"T{n}" if n % 2 else None,
        "texts": ["the zebra" if n % 2 else "the horse"] * chunks,
        "vectors": [_VECTORS[2 * n + place] for place in range(chunks)],
        "metadata": {
            "n": n, "tenth": n % 10, "hundred": f"g{n % 100}", "deep": {"er": {"n": n}}, "title": f"m{n % 1_000}",
            "tags": ["red", "blue"] if n % 7 == 0 else ["blue"], "odd key": n % 3,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start()
        with instance.connect() as connected:
            yield connected


@pytest.fixture(scope="module", params=_COUNTS)
def kind(request: pytest.FixtureRequest, client: Client) -> str:
    """A library of that kind, named like it; no test writes to it."""
    name = str(request.param)
    create(client, name, index=name, metric=_METRICS[name], dimension=_DIMENSION)
    put(client, name, (document(n) for n in range(_COUNTS[name])))
    if name != "flat":
        structured(client, name)
    return name


def chunks(kind: str, lets_through: Callable[[int], bool]) -> list[str]:
    """All chunks that the filter lets through."""
    numbers = (n for n in range(_COUNTS[kind]) if lets_through(n))
    return [f"d{n:05}#{place}" for n in numbers for place in range(2 if n % 10 == 0 else 1)]


def number(hit: dict[str, Any]) -> int:
    return int(hit["document_id"][1:])


@pytest.mark.parametrize("where", FILTERS, ids=" and ".join)
@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_there_are_as_many_hits_as_match_and_all_of_them_do(
    client: Client, kind: str, mode: str, where: tuple[str, ...]
) -> None:
    if mode == "text" and kind != "flat":
        return  # full text knows nothing of the index
    matching = chunks(kind, FILTERS[where])
    if mode == "text":  # finds only what has the word
        matching = [each for each in matching if int(each[1:6]) % 2]
    query = {"query": "zebra" if mode != "vector" else None, "vector": _VECTORS[11] + np.float32(0.01)}
    for k in (10, 300):
        hits = list(client.search(**query, k=k, library=kind, mode=mode, where=where))
        found = [hit["chunk_id"] for hit in hits]
        assert len(found) == len(set(found)) == min(k, len(matching))
        assert set(found) <= set(matching)
        assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
        assert all(before["score"] >= after["score"] for before, after in pairwise(hits))


@pytest.mark.parametrize("where", FILTERS, ids=" and ".join)
def test_the_order_is_that_of_brute_force_over_what_is_let_through(
    client: Client, kind: str, where: tuple[str, ...]
) -> None:
    """Always for the exact kinds, with `exact` for the others."""
    matching = chunks(kind, FILTERS[where])
    matrix = np.array([_VECTORS[2 * int(each[1:6]) + int(each[7:])] for each in matching], np.float32)
    query = _VECTORS[25] + np.float32(0.02)
    truth = scores(matrix.reshape(-1, _DIMENSION), query, _METRICS[kind])
    by_chunk = dict(zip(matching, truth.tolist(), strict=True))
    by_document: dict[str, float] = {}
    for chunk, score in by_chunk.items():
        by_document[chunk[:6]] = max(score, by_document.get(chunk[:6], score))
    for group, there in (("chunk", by_chunk), ("document", by_document)):
        for k in (10, 200):
            exact = not KINDS[kind].exact
            hits = list(client.search(vector=query, k=k, library=kind, where=where, exact=exact, group_by=group))
            found = [hit["score"] for hit in hits]
            assert found == pytest.approx(sorted(there.values(), reverse=True)[:k], abs=2e-5)
            assert found == pytest.approx([there[hit[f"{group}_id"]] for hit in hits], abs=2e-5)
            assert found == pytest.approx([by_chunk[hit["chunk_id"]] for hit in hits], abs=2e-5)


@pytest.mark.parametrize("ef", [1, 64, 2_000])
def test_whatever_the_effort_there_are_as_many_hits(client: Client, kind: str, ef: int) -> None:
    for where, lets_through in FILTERS.items():
        hits = list(client.search(vector=_VECTORS[3], k=20, library=kind, where=where, ef=ef, group_by="chunk"))
        assert len(hits) == min(20, len(chunks(kind, lets_through)))
        documents = ids(client.search(vector=_VECTORS[3], k=20, library=kind, where=where, ef=ef))
        matching = sum(map(lets_through, range(_COUNTS[kind])))
        assert len(documents) == len(set(documents)) == min(20, matching)
        assert all(lets_through(number(hit)) for hit in hits)


def test_approximate_searches_find_most_of_what_exact_ones_find_however_few_match(client: Client, kind: str) -> None:
    for where in FILTERS:
        found = wanted = 0
        for row in range(0, 240, 20):
            exact, near = (
                {hit["chunk_id"] for hit in client.search(vector=_VECTORS[row], library=kind, where=where, exact=each)}
                for each in (True, False)
            )
            found, wanted = found + len(exact & near), wanted + len(exact)
        assert found >= 0.9 * wanted, where


@pytest.mark.parametrize("where", FILTERS, ids=" and ".join)
def test_count_and_list_agree_with_what_is_there(client: Client, kind: str, where: tuple[str, ...]) -> None:
    there = [f"d{n:05}" for n in range(_COUNTS[kind]) if FILTERS[where](n)]
    listed = list(client.items("list", "documents", library=kind, where=list(where)))
    assert [each["id"] for each in listed] == there
    warnings = ["no document has the field 'missing', at column 1 of the filter 'missing != 5'"]
    assert client.count(kind, where=where) == {
        "library": kind, "documents": len(there), "chunks": len(chunks(kind, FILTERS[where])),
        "seq": client.status()["seq"], **({"warnings": warnings} if where == ("missing != 5",) else {}),
    }  # fmt: skip
    for each in listed[:3]:
        whole = document(int(each["id"][1:]))
        assert each == {
            "id": whole["id"], "title": whole["title"], "metadata": whole["metadata"], "chunks": len(whole["texts"]),
        }  # fmt: skip


def test_every_match_can_be_asked_for_at_once(client: Client, kind: str) -> None:
    """More than one message holds."""
    matching = chunks(kind, lambda n: n % 10 != 3)
    question = {"vector": _VECTORS[0], "k": 1_000_000, "library": kind, "where": ["tenth != 3"]}
    assert sorted(hit["chunk_id"] for hit in client.search(**question, group_by="chunk")) == matching
    assert sorted(ids(client.search(**question))) == sorted({chunk[:6] for chunk in matching})


def test_many_searches_with_different_filters_at_once_keep_theirs(client: Client, kind: str) -> None:
    packed = _VECTORS[5].astype("<f4").tobytes()
    wanted = [(tenth, k) for tenth in range(10) for k in (1, 20)] * 2
    flying = [
        client.submit("search", library=kind, vector=packed, k=k, where=[f"tenth = {tenth}"]) for tenth, k in wanted
    ]
    for (tenth, k), pending in zip(wanted, flying, strict=True):
        hits = pending.result()["hits"]
        assert len(hits) == k
        assert {number(hit) % 10 for hit in hits} == {tenth}


def test_full_text_goes_on_until_it_has_enough(client: Client) -> None:
    """The word stands everywhere, and the few that match are the last that full text would come to."""
    library = create(client, "long-tail", dimension=1)
    many = [
        {"id": f"d{n}", "text": "zebra " * (1 if n < 5_990 else 200) + "x " * (0 if n < 5_990 else 3_000),
         "vector": [1.0], "metadata": {"late": n >= 5_990, "n": n}}
        for n in range(6_000)
    ]  # fmt: skip
    put(client, library, many)
    for k in (1, 5, 10, 50):
        hits = list(client.search("zebra", mode="text", library=library, k=k, where=["late = true"]))
        assert len(hits) == min(k, 10)
        assert all(hit["metadata"]["late"] for hit in hits)
    assert list(client.search("zebra", mode="text", library=library, where=["n < 0"])) == []
    assert list(client.search("horse", mode="text", library=library, where=["late = true"])) == []
