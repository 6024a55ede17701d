"""The fields `where`, `ef` and `exact` of requests: what is refused, with what reason, and what nothing is found in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.inprocess import Daemon, Ops, daemon
from vecd import limits
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


@pytest.fixture(scope="module", autouse=True)
def libraries(loop_runner: asyncio.Runner, here: Daemon) -> None:
    """A library `some` of three documents, and `empty`, `unset` (which has no dimension yet)."""

    async def made() -> None:
        ops = here.connect()
        await create(ops, "some")
        many = [
            {"id": "a", "title": "One", "text": "zebra", "metadata": {"year": 2019, "by": "ann", "done": True}},
            {"id": "b", "title": "Two", "text": "zebra", "metadata": {"year": 2020, "by": "bob", "title": "Other"}},
            {"id": "c", "text": "horse", "metadata": {"a b": {"c": 1}, "x.y": [1, "2"], "deep": [{"n": 1}, {"n": 2}]}},
        ]
        await put(ops, "some", *many)
        await create(ops, "empty")
        await ops.call("library.create", library="unset", embedder="none")

    loop_runner.run(made())


async def create(ops: Ops, library: str) -> str:
    await ops.call("library.create", library=library, embedder="none", dimension=2)
    return library


async def put(ops: Ops, library: str, *documents: dict[str, Any]) -> None:
    """Writes documents, each with a vector of its own."""
    vectors = (np.array([1, n], "<f4").tobytes() for n in range(len(documents)))
    written = [{**each, "vector": vector} for each, vector in zip(documents, vectors, strict=True)]
    answer = await ops.call("ingest", library=library, documents=written)
    assert answer["failed"] == 0, answer["errors"]


async def ask(ops: Ops, op: str, **fields: Any) -> dict[str, Any]:
    return await ops.call(op.split()[0], **{**OPS[op], **fields})


async def refused(ops: Ops, op: str, **fields: Any) -> VecError:
    with pytest.raises(VecError) as raised:
        await ask(ops, op, **fields)
    return raised.value


async def count(ops: Ops, library: str, *where: str) -> int:
    found: int = (await ops.call("count", library=library, where=list(where)))["documents"]
    return found


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
async def test_every_sort_of_field_can_be_asked_for(ops: Ops, where: list[str], found: str) -> None:
    hits = (await ask(ops, "search", library="some", where=where))["hits"]
    assert sorted(hit["document_id"] for hit in hits) == list(found)
    listed = (await ask(ops, "list", library="some", where=where))["items"]
    assert [each["id"] for each in listed] == list(found)
    assert await count(ops, "some", *where) == len(found)


@pytest.mark.parametrize("op", OPS)
async def test_where_there_is_nothing_nothing_is_found(ops: Ops, op: str) -> None:
    seq = (await ops.call("status"))["seq"]
    nothing: dict[str, Any] = {
        "count": {"documents": 0, "chunks": 0, "seq": seq},
        "list": {"items": [], "seq": seq},
        "delete": {"deleted": 0, "missing": 0, "missing_ids": [], "seq": seq},
    }.get(op, {"hits": []})
    for library in ("empty", "unset", "some"):
        expected = {**nothing, "library": library} if op == "count" else nothing
        answer = await ask(ops, op, library=library, where=["year < 0"])
        if "hits" in answer:
            assert answer.pop("no_hits") in (f"library {library!r} is empty", "no document matches the filter")
        assert answer == expected
    assert (await ops.call("status"))["seq"] == seq


@pytest.mark.parametrize("op", OPS)
async def test_asking_the_default_library_makes_none(tmp_path: Path, op: str) -> None:
    async with daemon(tmp_path, {"VEC_EMBEDDER": "none"}) as own:
        ops = own.connect()
        await ask(ops, op, where=["a = 1"])
        assert (await refused(ops, op, where=["a ="])).code == "invalid_filter"
        assert (await ops.call("library.list"))["libraries"] == []
        assert (await ops.call("status"))["seq"] == 0


@pytest.mark.parametrize("op", OPS)
async def test_a_library_that_is_not_there_is_not_found(ops: Ops, op: str) -> None:
    assert (await refused(ops, op, library="nowhere", where=["a = 1"])).code == "not_found"


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["some", "empty", "unset", "default"])
@pytest.mark.parametrize("op", OPS)
async def test_a_filter_that_cannot_be_read_is_refused_with_its_column(ops: Ops, op: str, library: str) -> None:
    error = await refused(ops, op, library=library, where=["year = 2020", "year in (1, 'x"])
    assert error.code == "invalid_filter"
    assert {key: error.details[key] for key in ("field", "where", "column")} == {
        "field": "where", "where": "year in (1, 'x", "column": 13,
    }  # fmt: skip
    assert "unterminated quote" in error.message
    assert "vec-search(1)" in str(error.hint)


@pytest.mark.parametrize("op", [op for op in OPS if op != "delete"])
@pytest.mark.parametrize(
    ("where", "told", "hint"),
    [
        ("  year = '2020'", "'year' holds numbers, and '2020' is a string, at column 10", "leave out the quotes"),
        ("by in (5, 6)", "'by' holds strings, and 5 is a number, at column 8", "quote it: '5'"),
        ("id != a", "no document has the field 'id', at column 1", "did you mean document_id?"),
        ("done = true and yaer = 2020", "no document has the field 'yaer', at column 17", "did you mean year?"),
    ],
)
async def test_what_cannot_be_meant_is_answered_with_a_warning(
    ops: Ops, op: str, where: str, told: str, hint: str
) -> None:
    (warning,) = (await ask(ops, op, library="some", where=["by = ann", where]))["warnings"]
    assert told in warning
    assert hint in warning


@pytest.mark.parametrize(
    ("where", "column"),
    [("year != '2020'", 9), ("id != a", 1), ("not (by = bob or yaer = 1)", 18), ("by != 7", 7)],
)
async def test_a_delete_that_cannot_be_meant_is_refused_with_its_column(ops: Ops, where: str, column: int) -> None:
    error = await refused(ops, "delete", library="some", where=["by exists or not by exists", where])
    assert (error.code, error.details["where"], error.details["column"]) == ("invalid_filter", where, column)
    assert await count(ops, "some") == 3
    job = await ops.call("jobs.submit", kind="delete", params={"where": [where]}, library="some")
    *_, ended = (await ops.call("jobs.wait", job_ids=[job["job_id"]]))["items"]
    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_filter")
    assert await count(ops, "some") == 3


async def test_what_only_deleted_documents_hold_decides_nothing(ops: Ops) -> None:
    library = await create(ops, "once")
    await put(ops, library, {"id": "a", "metadata": {"n": 1}})
    before = {**await ask(ops, "count", library=library, where=["n = x"]), "seq": None}
    assert "'n' holds numbers" in before["warnings"][0]
    await put(ops, library, {"id": "b", "metadata": {"n": "x", "m": 1}})
    assert "warnings" not in await ask(ops, "count", library=library, where=["n = x", "m = 1"])
    await ops.call("delete", library=library, ids=["b"])
    assert {**await ask(ops, "count", library=library, where=["n = x"]), "seq": None} == before
    (warning,) = (await ask(ops, "count", library=library, where=["m = 1"]))["warnings"]
    assert "no document has the field 'm'" in warning
    assert "'n' holds numbers" in (await refused(ops, "delete", library=library, where=["n = x"])).message


async def test_a_filter_deletes_an_integer_and_not_its_neighbours(ops: Ops) -> None:
    library = await create(ops, "exact")
    await put(ops, library, *({"id": str(n), "metadata": {"b": n}} for n in range(2**53 - 2, 2**53 + 5)))
    assert (await ask(ops, "delete", library=library, where=[f"b = {2**53 + 1}"]))["deleted"] == 1
    assert (await ask(ops, "delete", library=library, where=[f"b > {2**53 + 3}"]))["deleted"] == 1
    assert await count(ops, library, f"b <= {2**53}") == 3


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "where",
    ["year = 2020", "", 5, 1.5, True, {"year": 2020}, b"year = 2020", [5], [None], [["year = 2020"]], ["a = 1", 7],
     ["a = 1"] * (limits.FILTERS_MAX + 1)],
    ids=lambda where: repr(where)[:20],
)  # fmt: skip
async def test_a_where_that_is_no_list_of_strings_is_refused(ops: Ops, op: str, where: Any) -> None:
    error = await refused(ops, op, library="some", where=where)
    assert (error.code, error.details["field"]) == ("invalid_request", "where")
    assert "'where' must be a list of" in error.message
    assert await count(ops, "some") == 3


async def test_so_many_filters_may_be_given(ops: Ops) -> None:
    where = [f"year != {year}" for year in range(limits.FILTERS_MAX)]
    assert await count(ops, "some", *where) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("ef", value) for value in (0, -1, limits.EF_MAX + 1, "5", 1.5, True, [5])),
        *(("exact", value) for value in (1, 0, "true", [True])),
    ],
)
async def test_an_effort_that_is_none_is_refused(ops: Ops, field: str, value: Any) -> None:
    error = await refused(ops, "search", library="some", **{field: value})
    assert (error.code, error.details["field"]) == ("invalid_request", field)


async def test_a_delete_takes_ids_or_a_filter(ops: Ops) -> None:
    where: list[str] | None
    for ids_ in (["a"], []):
        error = await refused(ops, "delete", library="some", ids=ids_, where=["year = 2019"])
        assert (error.code, error.details["field"]) == ("invalid_request", "where")
    for where in (None, []):
        error = await refused(ops, "delete", library="some", where=where)
        assert (error.code, error.details["field"]) == ("invalid_request", "ids")
    assert await count(ops, "some") == 3


async def test_filters_that_take_long_to_read_do_not_block_the_event_loop(ops: Ops) -> None:
    """The filters of a request may have a hundred thousand characters."""
    tests = limits.FILTER_TESTS_MAX // 10
    long = [" or ".join(f"year = {part}{number:080}" for number in range(tests)) for part in range(10)]
    assert limits.FILTER_CHARS_MAX * 0.8 < sum(map(len, long)) < limits.FILTER_CHARS_MAX
    counting = asyncio.ensure_future(count(ops, "some", *long))
    rounds = 0
    while not counting.done():
        await asyncio.sleep(0.001)
        rounds += 1
    assert counting.result() == 0
    assert rounds > 10, "on the event loop, reading them would take all rounds but the first and last"
