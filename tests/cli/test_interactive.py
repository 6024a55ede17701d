"""Pipes that are asked one thing at a time, as a coprocess does, and input that is wrong from the start."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.instance import Instance, ndjson


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        made.start()
        made.vec("ingest", stdin=ndjson([{"id": each, "text": f"text {each}"} for each in "abcdef"]))
        yield made


def test_get_answers_each_id_of_a_pipe_that_stays_open(instance: Instance) -> None:
    process = instance.spawn("get", "--stdin")
    assert process.stdin is not None
    assert process.stdout is not None
    for each in ("a", '{"id": "b"}', "c"):
        process.stdin.write(f"{each}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] in each
    process.stdin.close()
    assert process.wait(30) == 0


def test_what_stands_before_a_line_that_is_no_id_is_deleted_and_told(instance: Instance) -> None:
    done = instance.vec("delete", "--stdin", stdin='e\n{"no": "id"}\nf\n', status=2)
    assert json.loads(done.stdout)["deleted"] == 1
    assert "stdin:2" in done.stderr
    assert [each["id"] for each in instance.objects("get", "e", "f", status=4)] == ["f"]


@pytest.mark.parametrize("query", ["", "  "])
def test_an_empty_query_is_refused(instance: Instance, query: str) -> None:
    assert "empty" in instance.vec("search", query, status=2).stderr


def test_a_library_or_a_document_that_a_query_names_and_is_not_there_refuses_its_line_only(instance: Instance) -> None:
    lines = ndjson([{"query": "text a", "library": "other"}, {"like": "nosuch"}, {"query": "text a"}])
    done = instance.vec("search", "--stdin", "-k", "1", stdin=lines, status=3)
    assert json.loads(done.stdout)["query"] == "text a"
    assert "stdin:1: library 'other' does not exist" in done.stderr
    assert "stdin:2" in done.stderr
    assert instance.vec("search", "-l", "other", "--stdin", stdin=ndjson([{"query": "text a"}]), status=4).stdout == ""
