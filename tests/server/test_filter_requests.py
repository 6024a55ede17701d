"""The fields `where`, `ef` and `exact` of requests: what is refused, with what reason, and what nothing is found in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.instance import Instance
from tests.support.vectors import create, ids, put
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError

_VECTOR = np.ones(2, "<f4").tobytes()

#: Each op that takes a filter, with what else it needs.
OPS: dict[str, dict[str, Any]] = {
    "search": {"vector": _VECTOR},
    "search by text": {"query": "zebra", "mode": "text"},
    "search by both": {"query": "zebra", "vector": _VECTOR, "mode": "hybrid"},
    "count": {},
    "list": {},
    "delete": {},
}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[Client]:
    """A library `some` of three documents, and `empty`, `unset` (which has no dimension yet)."""
    with instance.connect() as connected:
        create(connected, "some", dimension=2)
        many = [
            {"id": "a", "title": "One", "text": "zebra", "metadata": {"year": 2019, "by": "ann", "done": True}},
            {"id": "b", "title": "Two", "text": "zebra", "metadata": {"year": 2020, "by": "bob", "title": "Other"}},
            {"id": "c", "text": "horse", "metadata": {"a b": {"c": 1}, "x.y": [1, "2"], "deep": [{"n": 1}, {"n": 2}]}},
        ]
        put(connected, "some", ({**each, "vector": [1.0, n]} for n, each in enumerate(many)))
        create(connected, "empty", dimension=2)
        create(connected, "unset")
        yield connected


def asked(client: Client, op: str, **fields: Any) -> list[dict[str, Any]]:
    """All that the op answers, as a list."""
    pending = client.submit(op.split()[0], **{**OPS[op], **fields})
    answers: list[dict[str, Any]] = []
    for reply in pending.parts():
        answers += reply.body if reply.kind == "items" else [reply.body] if reply.body else []
    return answers


def refused(client: Client, op: str, **fields: Any) -> VecError:
    with pytest.raises(VecError) as raised:
        asked(client, op, **fields)
    return raised.value


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["document_id = a"], "a"),
        (["document_id in (a, c, x)"], "ac"),
        (["title = Two"], "b"),
        (["metadata.title = Other"], "b"),
        (["metadata.title exists"], "b"),
        (["title not exists"], "c"),
        (["year >= 2020"], "b"),
        (["year != 2020"], "ac"),
        (["year exists", "by ^= a"], "a"),
        (["done = true"], "a"),
        (["'a b' exists"], "c"),
        (["'x.y' = 1"], "c"),
        (["'x.y' = '2'"], "c"),
        (["x.y exists"], ""),
        (["deep.n = 1 and deep.n = 2"], "c"),
        (["nowhere = 1"], ""),
        (["nowhere != 1"], "abc"),
        ([], "abc"),
    ],
)
def test_every_sort_of_field_can_be_asked_for(client: Client, where: list[str], found: str) -> None:
    assert sorted(ids(client.search(vector=[1, 1], library="some", where=where))) == list(found)
    assert [each["id"] for each in client.items("list", "documents", library="some", where=where)] == list(found)
    assert client.count("some", where=where)["documents"] == len(found)


@pytest.mark.parametrize("op", OPS)
def test_where_there_is_nothing_nothing_is_found(client: Client, op: str) -> None:
    seq = client.status()["seq"]
    nothing: dict[str, Any] = {
        "count": {"documents": 0, "chunks": 0, "seq": seq},
        "list": {"seq": seq},
        "delete": {"deleted": 0, "missing": 0, "missing_ids": [], "seq": seq},
    }.get(op, {"hits": []})
    for library in ("empty", "unset", "some"):
        (*answers,) = asked(client, op, library=library, where=["year < 0"])
        expected = {**nothing, "library": library} if op == "count" else nothing
        assert answers == [expected]
    assert client.status()["seq"] == seq


@pytest.mark.parametrize("op", OPS)
def test_asking_the_default_library_makes_none(op: str) -> None:
    with Instance({"VEC_EMBEDDER": "none"}) as own:
        own.start()
        with own.connect() as client:
            assert asked(client, op, where=["a = 1"]) is not None
            assert refused(client, op, where=["a ="]).code == "invalid_filter"
            assert client.request("library.list")["libraries"] == []
            assert client.status()["seq"] == 0


@pytest.mark.parametrize("op", OPS)
def test_a_library_that_is_not_there_is_not_found(client: Client, op: str) -> None:
    assert refused(client, op, library="nowhere", where=["a = 1"]).code == "not_found"


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["some", "empty", "unset", "default"])
@pytest.mark.parametrize("op", OPS)
def test_a_filter_that_cannot_be_read_is_refused_with_its_column(client: Client, op: str, library: str) -> None:
    error = refused(client, op, library=library, where=["year = 2020", "year in (1, 'x"])
    assert error.code == "invalid_filter"
    assert {key: error.details[key] for key in ("field", "where", "column")} == {
        "field": "where", "where": "year in (1, 'x", "column": 13,
    }  # fmt: skip
    assert "a quote that is not closed" in error.message
    assert "vec-search(1)" in str(error.hint)


@pytest.mark.parametrize("op", [op for op in OPS if op != "delete"])
@pytest.mark.parametrize(
    ("where", "told", "hint"),
    [
        ("  year = '2020'", "'year' holds numbers, and '2020' is a string, at column 10", "leave out the quotes"),
        ("by in (5, 6)", "'by' holds strings, and 5 is a number, at column 8", "in quotes: '5'"),
        ("id != a", "no document has the field 'id', at column 1", "did you mean document_id?"),
        ("done = true and yaer = 2020", "no document has the field 'yaer', at column 17", "did you mean year?"),
    ],
)
def test_what_cannot_be_meant_is_answered_with_a_warning(
    client: Client, op: str, where: str, told: str, hint: str
) -> None:
    warnings: list[str] = []
    pending = client.submit(op.split()[0], **OPS[op], library="some", where=["by = ann", where])
    for reply in pending.parts():
        if reply.kind != "items":
            warnings += reply.body["warnings"]
    (warning,) = warnings
    assert told in warning
    assert hint in warning
    assert pending.warnings == warnings


@pytest.mark.parametrize(
    ("where", "column"),
    [("year != '2020'", 9), ("id != a", 1), ("not (by = bob or yaer = 1)", 18), ("by != 7", 7)],
)
def test_a_delete_that_cannot_be_meant_is_refused_with_its_column(client: Client, where: str, column: int) -> None:
    error = refused(client, "delete", library="some", where=["by exists or not by exists", where])
    assert (error.code, error.details["where"], error.details["column"]) == ("invalid_filter", where, column)
    assert client.count("some")["documents"] == 3
    job = client.submit_job("delete", {"where": [where]}, library="some")
    (ended,) = client.wait_for_jobs([job["job_id"]], timeout_s=30)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_filter")
    assert client.count("some")["documents"] == 3


def test_what_only_deleted_documents_hold_decides_nothing(client: Client) -> None:
    library = create(client, "once", dimension=2)
    put(client, library, [{"id": "a", "vector": [1, 0], "metadata": {"n": 1}}])
    before = {**client.count(library, where=["n = x"]), "seq": None}
    assert "'n' holds numbers" in before["warnings"][0]
    put(client, library, [{"id": "b", "vector": [1, 0], "metadata": {"n": "x", "m": 1}}])
    assert "warnings" not in client.count(library, where=["n = x", "m = 1"])
    client.delete(["b"], library)
    assert {**client.count(library, where=["n = x"]), "seq": None} == before
    assert "no document has the field 'm'" in client.count(library, where=["m = 1"])["warnings"][0]
    with pytest.raises(VecError, match="'n' holds numbers"):
        client.delete(library=library, where=["n = x"])


def test_a_filter_deletes_an_integer_and_not_its_neighbours(client: Client) -> None:
    library = create(client, "exact", dimension=2)
    put(client, library, ({"id": str(n), "vector": [1, 0], "metadata": {"b": n}} for n in range(2**53 - 2, 2**53 + 5)))
    assert client.delete(library=library, where=[f"b = {2**53 + 1}"])["deleted"] == 1
    assert client.delete(library=library, where=[f"b > {2**53 + 3}"])["deleted"] == 1
    assert client.count(library, where=[f"b <= {2**53}"])["documents"] == 3


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "where",
    ["year = 2020", "", 5, 1.5, True, {"year": 2020}, b"year = 2020", [5], [None], [["year = 2020"]], ["a = 1", 7],
     ["a = 1"] * (limits.FILTERS_MAX + 1)],
    ids=lambda where: repr(where)[:20],
)  # fmt: skip
def test_a_where_that_is_no_list_of_strings_is_refused(client: Client, op: str, where: Any) -> None:
    error = refused(client, op, library="some", where=where)
    assert (error.code, error.details["field"]) == ("invalid_request", "where")
    assert "'where' must be a list of" in error.message
    assert client.count("some")["documents"] == 3


def test_so_many_filters_may_be_given(client: Client) -> None:
    where = [f"year != {year}" for year in range(limits.FILTERS_MAX)]
    assert client.count("some", where=where)["documents"] == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("ef", value) for value in (0, -1, limits.EF_MAX + 1, "5", 1.5, True, [5])),
        *(("exact", value) for value in (1, 0, "true", [True])),
    ],
)
def test_an_effort_that_is_none_is_refused(client: Client, field: str, value: Any) -> None:
    error = refused(client, "search", library="some", **{field: value})
    assert (error.code, error.details["field"]) == ("invalid_request", field)


def test_a_delete_takes_ids_or_a_filter(client: Client) -> None:
    where: list[str] | None
    for ids_ in (["a"], []):
        error = refused(client, "delete", library="some", ids=ids_, where=["year = 2019"])
        assert (error.code, error.details["field"]) == ("invalid_request", "where")
    for where in (None, []):
        error = refused(client, "delete", library="some", where=where)
        assert (error.code, error.details["field"]) == ("invalid_request", "ids")
    assert client.count("some")["documents"] == 3


def test_filters_that_take_long_to_read_hold_nobody_up(instance: Instance, client: Client) -> None:
    """The filters of a request may have a hundred thousand characters."""
    answered = 0
    begun, over = threading.Event(), threading.Event()

    def ping() -> None:
        nonlocal answered
        with instance.connect() as other:
            while not over.is_set():
                other.ping()
                answered += begun.is_set()

    tests = limits.FILTER_TESTS_MAX // 10
    long = [" or ".join(f"year = {turn}{number:080}" for number in range(tests)) for turn in range(10)]
    assert limits.FILTER_CHARS_MAX * 0.8 < sum(map(len, long)) < limits.FILTER_CHARS_MAX
    bystander = threading.Thread(target=ping)
    bystander.start()
    try:
        counting = client.submit("count", library="some", where=long)
        begun.set()
        assert counting.result()["documents"] == 0
    finally:
        over.set()
        bystander.join()
    assert answered > 10, "on the event loop, reading them would hold up the second"
