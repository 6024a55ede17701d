"""--where: search, list, count and delete take filters, and one that is wrong is shown with what is wrong in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import end_of_input, feed, fresh, ids_in, line_of, rest_of, running

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "logs", "title": "Log rotation", "text": "Rotate the logs every night.", "metadata": {"year": 2019}},
    {"id": "mail", "text": "The mail server, every night.", "metadata": {"year": 2020, "tags": ["net", "mail"]}},
    {"id": "cron", "text": "A job that runs every night.", "metadata": {"year": 2021, "author": {"name": "ann"}}},
    {"id": "none", "text": "Nothing about every night."},
]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture(scope="module")
def texts(instance: Instance) -> str:
    """A library of four texts; no test writes to it."""
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson(DOCUMENTS))
    return library


FILTERS: list[tuple[list[str], set[str]]] = [
    (["year >= 2020"], {"mail", "cron"}),
    (["year >= 2020", "not tags = mail"], {"cron"}),
    (["year != 2020"], {"logs", "cron", "none"}),
    (["author.name exists or title ^= 'Log rot'"], {"logs", "cron"}),
    (["document_id in (none, mail, other)"], {"none", "mail"}),
    (["year < 0"], set()),
]


def options(where: list[str], name: str = "--where") -> list[str]:
    return [each for one in where for each in (name, one)]


@pytest.mark.parametrize(("where", "found"), FILTERS)
def test_search_list_and_count_look_only_at_what_the_filters_let_through(
    instance: Instance, texts: str, where: list[str], found: set[str]
) -> None:
    for mode in ("auto", "text"):
        hits = instance.objects("search", "every night", "--mode", mode, "-l", texts, *options(where))
        assert {hit["document_id"] for hit in hits} == found
        assert [hit["rank"] for hit in hits] == list(range(1, len(found) + 1))
    listed = instance.objects("list", "-l", texts, *options(where, "-w"))
    assert [each["id"] for each in listed] == sorted(found)
    (status,) = instance.objects("status")
    assert instance.objects("count", "-l", texts, *options(where)) == [
        {"library": texts, "documents": len(found), "chunks": len(found), "seq": status["seq"]}
    ]


def test_delete_takes_what_the_filters_let_through(instance: Instance) -> None:
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson(DOCUMENTS))
    (said,) = instance.objects("delete", "-l", library, "--where", "year exists", "-w", "year != 2020")
    with instance.connect() as client:
        assert said == {"deleted": 2, "missing": 0, "seq": client.status()["seq"]}
    assert ids_in(instance, library) == ["mail", "none"]
    assert instance.objects("delete", "-l", library, "--where", "year = 1")[0]["deleted"] == 0
    assert instance.objects("delete", "-l", library, "--where", "exists year")[0]["deleted"] == 1


def test_delete_takes_ids_or_filters_or_stdin(instance: Instance, texts: str) -> None:
    for arguments in (["--where", "year = 1", "logs"], ["--where", "year = 1", "--stdin"]):
        done = instance.vec("delete", "-l", texts, *arguments, status=2, stdin="logs\n")
        assert (done.stdout, "specify either ids, --where, or --stdin" in done.stderr) == ("", True)
    assert len(ids_in(instance, texts)) == len(DOCUMENTS)


COMMANDS = {"search": ["search", "every night"], "list": ["list"], "count": ["count"], "delete": ["delete"]}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("where", "caret", "told"),
    [
        ("year = 'x", "       ^", "unterminated quote"),
        ("(year = 1", "         ^", "')' was expected, not the end"),
        ("tags = ü and year < true", "                    ^", "true is not allowed after <"),
    ],
)
def test_a_filter_that_is_wrong_is_shown_with_a_caret_under_what_is_wrong(
    instance: Instance, texts: str, command: str, where: str, caret: str, told: str
) -> None:
    done = instance.vec(*COMMANDS[command], "-l", texts, "--where", "year > 1", "--where", where, status=2)
    assert done.stdout == ""
    first, shown, under, hint = done.stderr.splitlines()
    assert first.startswith("vec: ")
    assert told in first
    assert first.endswith("(invalid_filter)")
    assert (shown, under) == (f"     {where}", f"     {caret}")
    assert hint.strip()
    assert len(ids_in(instance, texts)) == len(DOCUMENTS)


def test_an_empty_filter_is_none_that_could_be_read(instance: Instance, texts: str) -> None:
    for arguments in COMMANDS.values():
        done = instance.vec(*arguments, "-l", texts, "--where", "", status=2)
        assert (done.stdout, "a field was expected, not the end, at column 1" in done.stderr) == ("", True)


def test_of_a_long_filter_only_what_stands_around_the_caret_is_shown(instance: Instance, texts: str) -> None:
    for before in (0, 30, 55, 60, 100, 5_000):
        where = " " * before + "a = 1 and year = ('wrong') or " + "b = 2 and " * 200 + "c = 3"
        lines = instance.vec("count", "-l", texts, "-w", where, status=2).stderr.splitlines()
        shown, under = lines[1], lines[2]
        assert len(shown) <= 130
        assert shown[len(under) - 1 :].startswith("('wrong') or")
        assert under.strip() == "^"


@pytest.mark.parametrize(
    "where",
    ["year = \x1b[31m 'x", "year = 1 \x1b[31m", "year < '\x1b[31m' x", "year ^= \x1b[2J (", "'\x07' = 1 x"],
    ids=repr,
)
def test_a_filter_that_could_command_a_terminal_is_not_shown_as_it_is(
    instance: Instance, texts: str, where: str
) -> None:
    """A filter may be put together of what somebody else wrote."""
    done = instance.vec("count", "-l", texts, "-w", where, status=2)
    assert "invalid_filter" in done.stderr
    assert {character for character in done.stderr if not character.isprintable()} == {"\n"}


@pytest.mark.parametrize("command", ["search", "list", "count"])
def test_a_field_that_no_document_has_is_a_warning_with_the_nearest_name(
    instance: Instance, texts: str, command: str
) -> None:
    done = instance.vec(*COMMANDS[command], "-l", texts, "-w", "yaer = 2020", "--json")
    assert done.stderr == (
        "vec: warning: no document has the field 'yaer', at column 1 of the filter 'yaer = 2020'; did you mean year?\n"
    )
    assert "warnings" not in done.stdout
    done = instance.vec(*COMMANDS[command], "-l", texts, "-w", "\x1b[31m = 2020")
    assert "\x1b" not in done.stderr


def test_delete_by_a_field_that_no_document_has_deletes_nothing(instance: Instance, texts: str) -> None:
    done = instance.vec("delete", "-l", texts, "-w", "id != keep", status=2)
    assert (done.stdout, "did you mean" in done.stderr) == ("", False)  # nothing that would delete is suggested
    assert done.stderr.splitlines()[1:3] == ["     id != keep", "     ^"]
    assert len(ids_in(instance, texts)) == len(DOCUMENTS)


def test_every_key_can_be_named_in_a_filter(instance: Instance) -> None:
    library = fresh(instance)
    metadata = {"a b": {"c d": 1, "": 2}, "x.y": {"z": 3}, "": 4, "it's \"": {"and": 5}, "document_id": 6, "é": 7}
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "x", "text": "x", "metadata": metadata}]))
    for where in (
        '"a b"."c d" = 1', '"a b"."" = 2', "'x.y'.z = 3", '"" = 4', "'it\\'s \"'.and = 5", "metadata.document_id = 6",
        "'document_id' = 6", "é = 7",
    ):  # fmt: skip
        done = instance.vec("count", "-l", library, "-w", where)
        assert (json.loads(done.stdout)["documents"], done.stderr) == (1, ""), where


def test_in_a_library_that_is_not_there_nothing_is_found(instance: Instance) -> None:
    for arguments in COMMANDS.values():
        done = instance.vec(*arguments, "-l", "nowhere-at-all", "-w", "year = 1", status=4)
        assert (done.stdout, "does not exist" in done.stderr) == ("", True)


def test_effort_and_exactness_are_options_of_a_search(instance: Instance, texts: str) -> None:
    plain = instance.objects("search", "every night", "-l", texts)
    for arguments in (["--ef", "1"], ["--ef", "100000"], ["--exact"], ["--ef", "7", "--exact"]):
        assert instance.objects("search", "every night", "-l", texts, *arguments) == plain
    for effort in ("0", "100001", "many"):
        assert "--ef" in instance.vec("search", "every night", "-l", texts, "--ef", effort, status=2).stderr


# --- queries from stdin ---------------------------------------------------------------------------------------------


def test_each_query_from_stdin_may_bring_its_filter_and_effort(instance: Instance, texts: str) -> None:
    queries: list[dict[str, Any]] = [
        {"query": "every night", "where": "year = 2019"},
        {"query": "every night", "where": ["year >= 2020", "tags exists"], "exact": True},
        {"query": "every night", "ef": 50, "k": 1, "where": []},
        {"query": "every night", "exact": False, "ef": 1},
    ]
    hits = instance.objects("search", "-l", texts, "--stdin", "--where", "year = 2021", stdin=ndjson(queries))
    per_query: list[list[str]] = []
    for hit in hits:
        if hit["rank"] == 1:
            per_query.append([])
        per_query[-1].append(hit["document_id"])
    assert [per_query[0], per_query[1], len(per_query[2])] == [["logs"], ["mail"], 1]
    assert per_query[3] == ["cron"]  # no filter of its own: the options' holds
    assert all(hit["query"] == "every night" for hit in hits)


def test_a_query_whose_filter_is_wrong_is_named_and_costs_no_other(instance: Instance, texts: str) -> None:
    lines = ndjson([{"query": "every night", "k": 1}, {"query": "every night", "where": "year = 'x"}] * 2)
    done = instance.vec("search", "-l", texts, "--stdin", stdin=lines, status=3)
    assert [json.loads(line)["rank"] for line in done.stdout.splitlines()] == [1, 1]
    assert done.stderr.startswith("vec: stdin:2: ")
    assert done.stderr.splitlines()[1:3] == ["     year = 'x", "            ^"]


@pytest.mark.parametrize(
    "wrong", [{"where": 5}, {"where": [5]}, {"where": {"year": 1}}, {"ef": "5"}, {"ef": 0}, {"exact": 1}], ids=str
)
def test_a_query_with_a_field_of_the_wrong_sort_is_refused(
    instance: Instance, texts: str, wrong: dict[str, Any]
) -> None:
    done = instance.vec("search", "-l", texts, "--stdin", stdin=json.dumps({"query": "night", **wrong}), status=3)
    assert (done.stdout, f"'{next(iter(wrong))}' must be" in done.stderr) == ("", True)


def test_filtered_queries_are_answered_while_stdin_stays_open(instance: Instance) -> None:
    """A coprocess: what somebody writes between two queries is seen by the second."""
    library = fresh(instance)
    with running(instance, "search", "-l", library, "--stdin", "-w", "n exists") as process:
        for turn in range(20):
            document = {"id": f"d{turn % 3}", "text": "word", "metadata": {"n": turn}}
            write(instance, library, document)
            feed(process, json.dumps({"query": "word", "where": [f"n = {turn}"]}) + "\n")
            hit = line_of(process.stdout)
            assert (hit["document_id"], hit["metadata"]) == (f"d{turn % 3}", {"n": turn})
        end_of_input(process)
        assert rest_of(process.stdout) == ""
        assert process.wait() == 0


def write(instance: Instance, library: str, document: dict[str, Any]) -> None:
    with instance.connect() as client:
        assert client.ingest([document], library)["failed"] == 0
