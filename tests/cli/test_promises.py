"""Recall as a promise, on the command line: what can be asked for, what is refused, and how it is told to people."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import fresh
from vecd.client import explained

from .terminal import on_a_terminal

# mypy knows cli/ by its folder's name; it is imported by the name that it is installed under.
recall: Any = importlib.import_module("vec_cli.recall")
hits: Any = importlib.import_module("vec_cli.hits")
status: Any = importlib.import_module("vec_cli.commands.status")

_ABOUT = {"promise": 0.98, "met": False, "queries": 64, "mean": 0.95, "p5": 0.7, "worst": 0.0, "effort": 4.0}


def test_a_library_is_made_with_a_promise_and_a_language_and_shows_them(instance: Instance) -> None:
    (made,) = instance.objects("library", "create", "promised", "--recall", "0.9", "--language", "german")
    assert (made["recall"], made["language"]) == ({"promise": 0.9, "met": None, "own": None}, "german")
    seen = on_a_terminal(instance, "library", "show", "promised", NO_COLOR="1").out
    assert "text         german" in seen
    assert "recall       promise 0.9: not measured yet" in seen
    exact = fresh(instance, embedder="none", index="flat")
    seen = on_a_terminal(instance, "library", "show", exact, NO_COLOR="1").out
    assert "recall       promise 0.98: met, all searches are exact" in seen


def test_a_promise_is_changed_without_a_rebuild_and_watched(instance: Instance) -> None:
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "a", "text": "some words"}]))
    (said,) = instance.objects("library", "rebuild", library, "--recall", "0.9")
    assert (said["recall"]["promise"], said["vectors"], said["seconds"]) == (0.9, 0, 0.0)
    seen = on_a_terminal(instance, "library", "rebuild", library, "--recall", "0.8").out
    assert "recall 0.8; nothing was built" in seen
    arguments = ["watch", "--from", "beginning", "--no-follow", "-l", library, "--type", "index.*"]
    assert [event["data"]["promise"] for event in instance.objects(*arguments)] == [0.9, 0.8]
    assert "promise 0.8, not measured yet" in on_a_terminal(instance, *arguments, NO_COLOR="1").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["library", "create", "never", "--recall", "0.4"], "--recall"),
        (["library", "create", "never", "--recall", "1.1"], "--recall"),
        (["library", "create", "never", "--recall", "much"], "--recall"),
        (["library", "create", "never", "--recall", "nan"], "'--recall': must be a finite number"),
        (["library", "create", "never", "--language", "germen"], "did you mean 'german'?"),
        (["search", "x", "--recall", "0.4"], "--recall"),
        (["search", "x", "--recall", "nan"], "'--recall': must be a finite number"),
        (["search", "x", "--min-score", "high"], "--min-score"),
        (["search", "x", "--min-score", "inf"], "'--min-score': must be a finite number"),
        (["watch", "--timeout", "nan"], "'--timeout': must be a finite number"),
        (["search", "x", "--group-by", "word"], "--group-by"),
        (["search", "x", "--explain", "-k", "101"], "up to 100 hits can be explained"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(instance: Instance, arguments: list[str], told: str) -> None:
    done = instance.vec(*arguments, status=2)
    assert (done.stdout, told in done.stderr) == ("", True)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"recall": 2}, "'recall' must be a number from 0.5 to 1"),
        ({"group_by": "word"}, "hits cannot be grouped by 'word'"),
        ({"min_score": "high"}, "'min_score' must be a number"),
        ({"explain": True, "k": 101}, "up to 100 hits can be explained"),
    ],
)
def test_a_line_of_stdin_can_ask_for_the_same_and_is_refused_alike(
    instance: Instance, line: dict[str, Any], told: str
) -> None:
    done = instance.vec("search", "--stdin", stdin=ndjson([{"query": "words", **line}]), status=3)
    assert (done.stdout, told in done.stderr) == ("", True)


def test_an_explained_hit_holds_what_is_said_of_it_and_of_the_answer() -> None:
    whole = {"index": "pq", "exact": False, "recall": 0.99, "promise": 0.98, "met": True, "seq": 7, "mode": "hybrid"}
    own = {"vector": {"rank": 2, "score": 0.5}, "text": None}
    answer = {"hits": [{"rank": 1, "explain": own}], "explain": whole}
    assert explained(answer) == [{"rank": 1, "explain": {**whole, **own}}]
    assert hits.explained(own) == "vector: rank 2, score 0.5000"
    assert hits.explained({**own, "text": {"rank": 1, "score": 7}}) == (
        "vector: rank 2, score 0.5000, text: rank 1, score 7.0000"
    )
    assert hits.certainty(whole) == [
        "mode hybrid, index pq, as of event 7: approximate, recall 0.990 measured, 0.98 promised and met"
    ]
    unknown = {**whole, "recall": None, "met": None}
    assert hits.certainty(unknown)[0].endswith("approximate, recall not measured yet, 0.98 promised")
    assert hits.certainty({**whole, "exact": True})[0].endswith("as of event 7: exact")


def test_reports_are_told_in_a_line() -> None:
    figures = "mean 0.950, 5th percentile 0.700, worst 0.000 of 64 queries"
    assert recall.report(_ABOUT) == f"promise 0.98 not met: {figures}, effort ×4"
    assert recall.report({**_ABOUT, "met": True, "effort": "exact"}) == f"promise 0.98 met: {figures}, effort exact"
    assert recall.figures({**_ABOUT, "queries": 1}).endswith("of 1 query")
    assert recall.report({**dict.fromkeys(_ABOUT), "promise": 0.9}) == "promise 0.9, not measured yet"


def test_status_names_the_libraries_that_miss_their_promise(
    instance: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    (body,) = instance.objects("status")
    kept = {"name": "kept", "recall": {"promise": 0.98, "met": True, "own": None}}
    missed = {"name": "missed", "recall": {"promise": 0.98, "met": False, "own": _ABOUT}}
    unloaded = {"name": "unloaded", "recall": {"promise": 0.9, "met": False, "own": None}}
    like = {
        "documents": 0, "chunks": 0, "dimension": 2, "metric": "cosine", "index": "hnsw", "embedder": "none",
        "memory": {"state": "unloaded"},
    }  # fmt: skip
    libraries = [{**like, **each} for each in (kept, missed, unloaded)]
    status.show(importlib.import_module("vec_cli.output").Output(json=False), {**body, "libraries": libraries})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("recall")]
    assert lines == [
        f"recall       library missed: {recall.report(_ABOUT)}",
        "recall       library unloaded: promise 0.9 not met when it was last measured",
    ]
