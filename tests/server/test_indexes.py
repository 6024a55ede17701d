"""The kinds of index: each takes writes and answers at once, and what it cannot do is refused with a reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from tests.support.instance import Instance
from tests.support.vectors import create, drawn, ids, memory, put, rows, scores, structured
from vecd.client import Client
from vecd.errors import VecError
from vecd.index import METRICS
from vecd.index.kinds import KINDS

_VECTORS = drawn(17_000, 16)
_PAIRS = [(kind, metric) for kind in KINDS for metric in METRICS if metric not in KINDS[kind].refuses]
#: Enough vectors for each kind to make a structure.
_ENOUGH = {"pq": 16_500, "hnsw": 8_300, "lsh": 16_500, "kdtree": 1_100}
_QUICK = {"m": 16, "ef_construction": 64}  # a graph that is sooner built
_DEFAULTS: dict[str, dict[str, Any]] = {
    kind: {name: each.default for name, each in about.parameters.items()} for kind, about in KINDS.items()
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as connected:
            yield connected


def refused(client: Client, op: str, **fields: Any) -> VecError:
    with pytest.raises(VecError) as raised:
        client.request(op, **fields)
    return raised.value


# --- every kind and metric ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "metric"), _PAIRS)
def test_a_library_takes_writes_and_answers_at_once(client: Client, kind: str, metric: str) -> None:
    library = create(client, f"{kind}-{metric}", index=kind, metric=metric)
    shown = client.request("library.show", library=library)
    assert (shown["index"], shown["metric"], shown["parameters"]) == (kind, metric, _DEFAULTS[kind])
    assert shown["memory"] == {"state": "unloaded"}
    assert shown["recall"] == {"promise": 0.98, "met": KINDS[kind].exact or None, "own": None, "probe": None}
    assert list(client.search(vector=_VECTORS[0], library=library)) == []
    for row in range(30):
        put(client, library, [{"id": str(row), "vector": _VECTORS[row]}])
        assert memory(client, library)["state"] == "ready"
        best = int(np.argmax(scores(_VECTORS[: row + 1], _VECTORS[row], metric)))
        (hit,) = client.search(vector=_VECTORS[row], k=1, library=library)
        assert hit["document_id"] == str(best)
    put(client, library, [{"id": "0", "vector": _VECTORS[100]}])  # updated
    client.delete(["1"], library)
    there = {"0": _VECTORS[100], **{str(row): _VECTORS[row] for row in range(2, 30)}}
    truth = scores(np.stack(list(there.values())), _VECTORS[7], metric)
    hits = list(client.search(vector=_VECTORS[7], k=100, library=library))
    assert {hit["document_id"] for hit in hits} == set(there)
    assert [hit["score"] for hit in hits] == pytest.approx(np.sort(truth)[::-1].tolist(), abs=1e-4)


@pytest.mark.parametrize(("kind", "metric"), [pair for pair in _PAIRS if pair[0] in _ENOUGH])
def test_when_there_are_enough_vectors_they_make_a_structure_that_answers_as_well(
    client: Client, kind: str, metric: str
) -> None:
    quick = _QUICK if kind == "hnsw" else {}
    library = create(client, f"large-{kind}-{metric}", index=kind, metric=metric, dimension=16, parameters=quick)
    matrix = _VECTORS[: _ENOUGH[kind]]
    put(client, library, rows(matrix))
    said = structured(client, library)
    assert (said["state"], said["vectors"], said["structure"]) == ("ready", len(matrix), len(matrix))
    assert said["memory_bytes"] >= matrix.nbytes
    shown = client.request("library.show", library=library)
    probe = shown["recall"]["probe"]
    if KINDS[kind].exact:
        assert probe is None
    else:
        assert probe.keys() == {"midpoints", "noise", "stored"}
        for each in probe.values():
            assert each.keys() == {"k", "queries", "mean", "p5", "worst"}
            assert (each["k"], 15 <= each["queries"] <= 20) == (10, True)
            assert 0 <= each["worst"] <= min(each["p5"], each["mean"]) <= 1
            assert each["mean"] >= 0.8
    found = wanted = 0
    for row in range(0, 600, 30):
        query = _VECTORS[row] + np.float32(0.01)
        truth = scores(matrix, query, metric)
        exact = list(client.search(vector=query, library=library, exact=True))
        assert [hit["score"] for hit in exact] == pytest.approx(np.sort(truth)[::-1][:10].tolist(), abs=1e-3)
        near = list(client.search(vector=query, library=library))
        assert [hit["score"] for hit in near] == pytest.approx(
            [truth[int(hit["document_id"])] for hit in near], abs=1e-3
        )
        found, wanted = found + len(set(ids(exact)) & set(ids(near))), wanted + 10
    assert found >= (1 if KINDS[kind].exact else 0.9) * wanted
    assert ids(client.search(vector=query, library=library, ef=5_000)) == ids(exact)
    # And it goes on taking writes, updates and deletes.
    gone = [str(row) for row in range(0, 300, 3)]
    client.delete(gone, library)
    put(client, library, [{"id": str(row), "vector": _VECTORS[row] + np.float32(5)} for row in range(1, 300, 3)])
    for row in range(0, 300, 30):
        assert str(row) not in ids(client.search(vector=_VECTORS[row], k=50, library=library))
        (hit,) = client.search(vector=_VECTORS[row + 1] + np.float32(5), k=1, exact=True, library=library)
        assert metric == "dot" or hit["document_id"] == str(row + 1)
    assert memory(client, library)["vectors"] == len(matrix) - len(gone) == client.count(library)["chunks"]


def test_a_graph_of_half_precision_is_a_third_smaller_and_finds_as_much(client: Client) -> None:
    taken = {}
    for vectors in ("float32", "float16"):
        library = create(client, vectors, dimension=16, index="hnsw", parameters={**_QUICK, "vectors": vectors})
        put(client, library, rows(_VECTORS[:8_300]))
        taken[vectors] = structured(client, library)["memory_bytes"]
        assert client.request("library.show", library=library)["recall"]["probe"]["stored"]["mean"] >= 0.9
        hits = list(client.search(vector=_VECTORS[5], k=1, library=library))
        assert (ids(hits), hits[0]["score"]) == (["5"], pytest.approx(1, abs=2e-3))
    assert taken["float32"] - taken["float16"] == pytest.approx(8_300 * 16 * 2, rel=0.1)


# --- what is refused ------------------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"recall": 0.49}, "invalid_request", "recall", "must be a number from 0.5 to 1, not float 0.49"),
    ({"recall": 1.01}, "invalid_request", "recall", "must be a number from 0.5 to 1"),
    ({"recall": math.nan}, "invalid_request", "recall", "must be a number from 0.5 to 1"),
    ({"recall": True}, "invalid_request", "recall", "must be a number from 0.5 to 1"),
    ({"recall": "0.9"}, "invalid_request", "recall", "must be a number from 0.5 to 1"),
    ({"language": "englisch"}, "unsupported", "language", "did you mean 'english'?"),
    ({"language": "klingon"}, "unsupported", "language", "known: english, none, arabic"),
    ({"language": ""}, "unsupported", "language", "unknown language ''"),
    ({"index": "kdtree", "metric": "dot"}, "unsupported", "metric", "'kdtree' does not support the metric 'dot'"),
    ({"index": "falt"}, "unsupported", "index", "did you mean 'flat'?"),
    ({"index": "ivf"}, "unsupported", "index", "known: pq, hnsw, flat, lsh, kdtree"),
    ({"index": ""}, "unsupported", "index", "unknown index ''"),
    ({"metric": "cosin"}, "unsupported", "metric", "did you mean 'cosine'?"),
    ({"index": 5}, "invalid_request", "index", "'index' must be a string"),
    *(
        ({"parameters": value}, "invalid_request", "parameters", "'parameters' must be a map")
        for value in ([], "m", 5, True, [["m", 5]])
    ),
    ({"index": "hnsw", "parameters": {"mm": 5}}, "invalid_request", "mm", "it has m, ef_construction, vectors"),
    ({"index": "hnsw", "parameters": {"bits": 64}}, "invalid_request", "bits", "'hnsw' has no parameter 'bits'"),
    ({"index": "pq", "parameters": {"m": 16}}, "invalid_request", "m", "'pq' has no parameter 'm'"),
    ({"index": "pq", "parameters": {"vectors": "float16"}}, "invalid_request", "vectors", "it has bits"),
    ({"index": "flat", "parameters": {"m": 16}}, "invalid_request", "m", "it has no parameters"),
    *(
        (
            {"index": "hnsw", "parameters": {"m": value}},
            "invalid_request",
            "m",
            "m must be a whole number from 4 to 128",
        )
        for value in (3, 129, -1, 16.0, "16", True, None, [16])
    ),
    *(
        ({"index": "hnsw", "parameters": {"ef_construction": value}}, "invalid_request", "ef_construction", told)
        for value, told in ((15, "from 16 to 2,000, not 15"), (2_001, "from 16 to 2,000"), (2**62, "from 16 to 2,000"))
    ),
    *(
        (
            {"index": "hnsw", "parameters": {"vectors": value}},
            "invalid_request",
            "vectors",
            "must be float32 or float16",
        )
        for value in ("float64", "", 16, None, ["float16"])
    ),
    *(
        ({"index": "lsh", "parameters": {"bits": value}}, "invalid_request", "bits", told)
        for value, told in ((63, "from 64 to 8,192"), (8_193, "from 64 to 8,192"), (100, "a multiple of 8"))
    ),
    *(
        ({"index": "pq", "parameters": {"bits": value}}, "invalid_request", "bits", "bits must be 0, 1, 2 or 4")
        for value in (3, 8, -1, 4.0, 0.0, "4", False, True, None, [4])
    ),
    *(
        ({"index": "kdtree", "parameters": {"leaf_size": value}}, "invalid_request", "leaf_size", "from 1 to 4,096")
        for value in (0, 4_097)
    ),
]


@pytest.mark.parametrize(("fields", "code", "field", "told"), REFUSED)
def test_an_index_that_there_cannot_be_is_refused(
    client: Client, fields: dict[str, Any], code: str, field: str, told: str
) -> None:
    name = f"never-{uuid4()}"
    error = refused(client, "library.create", library=name, **fields)
    assert (error.code, error.details["field"]) == (code, field)
    assert told in str(error)
    assert name not in [each["name"] for each in client.request("library.list")["libraries"]]


@pytest.mark.parametrize(
    ("fields", "code", "field", "told"), [each for each in REFUSED if not {"metric", "language"} & each[0].keys()]
)
def test_a_rebuild_refuses_the_same_and_leaves_the_index_as_it_is(
    client: Client, fields: dict[str, Any], code: str, field: str, told: str
) -> None:
    library = create(client, f"kept-{uuid4()}", dimension=16, index="hnsw", parameters={"m": 5})
    error = refused(client, "library.rebuild", library=library, **fields)
    assert (error.code, error.details["field"]) == (code, field)
    assert told in str(error)
    shown = client.request("library.show", library=library)
    assert (shown["index"], shown["parameters"]["m"]) == ("hnsw", 5)


def test_a_rebuild_to_what_cannot_do_the_metric_is_refused(client: Client) -> None:
    library = create(client, "dotted", metric="dot", dimension=2)
    error = refused(client, "library.rebuild", library=library, index="kdtree")
    assert (error.code, error.details["field"]) == ("unsupported", "metric")
    assert client.request("library.show", library=library)["index"] == "pq"


# --- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_that_are_not_given_have_their_defaults(client: Client) -> None:
    create(client, "given", index="hnsw", parameters={"m": 4, "vectors": "float16"})
    shown = client.request("library.show", library="given")
    assert shown["parameters"] == {**_DEFAULTS["hnsw"], "m": 4, "vectors": "float16"}
    assert shown["parameters"].keys() == {"m", "ef_construction", "vectors"}
    (listed,) = (each for each in client.request("library.list")["libraries"] if each["name"] == "given")
    assert (listed["index"], listed["parameters"]) == ("hnsw", shown["parameters"])


def test_a_rebuild_keeps_the_parameters_unless_the_kind_changes(client: Client) -> None:
    create(client, "changed", dimension=2, index="hnsw", parameters={"m": 4})
    expected: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        ({"parameters": {"ef_construction": 40}}, "hnsw", {"m": 4, "ef_construction": 40}),
        ({}, "hnsw", {"m": 4, "ef_construction": 40}),
        ({"index": "hnsw", "parameters": {"m": 6}}, "hnsw", {"m": 6, "ef_construction": 40}),
        ({"index": "lsh", "parameters": {"bits": 64}}, "lsh", {"bits": 64}),
        ({"index": "hnsw"}, "hnsw", {}),
        ({"index": "pq", "parameters": {"bits": 2}}, "pq", {"bits": 2}),
        ({"parameters": {"bits": 4}}, "pq", {"bits": 4}),
        ({"index": "flat"}, "flat", {}),
    ]
    for fields, kind, parameters in expected:
        answer = client.request("library.rebuild", library="changed", **fields)
        assert (answer["index"], answer["parameters"]) == (kind, {**_DEFAULTS[kind], **parameters})
        shown = client.request("library.show", library="changed")
        assert (shown["index"], shown["parameters"]) == (kind, answer["parameters"])


def test_the_default_library_is_one_of_codes_and_exact_while_it_is_small(client: Client) -> None:
    client.ingest([{"id": str(number), "text": f"text {number}"} for number in range(50)])
    shown = client.request("library.show", library="default")
    assert (shown["index"], shown["parameters"]) == ("pq", _DEFAULTS["pq"])
    assert shown["recall"]["met"] is True
    assert list(client.search("text 7")) == list(client.search("text 7", exact=True))
