"""library.rebuild: another index while everything goes on; no write is lost, nothing dead found, and it stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.vectors import create, drawn, ids, memory, put, rows, structured
from tests.support.waiting import PATIENCE_S, until
from vecd.client import Client
from vecd.errors import VecError

from .traffic import Traffic

_VECTORS = drawn(17_000, 16)
_REASONS = ("growth", "compaction", "drift", "requested", "damaged")


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    instance.start()
    with instance.connect(timeout_s=30) as connected:
        yield connected


def rebuilt(client: Client, library: str) -> list[dict[str, Any]]:
    """What the log says of this library's rebuilds."""
    watched = client.watch("beginning", follow=False, types=["index.rebuilt"], libraries=[library])
    return [event["data"] for event in watched]


def restart(instance: Instance, how: int = signal.SIGTERM) -> None:
    pid = instance.pid()
    assert pid is not None
    (daemon,) = (child for child in instance._children if child.pid == pid)
    daemon.send_signal(how)
    assert daemon.wait(30) == (0 if how == signal.SIGTERM else -how)
    instance.start()


def test_each_kind_becomes_each_other_while_somebody_writes_and_somebody_searches(
    instance: Instance, client: Client
) -> None:
    library = create(client, "moving", dimension=16, metric="l2", index="flat")
    put(client, library, rows(_VECTORS))
    traffic = Traffic(instance, library, _VECTORS, ["n >= 0 or new >= 0"])
    order = ("hnsw", "pq", "lsh", "kdtree", "pq", "flat", "kdtree", "hnsw", "flat")
    with traffic:
        for kind in order:
            quick = {"ef_construction": 16} if kind == "hnsw" else {}
            answer = client.request("library.rebuild", library=library, index=kind, parameters=quick)
            assert (answer["index"], answer["name"]) == (kind, library)
            assert answer["vectors"] >= len(_VECTORS)
            assert answer["seq"] > 0
            shown = client.request("library.show", library=library)
            assert (shown["index"], shown["parameters"]) == (kind, answer["parameters"])
            assert (shown["memory"]["structure"] > 0) == (kind != "flat")
            traffic.wait_for_more()
    events = rebuilt(client, library)
    assert [event["kind"] for event in events if event["reason"] == "requested"] == list(order)
    for event in events:
        assert event.keys() >= {"kind", "vectors", "seconds", "reason"}
        assert event["reason"] in _REASONS
        assert event["vectors"] >= len(_VECTORS)
        assert event["seconds"] > 0
    there = {str(row) for row in range(len(_VECTORS))} | traffic.left
    assert history.check(client)[library].keys() == there
    assert set(ids(client.search(vector=_VECTORS[0], k=100_000, library=library))) == there
    client.request("library.rebuild", library=library, index="kdtree", parameters={"leaf_size": 8})
    restart(instance)
    with instance.connect() as again:
        shown = again.request("library.show", library=library)
        assert (shown["index"], shown["parameters"]) == ("kdtree", {"leaf_size": 8})
        assert set(ids(again.search(vector=_VECTORS[0], k=100_000, library=library))) == there


def test_two_rebuilds_at_once_are_done_one_after_the_other(instance: Instance, client: Client) -> None:
    library = create(client, "twice", dimension=16, index="flat")
    put(client, library, rows(_VECTORS[:9_000]))
    with instance.connect() as other:
        first = client.submit("library.rebuild", library=library, index="hnsw")
        second = other.submit("library.rebuild", library=library, index="kdtree")
        third = other.submit("library.rebuild", library=library, index="flat")
        answers = [pending.result() for pending in (first, second, third)]
    assert [answer["vectors"] for answer in answers] == [9_000] * 3
    events = rebuilt(client, library)
    assert sorted(event["kind"] for event in events) == ["flat", "hnsw", "kdtree"]
    shown = client.request("library.show", library=library)
    assert shown["index"] == events[-1]["kind"]  # the last that was built is the one that is there
    assert len(list(client.search(vector=_VECTORS[3], k=10_000, library=library))) == 9_000


def test_rebuilds_of_two_libraries_at_once_are_both_done(client: Client) -> None:
    libraries = [create(client, name, dimension=16, index="flat") for name in ("one", "two")]
    for library in libraries:
        put(client, library, rows(_VECTORS[:2_000]))
    flying = [client.submit("library.rebuild", library=each, index="kdtree") for each in libraries]
    assert [pending.result()["memory"]["structure"] for pending in flying] == [2_000, 2_000]


def test_a_rebuild_without_vectors_changes_the_kind_and_is_logged(client: Client) -> None:
    for library, fields in (("unset", {}), ("set", {"dimension": 2}), ("texts", {"embedder": "hash"})):
        create(client, library, **fields)
        answer = client.request("library.rebuild", library=library, index="kdtree")
        assert (answer["index"], answer["vectors"], answer["parameters"]) == ("kdtree", 0, {"leaf_size": 32})
        (event,) = rebuilt(client, library)
        assert (event["kind"], event["vectors"], event["reason"]) == ("kdtree", 0, "requested")
        assert client.request("library.show", library=library)["index"] == "kdtree"
    put(client, "unset", [{"id": "a", "vector": [1.0, 2.0, 3.0]}])
    assert ids(client.search(vector=[1, 1, 1], library="unset")) == ["a"]
    client.request("library.rebuild", library="unset")
    assert ids(client.search(vector=[1, 1, 1], library="unset")) == ["a"]
    history.check(client)


def test_few_vectors_are_compared_one_by_one_also_after_a_rebuild(client: Client) -> None:
    library = create(client, "few", dimension=16, index="flat")
    put(client, library, rows(_VECTORS[:500]))
    for kind in ("pq", "hnsw", "kdtree", "lsh"):
        answer = client.request("library.rebuild", library=library, index=kind)
        assert (answer["vectors"], answer["memory"]["structure"], answer["memory"]["tail"]) == (500, 0, 500)
        assert ids(client.search(vector=_VECTORS[7], k=1, library=library)) == ["7"]


@pytest.mark.parametrize("library", ["nowhere", "default"])
def test_a_library_that_is_not_there_cannot_be_rebuilt(client: Client, library: str) -> None:
    with pytest.raises(VecError) as refused:
        client.request("library.rebuild", library=library, index="flat")
    assert refused.value.code == "not_found"
    assert client.request("library.list")["libraries"] == []


def building(client: Client, library: str) -> None:
    """Waits until a build is going on."""
    until(lambda: str(memory(client, library).get("maintenance")).startswith("building"), "the build")


def slow(client: Client, library: str) -> str:
    """A library whose rebuild takes seconds."""
    create(client, library, dimension=16, index="flat")
    put(client, library, rows(_VECTORS))
    return library


_SLOW = {"index": "hnsw", "parameters": {"ef_construction": 2_000}}


def test_a_library_that_is_deleted_in_the_middle_of_its_rebuilds_ends_them_all(
    instance: Instance, client: Client
) -> None:
    library = slow(client, "doomed")
    with instance.connect(timeout_s=PATIENCE_S) as other:
        flying = [client.submit("library.rebuild", library=library, **_SLOW)]
        building(other, library)
        flying += [client.submit("library.rebuild", library=library, index="lsh") for _ in range(2)]
        other.ping()
        other.request("library.delete", library=library)
        client.set_timeout(PATIENCE_S)
        for pending in flying:
            with pytest.raises(VecError) as ended:
                pending.result()
            assert ended.value.code == "not_found"
        create(other, library, dimension=16)
        put(other, library, rows(_VECTORS[:100]))
        assert other.request("library.rebuild", library=library, index="kdtree")["vectors"] == 100
        assert len(list(other.search(vector=_VECTORS[0], k=1_000, library=library))) == 100
        history.check(other)
    assert "Traceback" not in instance.log()


def test_who_asked_may_go_away_and_the_rebuild_goes_on(instance: Instance, client: Client) -> None:
    library = create(client, "left", dimension=16, index="flat")
    put(client, library, rows(_VECTORS[:9_000]))
    with instance.connect() as other:
        other.submit("library.rebuild", library=library, index="hnsw")
        building(client, library)
    until(lambda: client.request("library.show", library=library)["index"] == "hnsw", "the rebuild")
    assert [event["reason"] for event in rebuilt(client, library)] == ["requested"]


def test_a_stop_in_the_middle_of_a_rebuild_does_not_wait_for_it_and_leaves_the_index_as_it_was(
    instance: Instance, client: Client
) -> None:
    library = slow(client, "stopped")
    with instance.connect() as other:
        flying = [other.submit("library.rebuild", library=library, **_SLOW) for _ in range(2)]
        building(client, library)
        pid = instance.pid()
        (daemon,) = (child for child in instance._children if child.pid == pid)
        daemon.send_signal(signal.SIGTERM)
        for pending in flying:
            with pytest.raises(VecError) as ended:
                pending.result()
            assert ended.value.code in ("shutting_down", "connection_lost")
        assert daemon.wait(PATIENCE_S) == 0
    assert "Traceback" not in instance.log()
    assert "level=critical" not in instance.log()
    instance.start()
    with instance.connect() as again:
        shown = again.request("library.show", library=library)
        assert (shown["index"], shown["parameters"], rebuilt(again, library)) == ("flat", {}, [])
        assert len(list(again.search(vector=_VECTORS[0], k=100_000, library=library))) == len(_VECTORS)


def test_codes_of_data_that_has_become_another_are_made_anew_by_themselves(client: Client) -> None:
    library = create(client, "drifting", dimension=16, metric="l2")
    put(client, library, rows(_VECTORS[:16_500]))
    structured(client, library)
    others = 100 + 50 * drawn(1_500, 16, seed=2)
    put(client, library, rows(others, 16_500))
    until(lambda: "drift" in [event["reason"] for event in rebuilt(client, library)], "the drift")
    said = structured(client, library)
    assert (said["vectors"], said["structure"], said["dead"]) == (18_000, 18_000, 0)
    assert ids(client.search(vector=others[7], k=1, library=library)) == ["16507"]
    assert ids(client.search(vector=_VECTORS[7], k=1, library=library)) == ["7"]


def test_a_structure_that_is_mostly_dead_is_built_anew_by_itself(client: Client) -> None:
    library = create(client, "shrinking", dimension=16, index="kdtree")
    put(client, library, rows(_VECTORS[:4_000]))
    structured(client, library)
    client.delete(library=library, where=["n >= 2500"])  # in several commits: it may be due before the last of them
    until(lambda: "compaction" in [event["reason"] for event in rebuilt(client, library)], "the compaction")
    until(lambda: memory(client, library)["maintenance"] is None, "its end")
    said = memory(client, library)
    assert said["vectors"] == 2_500
    assert said["dead"] <= said["structure"] / 5, "a fifth may be dead"
    assert {event["reason"] for event in rebuilt(client, library)} <= {"growth", "requested", "compaction"}
    assert len(list(client.search(vector=_VECTORS[0], k=10_000, library=library))) == 2_500
