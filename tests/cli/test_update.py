"""vec update: metadata changes, and neither texts nor vectors do; watches and filters see it as any other update."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import documents, ingested

GIVEN: list[dict[str, Any]] = [
    {"id": "a", "text": "rotate the logs", "metadata": {"year": 2020, "author": {"name": "Ada", "born": 1815}}},
    {"id": "b", "title": "Mail", "texts": ["first", "second"], "metadata": {"year": 2024}},
    {"id": "-c", "text": "csv"},
]


@pytest.fixture
def filled(instance: Instance, library: str) -> str:
    ingested(instance, library, ndjson(GIVEN))
    return library


def update(instance: Instance, library: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    (answer,) = instance.objects("update", "-l", library, *arguments, status=status)
    return dict(answer)


def test_keys_are_set_and_removed_and_texts_and_vectors_stay(instance: Instance, filled: str) -> None:
    before = documents(instance, filled, "a", "b")
    answer = update(
        instance, filled, "a", "b", "--set", "topic=ops", "--set", "author.name=Bo", "--set", 'n="5"', "--set", "k=5",
        "--set", '"x=y".z=[1, null]', "--unset", "year", "--unset", "no.such",
    )  # fmt: skip
    assert (answer["updated"], answer["unchanged"], answer["missing"], answer["failed"]) == (2, 0, 0, 0)
    after = documents(instance, filled, "a", "b")
    new = {"topic": "ops", "n": "5", "k": 5, "x=y": {"z": [1, None]}}
    assert after[0]["metadata"] == {**new, "author": {"name": "Bo", "born": 1815}}
    assert after[1]["metadata"] == {**new, "author": {"name": "Bo"}}
    assert [each["chunks"] for each in after] == [each["chunks"] for each in before]
    assert [each["title"] for each in after] == [None, "Mail"]
    hits = instance.objects("search", "second", "-l", filled, "-w", "topic = ops and k > 4", "--mode", "text")
    assert [hit["chunk_id"] for hit in hits] == ["b#1"]


def test_it_is_an_update_in_the_log_and_nothing_if_nothing_changes(instance: Instance, filled: str) -> None:
    seq = update(instance, filled, "a", "--set", "year=2020")["seq"]
    answer = update(instance, filled, "b", "--set", "year=2025")
    assert answer["seq"] > seq
    events = instance.objects("watch", "-l", filled, "--from", "beginning", "--no-follow", "--payload")
    last = [each for each in events if each["type"].startswith("document.")][-1]
    assert (last["type"], last["data"]["document"]["metadata"]) == ("document.updated", {"year": 2025})
    assert last["data"]["replaced"]["metadata"] == {"year": 2024}
    assert [each["type"] for each in events if each["seq"] > seq] == [
        "document.updated", *["chunk.deleted"] * 2, *["chunk.added"] * 2,
    ]  # fmt: skip
    assert update(instance, filled, "b", "--set", "year=2025")["unchanged"] == 1


def test_the_same_document_ingested_with_the_new_metadata_is_unchanged(instance: Instance, filled: str) -> None:
    """Its digest is that of the content, also where vectors were ingested."""
    ingested(instance, filled, ndjson([{"id": "v", "text": "own", "vector": [1.0] + [0.0] * 255}]))
    update(instance, filled, "-w", "document_id in (a, v)", "--set", "new=true")
    again = [
        {**GIVEN[0], "metadata": {**GIVEN[0]["metadata"], "new": True}},
        {"id": "v", "text": "own", "vector": [1.0] + [0.0] * 255, "metadata": {"new": True}},
    ]
    assert ingested(instance, filled, ndjson(again)) == {"unchanged": 2}
    # Without its vector, the text is embedded: that is another document.
    assert ingested(instance, filled, ndjson([{"id": "v", "text": "own", "metadata": {"new": True}}])) == {"updated": 1}


def test_a_filter_selects_and_many_documents_are_updated_once_each(instance: Instance, library: str) -> None:
    given = [{"id": f"d{n}", "texts": [f"text {n}"] * (1 + n % 3), "metadata": {"n": n}} for n in range(1_300)]
    ingested(instance, library, ndjson(given))
    assert update(instance, library, "-w", "n >= 100", "--set", "old=1", "--unset", "n")["updated"] == 1_200
    count = instance.objects("count", "-l", library, "-w", "old = 1 and not (n exists)")[0]
    assert (count["documents"], count["chunks"]) == (1_200, sum(1 + n % 3 for n in range(100, 1_300)))
    everything = instance.objects("count", "-l", library)[0]
    assert everything["documents"] == 1_300
    refused = instance.vec("update", "-l", library, "-w", "idd != x", "--set", "a=1", status=2)
    assert "no document has the field 'idd'" in refused.stderr


def test_what_is_missing_or_cannot_be_changed_is_said_and_the_rest_is_done(instance: Instance, filled: str) -> None:
    lines = "\n".join(map(json.dumps, ["a", "none", "b"]))
    done = instance.vec("update", "-l", filled, "--stdin", "--set", "year.x=1", "--set", "t=1", stdin=lines, status=3)
    answer = json.loads(done.stdout)
    assert (answer["updated"], answer["missing"], answer["failed"]) == (0, 1, 2)
    assert "document 'none' does not exist" in done.stderr
    assert "document 'a': the metadata field 'year' is not an object" in done.stderr
    assert update(instance, filled, "--set", "t=1", "--", "-c", "none", status=4)["updated"] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "--set", "title=x"], "'title' is the document's own"),
        (["a", "--set", "a b=x"], "'a b' is not the name of a field"),
        (["a", "--set", "=x"], "--set '=x' is not KEY=VALUE"),
        (["a", "--set", "k=1", "--set", "k=2"], "--set k is given twice"),
        (["a", "--set", "k=1", "--unset", "k"], "overlap"),
        (["a", "--set", "k.b=1", "--set", "k=1"], "overlap"),
        (["a"], "nothing to change"),
        (["a", "-w", "year = 1", "--set", "k=1"], "specify either ids, --where, or --stdin"),
    ],
)
def test_what_makes_no_sense_is_refused(instance: Instance, filled: str, arguments: list[str], told: str) -> None:
    assert told in instance.vec("update", "-l", filled, *arguments, status=2).stderr


def test_an_update_while_a_reembed_replaces_documents_keeps_the_new_vectors(instance: Instance, library: str) -> None:
    """Whenever it comes, every document has the metadata, and the vectors of the new chunks."""
    given = [{"id": f"d{n}", "text": f"word{n} " * 40, "metadata": {"n": n}} for n in range(400)]
    ingested(instance, library, ndjson(given))
    (job,) = instance.objects("jobs", "submit", "reembed", "-l", library, "--param", "chunk_chars=100")
    for number in range(4):
        assert update(instance, library, "-w", "n >= 0", "--set", f"round={number}")["failed"] == 0
    instance.vec("jobs", "wait", str(job["job_id"]), status=0)
    update(instance, library, "-w", "n >= 0", "--set", "round=last")
    found = documents(instance, library, *(f"d{n}" for n in range(400)))
    assert {each["metadata"]["round"] for each in found} == {"last"}
    assert {len(each["chunks"]) > 1 for each in found} == {True}
