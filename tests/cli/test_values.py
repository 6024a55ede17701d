"""Nothing is changed on its way in: values are kept exactly or refused by name, and content that is sent again, in
whatever form, changes nothing."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import counted, fresh, ingested
from vecd import limits
from vecd.errors import VecError


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


# --- lines of JSON --------------------------------------------------------------------------------------------------

REFUSED = {
    "large": (
        '"metadata": {"k": {"n": [0, 12345678901234567890123]}}',
        r"'metadata.k.n[1]' is the integer 12345678901",
    ),
    "below": ('"metadata": {"k": -9223372036854775809}', "'metadata.k' is the integer -9223372036854775809"),
    "odd-key": ('"metadata": {"a b": {"": 18446744073709551616}}', '\'metadata."a b".""\' is the integer 184467'),
    "twice": ('"id": "y"', "the key 'id' occurs twice in the object"),
    "twice-inside": ('"metadata": {"k": [{"a": 1, "b": 2, "a": 1}]}', "the key 'a' occurs twice in 'metadata.k[0]'"),
    "twice-spaced": ('"metadata" :{"a" : ":", "a"\t: 2}', "the key 'a' occurs twice in 'metadata'"),
    "twice-escaped": ('"metadata": {"a\\\\": 1, "a\\\\": "b\\":"}', "occurs twice"),
    "deep": (f'"metadata": {{"k": {"[" * 240}{"]" * 240}}}', "'metadata' is nested more than 240 deep"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_cannot_be_kept_exactly_is_refused_by_its_line_and_place(instance: Instance, case: str) -> None:
    inside, told = REFUSED[case]
    library = fresh(instance)
    lines = [b'{"id": "a", "text": "x"}', f'{{"id": "x", "text": "t", {inside}}}'.encode(), b'{"id": "z", "text": "x"}']
    done = instance.vec("ingest", "-l", library, stdin=b"\n".join(lines), status=3)
    assert counted(json.loads(done.stdout)) == {"added": 2, "failed": 1}
    assert done.stderr.startswith("vec: stdin:2: ")
    assert told in done.stderr
    assert len(done.stderr) < 1_000


def test_odd_metadata_comes_back_as_it_was(instance: Instance) -> None:
    library = fresh(instance)
    metadata = {
        "n": [2**64 - 1, -(2**63), 2**53 + 1, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 0.1, 123456789.123456789],
        "": {"": None}, "a.b": "\x00\x1f", "\U0001f600": ["", [], {}, True], "'": "\ud7ff", "é": "e\u0301",
    }  # fmt: skip
    assert ingested(instance, library, ndjson([{"id": "x", "text": 'say "a": b', "metadata": metadata}])) == {
        "added": 1
    }
    (found,) = instance.objects("get", "-l", library, "x")
    assert repr(found["metadata"]) == repr(dict(sorted(metadata.items())))


# --- from Python ----------------------------------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 1


def test_python_values_are_carried_exactly_or_refused_by_document_and_place(instance: Instance) -> None:
    library = fresh(instance)
    bad: dict[str, Any] = {
        "nan": {"k": [1.0, float("nan")]},
        "inf": {"k": {"a": float("-inf")}},
        "huge": {"k": 2**64},
        "time": {"k": datetime.datetime(2026, 1, 1)},  # noqa: DTZ001
        "numpy": {"k": np.datetime64("2026-01-01")},
        "array": {"k": np.zeros(3)},
        "set": {"k": {1, 2}},
        "bytes": {"k": b"x"},
        "key": {"k": {1: 2}},
        "surrogate": {"k": "x\ud800"},
        "surrogate-key": {"\udfff": 1},
    }
    good: dict[str, Any] = {
        "tuple": {"k": (1, 2)}, "enum": {"k": Colour.RED}, "float64": {"k": np.float64(0.1)}, "zero": {"k": -0.0},
        "ordered": OrderedDict(b=1, a=2), "large": {"k": 2**64 - 1},
    }  # fmt: skip
    both = {**bad, **good}
    with instance.connect() as client:
        answer = client.ingest(({"id": each, "text": "x", "metadata": both[each]} for each in both), library)
        found = client.get(list(both), library)
    assert (answer["added"], answer["failed"]) == (len(good), len(bad))
    assert [error["index"] for error in answer["errors"]] == list(range(len(bad)))
    for error, name in zip(answer["errors"], bad, strict=True):
        assert (error["code"], error["field"]) == ("invalid_document", "metadata"), name
        assert "'metadata" in error["message"]
    assert [each is None for each in found] == [name in bad for name in both]
    assert [each["metadata"] for each in found if each is not None] == [
        {"k": [1, 2]}, {"k": 1}, {"k": 0.1}, {"k": -0.0}, {"a": 2, "b": 1}, {"k": 2**64 - 1},
    ]  # fmt: skip
    assert "metadata.k[1]" in answer["errors"][0]["message"]
    assert "nan" in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"k": [float("nan")]}, "'metadata.k[0]' is nan"),
        ({"k": float("inf"), "none": None}, "'metadata.k' is inf"),
        ({"k": {"a": b"x"}}, "'metadata.k.a' is of type bytes"),
    ],
)
def test_the_daemon_refuses_by_place_what_another_client_sends(
    instance: Instance, metadata: dict[str, Any], told: str
) -> None:
    documents = [{"id": "a", "text": "x", "metadata": metadata}, {"id": "b", "text": "x", "metadata": {"k": None}}]
    with instance.connect() as client:
        answer = client.request("ingest", library=fresh(instance), documents=documents)
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [0])
    assert told in answer["errors"][0]["message"]


# --- depth ----------------------------------------------------------------------------------------------------------


def nested(depth: int, *, lists: bool) -> dict[str, Any]:
    """Metadata that is so deep, itself included."""
    value: Any = "bottom"
    for level in range(depth - 1):
        value = [value] if lists and level % 2 else {"k": value}
    return {"k": value}


@pytest.mark.parametrize("lists", [False, True], ids=["objects", "lists"])
def test_metadata_as_deep_as_may_be_goes_through_everything_and_deeper_is_refused(
    instance: Instance, tmp_path: Path, lists: bool
) -> None:
    library, mirror, copy = (fresh(instance) for _ in range(3))
    deepest = {"id": "x", "text": "deep", "metadata": nested(limits.METADATA_DEPTH_MAX, lists=lists)}
    too_deep = {"id": "y", "text": "deep", "metadata": nested(limits.METADATA_DEPTH_MAX + 1, lists=lists)}
    done = instance.vec("ingest", "-l", library, stdin=ndjson([deepest, too_deep]), status=3)
    assert f"stdin:2: 'metadata' is nested more than {limits.METADATA_DEPTH_MAX} deep" in done.stderr
    with instance.connect() as client:
        (error,) = client.request("ingest", library=library, documents=[too_deep])["errors"]
        assert "nested more than" in error["message"]
        assert client.ingest([too_deep], library)["failed"] == 1
    wanted = deepest["metadata"]
    for arguments in (["get", "-l", library, "x"], ["list", "-l", library], ["search", "deep", "-l", library]):
        (found,) = instance.objects(*arguments)
        assert found["metadata"] == wanted
    watch = ["watch", "-l", library, "--from", "beginning", "--no-follow"]
    events = instance.objects(*watch, "--payload", "--type", "document.added")
    assert [event["data"]["document"]["metadata"] for event in events] == [wanted]
    letters = tmp_path / "letters.ndjson"
    instance.vec(*watch, "--payload", "--exec", "false", "--retries", "1", "--dead-letter", str(letters), status=3)
    told = [event for line in letters.read_text().splitlines() for event in json.loads(line)["events"]]
    assert wanted in [event["data"].get("document", {}).get("metadata") for event in told]
    lines = instance.vec(*watch, "--format", "ingest").stdout
    assert ingested(instance, mirror, lines) == {"added": 1}
    assert instance.objects("list", "-l", mirror)[0]["metadata"] == wanted
    file = tmp_path / "export.ndjson"
    exported(instance, library, file)
    assert ingested(instance, copy, file.read_bytes()) == {"added": 1}
    assert instance.objects("list", "-l", copy)[0]["metadata"] == wanted
    assert instance.objects("count", "-l", library, "-w", "k exists")[0]["documents"] == 1


# --- the same content -----------------------------------------------------------------------------------------------


def exported(instance: Instance, library: str, file: Path, **params: Any) -> bytes:
    with instance.connect() as client:
        job = client.submit_job("export", {"path": str(file), **params}, library=library)
        (ended,) = client.wait_for_jobs([job["job_id"]], timeout_s=60)
    assert ended["state"] == "completed", ended
    return file.read_bytes()


CONTENTS: list[dict[str, Any]] = [
    {"id": "one", "title": "A title", "text": "One chunk.", "metadata": {"b": 1, "a": [None, {"y": 1, "x": 2}]}},
    {"id": "many", "text": "Some sentence that is long enough. " * 40},
    {"id": "parts", "texts": ["first", "second"], "metadata": {}},
    {"text": "without an id"},
]


@pytest.mark.parametrize("vectors", [False, True])
def test_an_export_and_a_mirror_of_it_ingested_again_change_nothing(
    instance: Instance, tmp_path: Path, vectors: bool
) -> None:
    library = fresh(instance)
    assert ingested(instance, library, ndjson(CONTENTS)) == {"added": 4}
    lines = exported(instance, library, tmp_path / "export", vectors=vectors)
    assert ingested(instance, library, lines) == {"unchanged": 4}
    watched = ["watch", "-l", library, "--from", "beginning", "--no-follow", "--format", "ingest"]
    watched.append("--vectors" if vectors else "--no-vectors")
    assert ingested(instance, library, instance.vec(*watched).stdout) == {"unchanged": 4}
    assert ingested(instance, library, ndjson(CONTENTS)) == {"unchanged": 4}
    copy = fresh(instance)
    assert ingested(instance, copy, lines) == {"added": 4}
    assert ingested(instance, copy, lines) == {"unchanged": 4}


def test_whatever_the_form_the_same_content_is_unchanged_and_other_content_is_not(instance: Instance) -> None:
    library = fresh(instance)

    def put(**document: Any) -> dict[str, int]:
        return ingested(instance, library, ndjson([{"id": "x", **document}]))

    assert put(text="a", metadata={"a": 1, "b": 2}) == {"added": 1}
    assert put(texts=["a"], metadata={"b": 2, "a": 1}, title=None) == {"unchanged": 1}
    assert put(text="a", metadata={"a": 1.0, "b": 2}) == {"updated": 1}
    assert put(texts=["a", "a"], metadata={"a": 1.0, "b": 2}) == {"updated": 1}
    assert put(text="a", title="t") == {"updated": 1}
    assert put(text="a") == {"updated": 1}
    own = [1.0] + [0.0] * 255
    assert put(text="a", vector=own) == {"updated": 1}
    assert put(texts=["a"], vectors=[own]) == {"unchanged": 1}
    assert put(text="a") == {"updated": 1}  # the embedder's again
    with instance.connect() as client:
        (document,) = client.get(["x"], library, vectors=True)
    assert document is not None
    made = np.frombuffer(document["chunks"][0]["vector"], "<f4").tolist()
    assert put(text="a", vector=made) == {"unchanged": 1}
    assert put(text="a", vector=[-value for value in made]) == {"updated": 1}


def test_a_document_without_an_id_keeps_the_id_that_it_has_always_had(instance: Instance) -> None:
    """The ids of version 0.1.0: a document that is sent again is the same one."""
    library = fresh(instance)
    lines: list[dict[str, Any]] = [
        {"text": "without an id"},
        {"texts": ["a", "b"], "title": "t", "metadata": {"b": 1, "a": None}},
    ]
    assert ingested(instance, library, ndjson(lines)) == {"added": 2}
    assert {each["id"] for each in instance.objects("list", "-l", library)} == {
        "9452ec0a0513af6b444857485cc4c36c", "348fc94a3f191ca9bdf89277d60b7238",
    }  # fmt: skip
    assert ingested(instance, library, ndjson(lines)) == {"unchanged": 2}


def test_in_a_reembedded_library_the_same_content_is_unchanged(instance: Instance) -> None:
    library = fresh(instance)
    own = {"id": "own", "text": "b", "vector": [1.0] + [0.0] * 255}
    assert ingested(instance, library, ndjson([{"id": "x", "text": "a"}, own])) == {"added": 2}
    with instance.connect() as client:
        job = client.submit_job("reembed", {"embedder": "hash", "chunk_chars": 500}, library=library)
        (ended,) = client.wait_for_jobs([job["job_id"]], timeout_s=60)
    assert ended["state"] == "completed", ended
    assert ingested(instance, library, ndjson([{"id": "x", "text": "a"}, {"id": "own", "text": "b"}])) == {
        "unchanged": 2
    }
    assert ingested(instance, library, ndjson([own])) == {"updated": 1}


def test_a_client_that_cannot_send_a_value_says_which(instance: Instance) -> None:
    with instance.connect() as client, pytest.raises(VecError, match="not UTF-8"):
        client.request("ingest", library="default", documents=[{"id": "x", "text": "\ud800"}])


# --- from Python ----------------------------------------------------------------------------------------------------


def test_of_a_batch_from_python_only_the_document_with_a_foreign_value_is_refused(
    instance: Instance, library: str
) -> None:
    foreign: dict[str, Any] = {
        "datetime": datetime.datetime(2026, 5, 6, tzinfo=datetime.UTC),
        "date": datetime.date(2026, 5, 6), "uuid": uuid.uuid4(),
        "timedelta": datetime.timedelta(1), "decimal": decimal.Decimal("1.5"), "path": Path("/x"), "set": {1},
        "bytes": b"x", "array": np.arange(3), "datetime64": np.datetime64("2026-05-06"), "nan": np.float32("nan"),
        "complex": 1j, "object": object(), "generator": (each for each in "ab"), "long": np.longdouble(0.5),
    }  # fmt: skip
    batch = [{"id": name, "text": name, "metadata": {"list": [{"deep": value}]}} for name, value in foreign.items()]
    fine = [{"id": f"fine{number}", "text": "fine"} for number in range(len(batch))]
    with instance.connect() as client:
        answer = client.ingest([each for pair in zip(fine, batch, strict=True) for each in pair], library)
        assert (answer["added"], answer["failed"]) == (len(fine), len(batch))
        assert [(error["index"], error["id"]) for error in answer["errors"]] == [
            (2 * place + 1, name) for place, name in enumerate(foreign)
        ]
        assert {(error["code"], error["path"]) for error in answer["errors"]} == {
            ("invalid_document", "metadata.list[0].deep")
        }
        assert all(error["hint"] for error in answer["errors"])


def test_numpys_numbers_from_python_are_kept_exactly(instance: Instance, library: str) -> None:
    numbers = {
        "int64": np.int64(-(2**63)), "uint64": np.uint64(2**64 - 1), "int8": np.int8(-5), "bool": np.bool_(True),
        "float64": np.float64(0.1), "float32": np.float32(0.1), "float16": np.float16(0.1), "text": np.str_("é"),
    }  # fmt: skip
    document = {"id": "numbers", "text": "numbers", "metadata": {**numbers, "list": [(np.int32(1), None)]}}
    with instance.connect() as client:
        assert client.ingest([document], library)["errors"] == []
        (found,) = client.get(["numbers"], library)
        assert client.count(library, where="int8 = -5 AND bool = true")["documents"] == 1
    assert found is not None
    assert found["metadata"] == {
        "int64": -(2**63), "uint64": 2**64 - 1, "int8": -5, "bool": True, "float64": 0.1,
        "float32": 0.10000000149011612, "float16": 0.0999755859375, "text": "é", "list": [[1, None]],
    }  # fmt: skip
    assert isinstance(document["metadata"], dict)
    assert type(document["metadata"]["int8"]) is np.int8, "the caller's document is left as it is"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "a", "metadata": {"k": [0, 1e400]}}', "'metadata.k[1]' is 1e400, and the largest number is 1.8e308"),
        ('{"id": "a", "metadata": {"k": -Infinity}}', "'metadata.k' is -Infinity, and JSON has no NaN"),
        ('{"id": "a", "metadata": {"[": "{", "k": NaN}}', "'metadata.k' is NaN, and JSON has no NaN"),
        ('{"id": "[[[", "deep": ' + "[" * 5_000 + "]" * 5_000 + "}", "'deep' is nested too deep: more than"),
        ('{"id": "a", "metadata": ' + '{"a":' * 5_000 + "1" + "}" * 5_001, "'metadata' is nested too deep"),
        ('{"id": "a", "metadata": {"k": 01}}', "not JSON"),
    ],
)
def test_a_line_that_the_parser_refuses_is_named_with_its_field(
    instance: Instance, library: str, line: str, told: str
) -> None:
    done = instance.vec("ingest", "-l", library, stdin=f'{{"id": "fine", "text": "fine"}}\n{line}\n', status=3)
    assert done.stderr.startswith("vec: stdin:2: ")
    assert told in done.stderr
    assert json.loads(done.stdout)["added"] == 1
