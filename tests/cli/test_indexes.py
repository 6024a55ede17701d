"""vec library create, rebuild and show: which index there is, and how it does, for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import fresh, running
from tests.support.waiting import until

from .terminal import on_a_terminal

_COUNT = 8_300  # enough for a graph


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture(scope="module")
def graph(instance: Instance) -> str:
    """A library with a graph; no test writes to it."""
    library = fresh(instance, embedder="none", dimension=8, index="hnsw", parameters={"m": 8, "ef_construction": 32})
    vectors = np.random.default_rng(3).normal(size=(_COUNT, 8)).astype(np.float32)
    with instance.connect() as client:
        for start in range(0, _COUNT, 4_000):
            numbers = range(start, min(_COUNT, start + 4_000))
            client.ingest(
                [{"id": str(each), "vector": vectors[each], "metadata": {"n": each}} for each in numbers], library
            )
        list(client.search(vector=vectors[0], library=library))
        until(lambda: client.request("library.show", library=library)["memory"]["maintenance"] is None, "the build")
    return library


@pytest.mark.parametrize(
    ("arguments", "index", "parameters"),
    [
        ([], "pq", {"bits": 0}),
        (["--bits", "4"], "pq", {"bits": 4}),
        (["--index", "hnsw"], "hnsw", {"m": 24, "ef_construction": 128, "vectors": "float32"}),
        (
            ["--index", "hnsw", "--m", "32", "--ef-construction", "200", "--vectors", "float16"], "hnsw",
            {"m": 32, "ef_construction": 200, "vectors": "float16"},
        ),
        (["--index", "flat"], "flat", {}),
        (["--index", "lsh", "--bits", "256"], "lsh", {"bits": 256}),
        (["--index", "kdtree", "--leaf-size", "8", "--metric", "l2"], "kdtree", {"leaf_size": 8}),
        (
            ["--index", "hnsw", "--param", "m=32", "--param", "vectors=float16"], "hnsw",
            {"m": 32, "ef_construction": 128, "vectors": "float16"},
        ),
    ],
)  # fmt: skip
def test_a_library_is_made_with_the_index_that_was_asked_for(
    instance: Instance, arguments: list[str], index: str, parameters: dict[str, object]
) -> None:
    name = f"made-{index}-{len(arguments)}"
    (made,) = instance.objects("library", "create", name, "--embedder", "none", *arguments)
    (shown,) = instance.objects("library", "show", name)
    for body in (made, shown):
        assert body["index"] == index
        assert body["parameters"] == parameters
    assert (shown["memory"], shown["recall"]["probe"]) == ({"state": "unloaded"}, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--index", "hnsw", "--m", "3"], "m must be a whole number from 4 to 128, not 3"),
        (["--m", "many"], "--m"),
        (["--index", "hnsw", "--ef-construction", "5"], "ef_construction must be a whole number from 16 to 2,000"),
        (["--vectors", "float64"], "--vectors"),
        (["--index", "hnsw", "--bits", "64"], "the index 'hnsw' has no parameter 'bits'"),
        (["--m", "8"], "the index 'pq' has no parameter 'm'"),
        (["--bits", "3"], "bits must be 0, 1, 2 or 4, not 3"),
        (["--index", "lsh", "--bits", "100"], "bits must be a multiple of 8"),
        (["--index", "flat", "--leaf-size", "8"], "the index 'flat' has no parameter 'leaf_size'"),
        (["--index", "kdtree", "--leaf-size", "0"], "leaf_size must be a whole number from 1 to 4,096"),
        (["--index", "tree"], "--index"),
        (["--index", "hsnw"], "Did you mean hnsw?"),
        (["--param", "m=16"], "the index 'pq' has no parameter 'm'"),
        (["--index", "hnsw", "--param", "m=3"], "the index 'hnsw': m must be a whole number from 4 to 128, not 3"),
        (["--index", "hnsw", "--param", "m=1.5"], "m must be a whole number from 4 to 128, not 1.5"),
        (["--index", "hnsw", "--param", "ef_constructoin=99"], "did you mean 'ef_construction'?"),
        (["--index", "hnsw", "--m", "16", "--param", "m=16"], "m is set twice"),
        (["--param", "m"], "'m' is not NAME=VALUE"),
    ],
)
def test_parameters_that_there_cannot_be_are_usage_errors(instance: Instance, arguments: list[str], told: str) -> None:
    done = instance.vec("library", "create", "never", *arguments, status=2)
    assert (done.stdout, told in done.stderr) == ("", True)
    kept = fresh(instance, embedder="none", dimension=2)
    done = instance.vec("library", "rebuild", kept, *arguments, status=2)
    assert (done.stdout, told in done.stderr) == ("", True)
    assert "library 'never' does not exist" in instance.vec("library", "show", "never", status=4).stderr


def test_a_tree_cannot_do_the_inner_product(instance: Instance) -> None:
    done = instance.vec("library", "create", "never", "--index", "kdtree", "--metric", "dot", status=2)
    assert "the index 'kdtree' does not support the metric 'dot'" in done.stderr
    assert "use one of cosine, l2" in done.stderr


def test_a_rebuild_prints_the_library_as_it_is_then(instance: Instance) -> None:
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": str(n), "text": f"text {n}"} for n in range(1_200)]))
    (said,) = instance.objects("library", "rebuild", library, "--index", "kdtree", "--leaf-size", "16")
    assert (said["name"], said["index"], said["parameters"]) == (library, "kdtree", {"leaf_size": 16})
    assert (said["vectors"], said["memory"]["structure"]) == (1_200, 1_200)
    assert said["seconds"] > 0
    assert instance.objects("library", "rebuild", library)[0]["parameters"] == {"leaf_size": 16}
    (shown,) = instance.objects("library", "show", library)
    assert (shown["index"], shown["parameters"]) == ("kdtree", {"leaf_size": 16})
    seen = on_a_terminal(instance, "library", "rebuild", library, "--index", "flat")
    assert seen.out.startswith(f"library {library}: flat, 1,200 vectors in ")
    events = instance.objects("watch", "--from", "beginning", "--no-follow", "-l", library, "--type", "index.*")
    assert [event["data"]["kind"] for event in events] == ["kdtree", "kdtree", "flat"]
    assert "index.rebuilt" in on_a_terminal(
        instance, "watch", "--from", "beginning", "--no-follow", "-l", library, "--type", "index.rebuilt"
    ).out  # fmt: skip
    assert "does not exist" in instance.vec("library", "rebuild", "nowhere-at-all", status=4).stderr


def test_show_tells_programs_how_the_index_does(instance: Instance, graph: str) -> None:
    (shown,) = instance.objects("library", "show", graph)
    memory, recall = shown["memory"], shown["recall"]
    assert list(memory) == ["state", "vectors", "structure", "tail", "dead", "memory_bytes", "maintenance", "text"]
    assert (memory["state"], memory["vectors"], memory["structure"], memory["tail"]) == ("ready", _COUNT, _COUNT, 0)
    assert list(recall) == ["promise", "met", "own", "probe"]
    assert list(recall["probe"]) == ["midpoints", "noise", "stored"]
    for each in recall.pop("probe").values():
        assert (each["k"], 0.5 < each["mean"] <= 1, 0 < each["queries"] <= 20) == (10, True, True)
    (listed,) = (each for each in instance.objects("library", "list") if each["name"] == graph)
    assert (listed["memory"], listed["recall"]) == (memory, recall)
    (status,) = instance.objects("status")
    assert listed in status["libraries"]


def test_show_tells_people_how_the_index_does(instance: Instance, graph: str) -> None:
    seen = on_a_terminal(instance, "library", "show", graph, NO_COLOR="1")
    lines = {line[:11].strip(): line[13:] for line in seen.out.splitlines() if line[:11].strip()}
    assert list(lines) == [
        "library", "holds", "embedder", "vectors", "index", "text", "in memory", "maintenance", "recall",
    ]  # fmt: skip
    assert lines["holds"] == f"{_COUNT:,} documents, {_COUNT:,} chunks"
    assert lines["vectors"] == "8 dimensions, cosine"
    assert lines["index"] == "hnsw (m 8, ef_construction 32, vectors float32)"
    assert lines["maintenance"] == "none"
    assert lines["text"] == "english"
    assert lines["recall"].startswith("promise 0.98: ")
    figure = r"[01]\.\d{3}"
    for sort in ("midpoints", "noise", "stored"):
        told = rf"by {sort}: mean {figure}, 5th percentile {figure}, worst {figure} of \d+ queries"
        assert re.search(told, seen.out), sort
    assert f"{_COUNT:,} in the structure, 0 in the tail, 0 deleted, not yet removed" in seen.out
    unset = on_a_terminal(instance, "library", "show", fresh(instance, embedder="none"), NO_COLOR="1").out
    assert "vectors      not known yet dimensions" not in unset
    assert "in memory    unloaded" in unset
    assert "recall       promise 0.98: not measured yet" in unset


def test_a_damaged_snapshot_is_shown_to_people(instance: Instance) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("library", "create", "docs", "--embedder", "none", "--dimension", "2", "--index", "hnsw")
        own.vec("ingest", "-l", "docs", stdin=ndjson([{"id": "a", "vector": [1, 2]}]))
        folder = own.settings.data / "indexes"
        own.vec("daemon", "stop")
        folder.mkdir(exist_ok=True)
        (folder / "1.index").write_bytes(b"no snapshot")
        assert own.objects("search", "-l", "docs", "--vector", "[1, 2]")[0]["document_id"] == "a"
        seen = on_a_terminal(own, "library", "show", "docs", NO_COLOR="1", columns=300)
        assert (
            f"damage       the snapshot is not a snapshot of vecd; it was renamed to {folder}/1.index.damaged"
            in seen.out
        )
        assert "damage" in own.objects("library", "show", "docs")[0]["memory"]


def test_effort_and_exactness_reach_the_index(instance: Instance, graph: str) -> None:
    query = json.dumps([1.0] * 8)
    exact = instance.objects("search", "-l", graph, "--vector", query, "--exact")
    wide = instance.objects("search", "-l", graph, "--vector", query, "--ef", "5000")
    narrow = instance.objects("search", "-l", graph, "--vector", query, "--ef", "1", "-k", "10")
    assert wide == exact
    assert len(narrow) == 10
    lines = ndjson([{"vector": [1.0] * 8, "exact": True, "where": "n < 500", "k": 3}])
    hits = instance.objects("search", "-l", graph, "--stdin", stdin=lines)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert all(hit["metadata"]["n"] < 500 for hit in hits)


def test_many_hits_are_printed_while_the_last_are_not_yet_made() -> None:
    """The daemon dies after the first line, and so the last ones never come: they had not been made."""
    count = 8_000
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        with own.connect() as client:
            client.request("library.create", library="wide", embedder="none", dimension=1, index="flat")
            for start in range(0, count, 1_000):
                client.ingest(
                    [
                        {"id": f"d{n:05}", "vector": [1.0], "metadata": {"much": "x" * 2_000}}
                        for n in range(start, start + 1_000)
                    ],
                    "wide",
                )
        arguments = ["search", "-l", "wide", "--vector", "[1]", "-k", "100000", "--no-spawn"]
        with running(own, *arguments) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            daemon.kill()
            daemon.wait()
            rest = process.stdout.readlines()
            assert process.wait() == 75
        ranks = [first["rank"], *(json.loads(line)["rank"] for line in rest)]
        assert ranks == list(range(1, len(ranks) + 1))
        assert len(ranks) < count
