"""vec ingest: a line that cannot go in is named, with its file, its number and the reason, and costs no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import counted, documents, feed, fresh, ids_in, ingested, line_of, numbered, running
from vecd import limits

# --- what is refused ------------------------------------------------------------------------------------------------


def test_with_create_false_a_library_that_does_not_exist_is_exit_4_with_what_to_do() -> None:
    with Instance({"VEC_CREATE": "false"}) as own:
        own.start()
        refuses_to_create(own)


def refuses_to_create(instance: Instance) -> None:
    name = fresh(instance)
    assert "not_found" in instance.vec("ingest", "-l", "nothing-like-it", stdin="", status=4).stderr
    done = instance.vec("ingest", "-l", "nothing-like-it", stdin=ndjson(numbered(1)), status=4)
    assert "library 'nothing-like-it' does not exist" in done.stderr
    assert "vec library create nothing-like-it" in done.stderr
    assert counted(json.loads(done.stdout)) == {}
    mistyped = name.replace("library", "libary")
    done = instance.vec("ingest", "-l", mistyped, stdin=ndjson(numbered(1)), status=4)
    assert f"did you mean {name!r}?" in done.stderr


@pytest.mark.parametrize("arguments", [["--batch", "0"], ["--batch", "8193"], ["--batch", "x"], ["--no-such-option"]])
def test_options_that_make_no_sense_are_usage_errors(instance: Instance, arguments: list[str]) -> None:
    assert instance.vec("ingest", *arguments, status=2).stdout == ""


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


TOO_DEEP = f"'metadata' is nested more than {limits.METADATA_DEPTH_MAX} deep"
TOO_MANY_CHUNKS = f"{limits.DOCUMENT_CHUNKS_MAX + 1:,} chunks is over the limit of {limits.DOCUMENT_CHUNKS_MAX:,}"

#: id -> (the line, what its refusal must say). The library's texts are embedded, its vectors have 256 dimensions.
REFUSED_TEXTS: dict[str, tuple[str | bytes, str]] = {
    "half-an-object": ('{"id": "x", "text": ', "not JSON"),
    "two-objects": ('{"id": "x", "text": "a"} {"id": "y", "text": "b"}', "not JSON"),
    "single-quotes": ("{'id': 'x', 'text': 'a'}", "not JSON"),
    "no-json": ("hello", "not JSON"),
    "list": ('[{"id": "x", "text": "a"}]', "JSON object.*list"),
    "string": ('"x"', "JSON object"),
    "number": ("5", "JSON object"),
    "null": ("null", "JSON object"),
    "true": ("true", "JSON object"),
    "empty-object": ("{}", "needs a 'text'"),
    "only-an-id": ('{"id": "x"}', "needs a 'text'"),
    "only-null": ('{"id": "x", "text": null}', "needs a 'text'"),
    "id-fraction": ('{"id": 5.5, "text": "a"}', "'id' must be a string or a whole number, not 5.5"),
    "id-list": ('{"id": ["x"], "text": "a"}', "'id' must be a string or a whole number, not a list"),
    "id-true": ('{"id": true, "text": "a"}', "'id' must be a string or a whole number, not true or false"),
    "id-empty": ('{"id": "", "text": "a"}', "'id' must not be empty"),
    "id-newline": ('{"id": "x\\ny", "text": "a"}', "'id' must not .* line break"),
    "id-nul": ('{"id": "x\\u0000y", "text": "a"}', "'id' must not .* NUL"),
    "id-too-long": (
        json.dumps({"id": "x" * (limits.ID_BYTES_MAX + 1), "text": "a"}),
        f"'id' has {limits.ID_BYTES_MAX + 1:,} bytes, the limit is {limits.ID_BYTES_MAX:,}",
    ),
    "id-too-long-in-bytes": (json.dumps({"id": "ü" * (limits.ID_BYTES_MAX // 2 + 1), "text": "a"}), "'id' has .* byte"),
    "title-number": ('{"id": "x", "title": 5, "text": "a"}', "'title' must be a string, not a number"),
    "title-empty": ('{"id": "x", "title": "", "text": "a"}', "'title' is empty"),
    "title-too-long": (json.dumps({"id": "x", "title": "t" * 5_000, "text": "a"}), "'title' has 5,000 bytes"),
    "text-number": ('{"id": "x", "text": 5}', "'text' must be a string, not a number"),
    "text-list": ('{"id": "x", "text": ["a"]}', "'text' must be a string, not a list"),
    "text-object": ('{"id": "x", "text": {}}', "'text' must be a string, not an object"),
    "text-false": ('{"id": "x", "text": false}', "'text' must be a string, not true or false"),
    "text-empty": ('{"id": "x", "text": ""}', "'text' is empty"),
    "text-blank": ('{"id": "x", "text": " \\n\\t "}', "'text' is empty"),
    "texts-string": ('{"id": "x", "texts": "a"}', "'texts' must be a list of texts, not a string"),
    "texts-empty": ('{"id": "x", "texts": []}', "'texts' must be a list of texts, not an empty list"),
    "texts-of-numbers": ('{"id": "x", "texts": ["a", 5]}', r"'texts\[1\]' must be a string, not a number"),
    "texts-of-empty": ('{"id": "x", "texts": ["", "b"]}', r"'texts\[0\]' is empty"),
    "texts-of-null": ('{"id": "x", "texts": ["a", null]}', r"'texts\[1\]' must be a string, not null"),
    "text-and-texts": ('{"id": "x", "text": "a", "texts": ["b"]}', "'text' or 'texts', not both"),
    "metadata-list": ('{"id": "x", "text": "a", "metadata": [1]}', "'metadata' must be an object, not a list"),
    "metadata-empty-list": ('{"id": "x", "text": "a", "metadata": []}', "'metadata' must be an object, not an empty"),
    "metadata-string": ('{"id": "x", "text": "a", "metadata": "m"}', "'metadata' must be an object, not a string"),
    "metadata-empty-string": ('{"id": "x", "text": "a", "metadata": ""}', "'metadata' must be an object"),
    "metadata-zero": ('{"id": "x", "text": "a", "metadata": 0}', "'metadata' must be an object, not a number"),
    "metadata-false": ('{"id": "x", "text": "a", "metadata": false}', "'metadata' must be an object, not true or"),
    "metadata-too-large": (
        json.dumps({"id": "x", "text": "a", "metadata": {"much": "y" * limits.METADATA_BYTES_MAX}}),
        f"'metadata' has .* the limit is {limits.METADATA_BYTES_MAX:,}",
    ),
    "metadata-deep": (f'{{"id": "x", "text": "a", "metadata": {{"k": {nested(300)}}}}}', TOO_DEEP),
    "metadata-deeper": (f'{{"id": "x", "text": "a", "metadata": {{"k": {nested(800)}}}}}', TOO_DEEP),
    "metadata-deepest": (f'{{"id": "x", "text": "a", "metadata": {{"k": {nested(100_000)}}}}}', "nested too deep"),
    "metadata-infinite": ('{"id": "x", "text": "a", "metadata": {"k": 1e999}}', "'metadata.k' is 1e999, .* string"),
    "unknown-key-near": ('{"id": "x", "txt": "a"}', "unknown key 'txt'; did you mean 'text'"),
    "unknown-key-case": ('{"ID": "x", "text": "a"}', "unknown key 'ID'"),
    "unknown-key-far": ('{"id": "x", "text": "a", "colour": "red"}', "unknown key 'colour'; .*'metadata'"),
    "unknown-key-long": (json.dumps({"id": "x", "text": "a", "k" * 100_000: 1}), "unknown key 'kkk"),
    "unknown-op": ('{"op": "upsert", "id": "x"}', "unknown op 'upsert'.*delete"),
    "op-null": ('{"op": null, "id": "x", "text": "a"}', "unknown op"),
    "delete-nothing": ('{"op": "delete"}', "a delete needs an 'id'"),
    "delete-with-text": ('{"op": "delete", "id": "x", "text": "a"}', "only an 'id', not 'text'"),
    "delete-fraction": ('{"op": "delete", "id": 5.5}', "'id' must be a string or a whole number, not 5.5"),
    "NaN": ('{"id": "x", "text": "a", "metadata": {"k": NaN}}', "'metadata.k' is NaN, and JSON has no NaN"),
    "Infinity": ('{"id": "x", "text": "a", "metadata": {"k": -Infinity}}', "'metadata.k' is -Infinity, .* no Infinity"),
    "invalid-utf-8": (b'{"id": "x", "text": "caf\xe9"}', "invalid UTF-8: byte 0xe9 at offset 24"),
    "utf-16": ('{"id": "x", "text": "a"}'.encode("utf-16-le").replace(b"\n", b""), "not JSON"),
    "lone-surrogate": ('{"id": "x", "text": "\\ud800"}', "not JSON.*surrogate"),
    "lone-surrogate-id": ('{"id": "\\udfff", "text": "a"}', "not JSON.*surrogate"),
    "raw-control-character": ('{"id": "x", "text": "a\tb"}', "not JSON"),
    "over-the-limit": (b'{"id": "x", "text": "' + b"y" * limits.LINE_BYTES_MAX + b'"}', "over the limit of 8,388,608"),
    "own-vector-of-another-dimension": ('{"id": "x", "text": "a", "vector": [1, 2, 3]}', "256-dimension.* has 3"),
    "too-many-texts": (
        json.dumps({"id": "x", "texts": ["a"] * (limits.DOCUMENT_CHUNKS_MAX + 1)}), TOO_MANY_CHUNKS
    ),
    "far-too-many-texts": (json.dumps({"id": "x", "texts": ["a"] * 20_000}), "over the limit"),
    "too-long-a-text": (
        json.dumps({"id": "x", "text": "One sentence. And another one, then a line.\n" * 13_000}),
        f"chunks is over the limit of {limits.DOCUMENT_CHUNKS_MAX:,}",
    ),
}  # fmt: skip

#: The same where the library has no embedder and 3 dimensions.
REFUSED_VECTORS: dict[str, tuple[str | bytes, str]] = {
    "text-without-an-embedder": ('{"id": "x", "text": "a"}', "has no embedder, so a document needs a 'vector'"),
    "texts-without-an-embedder": ('{"id": "x", "texts": ["a"]}', "has no embedder"),
    "wrong-dimension": ('{"id": "x", "vector": [1, 2]}', "3-dimension vectors.* has 2"),
    "one-wrong-dimension": ('{"id": "x", "vectors": [[1, 2, 3], [1, 2, 3, 4]]}', "3-dimension vectors.* has 4"),
    "too-many-dimensions": (json.dumps({"id": "x", "vector": [0] * 20_000}), "3-dimension vectors.* has 20000"),
    "vector-string": ('{"id": "x", "vector": "abc"}', "vector.* list of numbers.*string"),
    "vector-number": ('{"id": "x", "vector": 5}', "vector.* list of numbers"),
    "vector-object": ('{"id": "x", "vector": {"a": 1}}', "vector.* list of numbers"),
    "vector-empty": ('{"id": "x", "vector": []}', "vector"),
    "vector-of-strings": ('{"id": "x", "vector": [1, "2", 3]}', "list of numbers.* contains a string"),
    "vector-of-null": ('{"id": "x", "vector": [1, null, 3]}', "list of numbers.* contains null"),
    "vector-of-true": ('{"id": "x", "vector": [1, true, 3]}', "list of numbers.* contains true or false"),
    "vector-of-lists": ('{"id": "x", "vector": [[1, 2, 3]]}', "list of numbers.* contains a list"),
    "vector-NaN": ('{"id": "x", "vector": [1, NaN, 3]}', r"'vector\[1\]' is NaN, .*leave the document out"),
    "vector-1e999": ('{"id": "x", "vector": [1, 1e999, 3]}', r"'vector\[1\]' is 1e999, .*leave the document out"),
    "vector-1e39": ('{"id": "x", "vector": [1, 1e39, 3]}', "not finite|too large"),
    "vectors-number": ('{"id": "x", "vectors": 5}', "'vectors' .*list of vectors"),
    "vectors-string": ('{"id": "x", "vectors": "abc"}', "'vectors' .*list of vectors"),
    "vectors-object": ('{"id": "x", "vectors": {"a": [1, 2, 3]}}', "'vectors' .*list of vectors"),
    "vectors-empty": ('{"id": "x", "vectors": []}', "'vectors' .*list of vectors"),
    "vectors-flat": ('{"id": "x", "vectors": [1, 2, 3]}', "a vector must be a list of numbers"),
    "vectors-of-strings": ('{"id": "x", "vectors": [[1, 2, 3], ["a", "b", "c"]]}', "numbers.* contains a string"),
    "vector-and-vectors": ('{"id": "x", "vector": [1, 2, 3], "vectors": [[1, 2, 3]]}', "'vector' or 'vectors'"),
    "more-vectors-than-texts": ('{"id": "x", "texts": ["a"], "vectors": [[1, 2, 3], [4, 5, 6]]}', "1 text and 2"),
    "more-texts-than-vectors": ('{"id": "x", "texts": ["a", "b"], "vector": [1, 2, 3]}', "2 texts and 1 vector"),
    "text-and-two-vectors": ('{"id": "x", "text": "a", "vectors": [[1, 2, 3], [4, 5, 6]]}', "1 text and 2 vec"),
    "too-many-vectors": (
        json.dumps({"id": "x", "vectors": [[1, 2, 3]] * (limits.DOCUMENT_CHUNKS_MAX + 1)}), TOO_MANY_CHUNKS
    ),
    "far-too-many-vectors": (json.dumps({"id": "x", "vectors": [[1, 2, 3]] * 20_000}), "over the limit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def text_library(instance: Instance) -> str:
    return fresh(instance, chunk_chars=50)


@pytest.fixture(scope="module")
def vector_library(instance: Instance) -> str:
    return fresh(instance, embedder="none", dimension=3)


def refuse(instance: Instance, library: str, path: Path, good: dict[str, Any], line: str | bytes, reason: str) -> None:
    """A file of three lines, the middle one bad: it is named with its reason, the others are in."""
    before = len(ids_in(instance, library))
    ids = [f"{path}-first", f"{path}-last"]
    first, last = (json.dumps({"id": each, **good}).encode() for each in ids)
    path.write_bytes(b"\n".join((first, line.encode() if isinstance(line, str) else line, last, b"")))
    done = instance.vec("ingest", "-l", library, str(path), status=3)
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"vec: {path}:2: ")
    assert re.search(reason, told), told[:1_000]
    assert len(told) < 1_000
    assert counted(json.loads(done.stdout)) == {"added": 2, "failed": 1}
    there = ids_in(instance, library)
    assert set(ids) <= set(there)
    assert len(there) == before + 2


@pytest.mark.parametrize("case", REFUSED_TEXTS)
def test_a_bad_line_is_named_with_its_reason_and_costs_no_other(
    instance: Instance, text_library: str, tmp_path: Path, case: str
) -> None:
    refuse(instance, text_library, tmp_path / "docs.ndjson", {"text": "good"}, *REFUSED_TEXTS[case])


@pytest.mark.parametrize("case", REFUSED_VECTORS)
def test_a_bad_vector_is_named_with_its_reason_and_costs_no_other(
    instance: Instance, vector_library: str, tmp_path: Path, case: str
) -> None:
    refuse(instance, vector_library, tmp_path / "docs.ndjson", {"vector": [1, 2, 3]}, *REFUSED_VECTORS[case])


@pytest.mark.parametrize("shape", ["list", "object"])
def test_metadata_of_any_shape_is_kept_or_refused_by_its_line(instance: Instance, library: str, shape: str) -> None:
    """Twenty thousand items are well within the bytes that metadata may have."""
    metadata = {"k": [1] * 20_000} if shape == "list" else {str(number): 1 for number in range(20_000)}
    bad = {"id": "x", "text": "t", "metadata": metadata}
    lines: list[dict[str, Any]] = [{"id": "a", "text": "good"}, bad, {"id": "z", "text": "good"}]
    done = instance.vec("ingest", "-l", library, stdin=ndjson(lines), status=None)
    there = ids_in(instance, library)
    assert {"a", "z"} <= set(there), done.stderr
    if done.returncode == 0:
        assert documents(instance, library, "x")[0]["metadata"] == metadata
    else:
        assert done.returncode == 3
        assert there == ["a", "z"]
        assert re.match("vec: stdin:2: .*16,384", done.stderr), done.stderr


def test_the_first_bad_lines_of_a_kind_are_each_named_and_the_others_are_summed(
    instance: Instance, library: str
) -> None:
    lines = [json.dumps(document) for document in numbered(3_000)]
    bad = ("broken", '{"id": 5.5, "text": "x"}', f'{{"id": "x", "text": "x", "metadata": {nested(700)}}}')
    for place in range(0, 3_000, 7):
        lines[place] = bad[place % 3]
    done = instance.vec("ingest", "-l", library, stdin="\n".join(lines), status=3)
    places, lines_told = list(range(1, 3_001, 7)), done.stderr.splitlines()
    assert [int(line.split(":")[2]) for line in lines_told[:30]] == places[:30]
    sums = [re.fullmatch(r"vec: stdin:(\d+) to ([\d,]+): ([\d,]+) more errors like that, such as: .*", line)
            for line in lines_told[30:]]  # fmt: skip
    assert [int(each[3]) for each in sums if each] == [133, 133, 133]
    assert [(int(each[1]), int(each[2].replace(",", ""))) for each in sums if each] == [
        (places[30 + kind], places[-3 + kind]) for kind in range(3)
    ]
    assert counted(json.loads(done.stdout)) == {"added": 3_000 - len(places), "failed": len(places)}
    assert len(ids_in(instance, library)) == 3_000 - len(places)


def test_each_bad_line_is_in_the_acknowledgements_also_where_errors_are_summed(
    instance: Instance, library: str
) -> None:
    done = instance.vec("ingest", "-l", library, "--ack", stdin="broken\n" * 40, status=3)
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()[:-1]] == list(range(1, 41))
    assert len(done.stderr.splitlines()) == 11


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("# Notes\n\nOne", "this looks like Markdown: vec ingest notes.md works by its suffix"),
        ("---\ntitle: x\n---\n", "this looks like Markdown"),
        ("<!DOCTYPE html>\n<html>", "this looks like HTML"),
        ("%PDF-1.7\n", "this looks like PDF"),
        (".Dd November 28, 2026\n", "this looks like a man page"),
        ("From ann@example.com Thu Nov 26 10:00:00 2026\n", "this looks like mail: --format mbox"),
        ("Received: from x\n", "this looks like a message: --format eml"),
        ("Rotate the logs every night.\n", "this looks like plain text"),
        ("id,text\n", "for a table: --format csv"),
    ],
)
def test_input_that_looks_like_another_format_has_what_to_do_as_its_hint_once(
    instance: Instance, library: str, text: str, hint: str
) -> None:
    done = instance.vec("ingest", "-l", library, stdin=text, status=3)
    assert hint in done.stderr.splitlines()[0]
    assert all(hint not in line for line in done.stderr.splitlines()[1:])


def test_a_wrong_dimension_is_one_documents_fault_also_before_the_dimension_is_known(instance: Instance) -> None:
    """Two requests at once, to a library whose dimension the first vector is to set."""
    library = fresh(instance, embedder="none")

    def packed(document_id: str, dimension: int) -> dict[str, Any]:
        return {"id": document_id, "vector": bytes(4 * dimension)}

    with instance.connect() as client:
        first = client.submit("ingest", library=library, documents=[packed("a", 3)])
        second = client.submit("ingest", library=library, documents=[packed("b", 4), packed("c", 3)])
        assert first.result()["added"] == 1
        answer = second.result()
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [0])
    assert answer["errors"][0]["code"] == "dimension_mismatch"
    assert ids_in(instance, library) == ["a", "c"]


# --- strict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["1", "100", "512"])
@pytest.mark.parametrize("bad", ["broken", '{"id": "x", "colour": 1}'], ids=["not-json", "refused-by-the-daemon"])
def test_strict_stops_at_the_first_bad_line(
    instance: Instance, library: str, tmp_path: Path, bad: str, batch: str
) -> None:
    lines = [json.dumps(document) for document in numbered(400)]
    lines[349] = bad
    lines[350] = "broken, too"
    path = tmp_path / "docs.ndjson"
    path.write_text("\n".join(lines))
    done = instance.vec("ingest", "-l", library, "--strict", "--batch", batch, str(path), status=3)
    assert counted(json.loads(done.stdout)) == {"added": 349, "failed": 1}
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"vec: {path}:350: ")
    assert ids_in(instance, library) == [f"d{number:06}" for number in range(349)]


def test_strict_stops_in_a_stream_that_stays_open(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--strict") as process:
        feed(process, ndjson(numbered(2)) + "broken\n")
        assert counted(line_of(process.stdout)) == {"added": 2, "failed": 1}
        assert process.wait() == 3


def test_strict_with_nothing_wrong_changes_nothing(instance: Instance, library: str) -> None:
    assert ingested(instance, library, ndjson(numbered(1_200)), "--strict") == {"added": 1_200}
