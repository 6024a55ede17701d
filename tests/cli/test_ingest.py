"""vec ingest: what goes in is counted, acknowledged and there; what cannot go in is named and costs nothing else."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import (
    COUNTS,
    counted,
    documents,
    end_of_input,
    feed,
    fresh,
    ids_in,
    ingested,
    line_of,
    numbered,
    peak_bytes,
    rest_of,
    running,
    taken,
)
from tests.support.waiting import until
from vecd import limits

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


# --- other formats, and other keys -----------------------------------------------------------------------------------

FOREIGN: list[dict[str, Any]] = [
    {"url": "https://a", "subject": "Logs", "body": ["rotate the logs", "every night"], "year": 2020, "tags": ["ops"]},
    {"url": 7, "subject": None, "body": "back up", "year": 2021},
]
RULES = ("--id", "url", "--title", "subject", "--text", "body")
MAPPED = [
    {"id": "7", "title": None, "metadata": {"year": 2021}, "texts": ["back up"]},
    {
        "id": "https://a", "title": "Logs", "metadata": {"year": 2020, "tags": ["ops"]},
        "texts": ["rotate the logs\n\nevery night"],
    },
]  # fmt: skip


def contents(instance: Instance, library: str) -> list[dict[str, Any]]:
    found = instance.objects("get", "-l", library, *ids_in(instance, library))
    return [
        {
            **{key: each[key] for key in ("id", "title", "metadata")},
            "texts": [chunk["text"] for chunk in each["chunks"]],
        }
        for each in found
    ]


@pytest.mark.parametrize("background", [False, True], ids=["stream", "job"])
@pytest.mark.parametrize("form", ["ndjson", "array", "indented"])
def test_options_say_which_key_of_any_json_is_what(
    instance: Instance, library: str, form: str, background: bool
) -> None:
    text = ndjson(FOREIGN) if form == "ndjson" else json.dumps(FOREIGN, indent=2 if form == "indented" else None)
    if background:
        (job,) = instance.objects("ingest", "--background", "-l", library, *RULES, stdin=text)
        (ended,) = instance.objects("jobs", "wait", str(job["job_id"]))
        assert (ended["state"], ended["result"]["added"]) == ("completed", 2)
    else:
        assert counted(instance.objects("ingest", "-l", library, *RULES, stdin=text)[-1]) == {"added": 2}
    assert contents(instance, library) == MAPPED


@pytest.mark.parametrize("background", [False, True], ids=["stream", "job"])
def test_the_suffix_of_each_file_says_its_format(
    instance: Instance, library: str, tmp_path: Path, background: bool
) -> None:
    (tmp_path / "a.csv").write_text('id,text,year\n1,"one\ntwo",2020\n')
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b'id\ttitle\ttext\n2\t"T"\t"three" or\n'))
    (tmp_path / "c.json").write_text(json.dumps([{"id": "3", "text": "four"}]))
    (tmp_path / "d.jsonl").write_text(ndjson([{"id": "4", "text": "five"}]))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = instance.objects("ingest", *["--background"] * background, "-l", library, *paths)[-1]
    if background:
        (done,) = instance.objects("jobs", "wait", str(done["job_id"]))
        assert done["state"] == "completed"
    assert contents(instance, library) == [
        {"id": "1", "title": None, "metadata": {"year": 2020}, "texts": ["one\ntwo"]},
        {"id": "2", "title": "T", "metadata": {}, "texts": ['"three" or']},
        {"id": "3", "title": None, "metadata": {}, "texts": ["four"]},
        {"id": "4", "title": None, "metadata": {}, "texts": ["five"]},
    ]


def test_tables_of_excel_are_read_as_they_are(instance: Instance, library: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id;text\r\n1;äpfel, birnen\r\n".encode("utf-8-sig"))
    (tmp_path / "b.tsv").write_bytes('id\ttext\r\n2\t"日本\n""two"""\r\n'.encode("utf-16"))
    (tmp_path / "c.csv").write_bytes(b"sep=,\rid,text\r3,mac\r")
    (tmp_path / "d.ndjson").write_bytes('{"id": "4", "text": "größe"}\r\n'.encode("utf-16"))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = instance.vec("ingest", "-l", library, *paths)
    said = [line for line in done.stderr.splitlines() if "separated" in line]
    assert said == [f"vec: {paths[0]}: the cells are separated by ';', not by commas"]
    assert [(each["id"], each["texts"]) for each in contents(instance, library)] == [
        ("1", ["äpfel, birnen"]), ("2", ['日本\n"two"']), ("3", ["mac"]), ("4", ["größe"])
    ]  # fmt: skip
    (job,) = instance.objects("ingest", "--background", "-l", library, *paths)
    (ended,) = instance.objects("jobs", "wait", str(job["job_id"]))
    assert (ended["state"], ended["result"]["unchanged"]) == ("completed", 4)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"results": [{"text": "a"}], "next": None}, ".results[]"),
        ({"count": 2, "data": {"the items": [{"text": "a"}]}}, '.data["the items"][]'),
        ({"it's": [{"text": "a"}]}, '.["it\\u0027s"][]'),
    ],
)
@pytest.mark.parametrize("rules", [[], ["--text", "body"], ["--id", "key", "--text", "body"]])
def test_an_object_around_the_documents_has_the_way_to_them_as_its_hint(
    instance: Instance, library: str, tmp_path: Path, value: dict[str, Any], path: str, rules: list[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value, indent=1))
    done = instance.vec("ingest", "-l", library, *rules, str(tmp_path / "a.json"), status=3)
    assert f"for the objects in its list: jq -c '{path}' FILE | vec ingest" in done.stderr
    assert done.stderr == instance.vec("ingest", "-l", library, *rules, stdin=ndjson([value]), status=3).stderr.replace(
        "stdin:1", f"{tmp_path / 'a.json'}:1"
    )
    found = subprocess.run(["jq", "-c", path, tmp_path / "a.json"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == {"text": "a"}


@pytest.mark.parametrize(
    "value", [{"text": "a", "tags": [{"k": 1}]}, {"one": [{"k": 1}], "two": [{"k": 1}]}, {"words": ["a"]}]
)
def test_an_object_in_which_no_list_can_be_the_documents_has_the_other_hint(
    instance: Instance, library: str, value: dict[str, Any]
) -> None:
    assert "--map metadata=rest" in instance.vec("ingest", "-l", library, stdin=ndjson([value]), status=3).stderr


def test_a_column_that_a_table_lacks_is_one_error(instance: Instance, library: str) -> None:
    table = "id,text\na,one\nb,two\n"
    done = instance.vec("ingest", "-l", library, "--format", "csv", "--id", "nosuch", stdin=table, status=2)
    assert done.stderr.count("nosuch") == 1
    assert "stdin has no column 'nosuch', where the id should be: it has id, text (invalid_document)" in done.stderr


def test_metadata_rest_alone_moves_all_other_keys(instance: Instance, library: str) -> None:
    line = {"id": "a", "title": "T", "text": "logs", "colour": "red", "size": {"w": 1}}
    assert "--map metadata=rest" in instance.vec("ingest", "-l", library, stdin=ndjson([line]), status=3).stderr
    instance.vec("ingest", "-l", library, "--metadata", "rest", stdin=ndjson([line]))
    (found,) = contents(instance, library)
    assert (found["title"], found["metadata"]) == ("T", {"colour": "red", "size": {"w": 1}})


def test_a_row_or_object_that_is_wrong_is_named_and_costs_itself_only(instance: Instance, library: str) -> None:
    table = "key,body\na,one\nb\nc,three\n"
    done = instance.vec(
        "ingest", "-l", library, "--format", "csv", "--id", "key", "--text", "body", stdin=table, status=3
    )
    assert "vec: stdin:3: the row has 1 cells, but the header has 2 (invalid_document)" in done.stderr
    assert ids_in(instance, library) == ["a", "c"]
    done = instance.vec("ingest", "-l", library, "--text", "body", stdin='[{"body": 5}, {"body": {}}]', status=3)
    assert "vec: stdin:2: the text at body is an object, not a string or a number (invalid_document)" in done.stderr


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("id,text\na,one\n", "for a table: --format csv"),
        ("id\ttext\na\tone\n", "for a table: --format tsv"),
        ('{\n"id": "a"\n}\n', "for an object over several lines: --format json"),
    ],
)
def test_a_first_line_that_looks_like_another_format_has_that_as_its_hint(
    instance: Instance, library: str, text: str, hint: str
) -> None:
    lines = instance.vec("ingest", "-l", library, stdin=text, status=3).stderr.splitlines()
    assert hint in lines[0]
    assert [line for line in lines[1:] if "--format" in line] == []


def test_a_table_streams_row_by_row(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--format", "csv", "--ack") as process:
        feed(process, "id,text\na,one\n")
        assert line_of(process.stdout)["id"] == "a"
        feed(process, 'b,"two\n')
        feed(process, 'lines"\n')
        assert line_of(process.stdout)["id"] == "b"
        end_of_input(process)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--map", "text"], "--map 'text' is not FIELD=PATH"),
        (["--map", "text=a", "--map", "text=b"], "--map 'text' is given twice"),
        (["--map", "txt=a"], "did you mean 'text'?"),
        (["--text", "a..b"], "is not a path"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused_before_any_input(
    instance: Instance, library: str, arguments: list[str], error: str
) -> None:
    assert error in instance.vec("ingest", "-l", library, *arguments, stdin="", status=2).stderr


# --- a library that does not exist ----------------------------------------------------------------------------------

_CREATED = "vec: created library '%s' (embedder %s, %s-dimension vectors, metric cosine)"


def test_the_first_document_creates_the_library_and_a_vector_means_no_embedder(instance: Instance) -> None:
    texts, vectors = fresh(instance) + "-texts", fresh(instance) + "-vectors"
    done = instance.vec("ingest", "-l", texts, stdin=ndjson([{"id": "a", "text": "rotate the logs"}]))
    assert _CREATED % (texts, "hash", 256) in done.stderr
    done = instance.vec("ingest", "-l", vectors, stdin=ndjson([{"id": "a", "vector": [1, 0, 2], "text": "logs"}]))
    assert _CREATED % (vectors, "none", 3) in done.stderr
    again = instance.vec("ingest", "-l", vectors, stdin=ndjson([{"id": "b", "vector": [1, 0, 3]}]))
    assert again.stderr == ""
    assert [ids_in(instance, each) for each in (texts, vectors)] == [["a"], ["a", "b"]]
    (hit,) = instance.objects("search", "-l", texts, "logs")
    assert hit["document_id"] == "a"


def test_only_a_document_that_is_written_creates_a_library(instance: Instance) -> None:
    name = fresh(instance) + "-new"
    lines = "not JSON\n" + ndjson([{"op": "delete", "id": "a"}])
    assert "created" not in instance.vec("ingest", "-l", name, stdin=lines, status=3).stderr
    assert "created" not in instance.vec("ingest", "-l", name, stdin="").stderr
    instance.vec("count", "-l", name, status=4)
    refused = ndjson([{"id": f"x{number}", "text": 5} for number in range(2_000)])
    done = instance.vec("ingest", "-l", name, stdin=refused + ndjson([{"id": "a", "vector": [1, 2]}]), status=3)
    assert _CREATED % (name, "none", 2) in done.stderr
    assert ids_in(instance, name) == ["a"]


def test_a_library_whose_name_is_like_another_is_created_and_the_other_is_named(instance: Instance) -> None:
    name = fresh(instance)
    mistyped = name + "s"
    done = instance.vec("ingest", "-l", mistyped, stdin=ndjson([{"id": "a", "text": "logs"}]))
    assert f"; there is also {name!r}: `vec library delete {mistyped}` removes the new one" in done.stderr


def test_a_background_ingest_creates_the_library(instance: Instance) -> None:
    name = fresh(instance) + "-new"
    lines = ndjson([{"id": str(number), "vector": [number, 1]} for number in range(1_500)])
    (job,) = instance.objects("ingest", "--background", "-l", name, stdin=lines)
    (ended,) = instance.objects("jobs", "wait", str(job["job_id"]))
    assert (ended["state"], ended["result"]["added"]) == ("completed", 1_500)
    (shown,) = instance.objects("library", "show", name)
    assert (shown["embedder"], shown["dimension"], shown["documents"]) == ("none", 2, 1_500)


def test_two_at_once_create_one_library_and_both_write_into_it(instance: Instance) -> None:
    name = fresh(instance) + "-new"
    with running(instance, "ingest", "-l", name) as one, running(instance, "ingest", "-l", name) as two:
        for process, start in ((one, 0), (two, 1_000)):
            feed(process, ndjson([{"id": str(start + number), "text": "logs"} for number in range(1_000)]))
            end_of_input(process)
        told = [rest_of(process.stderr) for process in (one, two)]
    assert sum("created library" in each for each in told) == 1
    assert len(ids_in(instance, name)) == 2_000


# --- the summary ----------------------------------------------------------------------------------------------------


def test_the_last_line_counts_what_became_of_every_line(instance: Instance, library: str) -> None:
    ingested(instance, library, ndjson([{"id": each, "text": "one"} for each in "abc"]))
    lines = [
        {"id": "a", "text": "one"},
        {"id": "b", "text": "changed"},
        {"op": "delete", "id": "c"},
        {"id": "d", "text": "new"},
        {"id": "e", "text": "new"},
        {"id": "f", "colour": "red"},
    ]
    done = instance.vec("ingest", "-l", library, stdin=ndjson(lines), status=3)
    (line,) = done.stdout.splitlines()
    summary = json.loads(line)
    assert list(summary) == [*COUNTS, "seq", "elapsed_s"]
    assert counted(summary) == {"added": 2, "updated": 1, "unchanged": 1, "deleted": 1, "failed": 1}
    assert summary["elapsed_s"] >= 0
    with instance.connect() as client:
        assert summary["seq"] == client.status()["seq"]


def test_nothing_in_is_nothing_done_and_no_error(instance: Instance, library: str) -> None:
    assert ingested(instance, library, "") == {}
    assert ingested(instance, library, "\n \r\n\n") == {}


def test_the_default_library_is_made_by_the_first_write() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as fresh_instance:
        assert fresh_instance.objects("ingest", stdin='{"id": "a", "text": "hello"}\n')[0]["added"] == 1
        assert [each["name"] for each in fresh_instance.objects("library", "list")] == ["default"]


# --- where lines come from ------------------------------------------------------------------------------------------


def test_files_and_stdin_are_read_in_the_order_they_are_named(instance: Instance, library: str, tmp_path: Path) -> None:
    first, last = tmp_path / "first.ndjson", tmp_path / "last.ndjson"
    first.write_text(ndjson([{"id": "a", "text": "of the first"}, {"id": "x", "text": "of the first"}]))
    last.write_text(ndjson([{"id": "c", "text": "of the last"}, {"id": "x", "text": "of the last"}]))
    between = ndjson([{"id": "b", "text": "of stdin"}, {"id": "x", "text": "of stdin"}])
    summary = instance.objects("ingest", "-l", library, str(first), "-", str(last), stdin=between)[-1]
    assert counted(summary) == {"added": 4, "updated": 2}
    (x,) = documents(instance, library, "x")
    assert x["chunks"][0]["text"] == "of the last"


def test_a_named_pipe_can_be_read_like_a_file(instance: Instance, library: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with running(instance, "ingest", "-l", library, str(fifo)) as process:
        with open(fifo, "wb") as writer:
            writer.write(ndjson(numbered(3)).encode())
        assert line_of(process.stdout)["added"] == 3
        assert process.wait() == 0


@pytest.mark.parametrize("name", ["docs.ndjson.gz", "docs.ndjson"])
def test_gzip_is_known_by_what_it_is_not_by_its_name(
    instance: Instance, library: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(ndjson(numbered(1_000)).encode()))
    summary = instance.objects("ingest", "-l", library, str(tmp_path / name))[-1]
    assert counted(summary) == {"added": 1_000}


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, zstd.compress], ids=["bzip2", "xz", "zstd"])
@pytest.mark.parametrize("background", [False, True], ids=["stream", "job"])
def test_other_compressions_are_read_as_gzip_is(
    instance: Instance, library: str, compress: Callable[[bytes], bytes], background: bool
) -> None:
    data = compress(ndjson(numbered(1_000)).encode())
    if not background:
        assert counted(instance.objects("ingest", "-l", library, stdin=data)[-1]) == {"added": 1_000}
        return
    (job,) = instance.objects("ingest", "--background", "-l", library, stdin=data)
    (ended,) = instance.objects("jobs", "wait", str(job["job_id"]))
    assert ended["result"]["added"] == 1_000


def test_a_text_file_called_gz_is_read_as_text(instance: Instance, library: str, tmp_path: Path) -> None:
    (tmp_path / "docs.gz").write_text(ndjson(numbered(3)))
    assert counted(instance.objects("ingest", "-l", library, str(tmp_path / "docs.gz"))[-1]) == {"added": 3}


def test_gzip_of_several_members_is_read_to_the_last(instance: Instance, library: str) -> None:
    """As `cat a.gz b.gz`, `bgzip` and log rotation make it; a line may go on in the next member."""
    text = ndjson(numbered(300)).encode()
    members = [gzip.compress(text[start : start + 997]) for start in range(0, len(text), 997)]
    assert ingested(instance, library, b"".join(members)) == {"added": 300}


def test_gzip_that_trickles_in_is_read_as_it_comes(instance: Instance, library: str) -> None:
    """Also if the magic number itself comes in two pieces, and a member ends where a piece does."""
    first, second = (gzip.compress(ndjson(numbered(1, start)).encode()) for start in (0, 1))
    with running(instance, "ingest", "-l", library, "--ack") as process:
        feed(process, first[:1])
        taken(process)
        feed(process, first[1:])
        assert line_of(process.stdout)["id"] == "d000000"
        feed(process, second)
        assert line_of(process.stdout)["id"] == "d000001"
        end_of_input(process)
        assert counted(line_of(process.stdout)) == {"added": 2}
        assert process.wait() == 0


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_gzip_that_ends_too_early_is_an_error_and_its_whole_lines_are_in(
    instance: Instance, library: str, tmp_path: Path, source: str
) -> None:
    noise = random.Random(7)
    lines = ndjson([{"id": f"d{number:06}", "text": noise.randbytes(20).hex()} for number in range(2_000)])
    cut = gzip.compress(lines.encode())[:40_000]
    whole = zlib.decompressobj(31).decompress(cut).count(b"\n")
    assert 0 < whole < 2_000
    path = tmp_path / "cut.gz"
    path.write_bytes(cut)
    done = instance.vec(
        *("ingest", "-l", library), *([str(path)] if source == "file" else []),
        stdin=cut if source == "stdin" else None, status=2,
    )  # fmt: skip
    assert counted(json.loads(done.stdout)) == {"added": whole}
    assert f"{path if source == 'file' else 'stdin'} is truncated gzip" in done.stderr
    assert ids_in(instance, library) == [f"d{number:06}" for number in range(whole)]


def test_damaged_gzip_is_an_error_and_the_lines_before_the_damage_are_in(instance: Instance, library: str) -> None:
    done = instance.vec(
        "ingest", "-l", library, stdin=gzip.compress(ndjson(numbered(10)).encode()) + b"garbage", status=2
    )
    assert counted(json.loads(done.stdout)) == {"added": 10}
    assert "stdin is damaged gzip" in done.stderr
    assert len(ids_in(instance, library)) == 10


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"id":"a","text":"one"}\r\n{"id":"b","text":"two"}\r\n', id="crlf"),
        pytest.param(b'\xef\xbb\xbf{"id":"a","text":"one"}\n{"id":"b","text":"two"}\n', id="bom"),
        pytest.param(b'\n\n{"id":"a","text":"one"}\n  \n\t\n{"id":"b","text":"two"}\n\n', id="blank-lines"),
        pytest.param(b'{"id":"a","text":"one"}\n{"id":"b","text":"two"}', id="no-last-newline"),
        pytest.param(b'  {"id":"a", "text":"one"}  \n\t{"text":"two","id":"b"}\t\n', id="spaces"),
        pytest.param(b'\xef\xbb\xbf\r\n{"id":"a","text":"one"}\r\n\r\n{"id":"b","text":"two"}', id="all-at-once"),
    ],
)
def test_what_other_systems_write_is_read_as_it_was_meant(instance: Instance, library: str, data: bytes) -> None:
    assert ingested(instance, library, data) == {"added": 2}
    a, b = documents(instance, library, "a", "b")
    assert [a["chunks"][0]["text"], b["chunks"][0]["text"]] == ["one", "two"]


@pytest.mark.parametrize("path", ["missing.ndjson", "file/below"])
def test_a_file_that_cannot_be_read_is_named_and_what_came_before_it_is_in(
    instance: Instance, library: str, tmp_path: Path, path: str
) -> None:
    (tmp_path / "good.ndjson").write_text(ndjson(numbered(3)))
    (tmp_path / "file").write_text("")
    done = instance.vec("ingest", "-l", library, str(tmp_path / "good.ndjson"), str(tmp_path / path), status=2)
    assert f"cannot read {tmp_path / path} (" in done.stderr
    assert counted(json.loads(done.stdout)) == {"added": 3}
    assert len(ids_in(instance, library)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_file_without_permission_is_named(instance: Instance, library: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.ndjson"
    path.write_text(ndjson(numbered(1)))
    path.chmod(0)
    done = instance.vec("ingest", "-l", library, str(path), status=2)
    assert f"cannot read {path} (Permission denied)" in done.stderr


def test_a_closed_stdin_is_an_empty_one(instance: Instance, library: str) -> None:
    command = ["sh", "-c", f'exec "$0" ingest -l {library} <&-', str(BIN / "vec")]
    done = subprocess.run(command, env=instance.environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert counted(json.loads(done.stdout)) == {}


# --- what a line means ----------------------------------------------------------------------------------------------


def test_an_id_that_is_not_given_comes_from_the_content(instance: Instance, library: str) -> None:
    lines = (
        '{"text": "same", "title": "t"}\n{"title": "t", "text": "same"}\n{"id": null, "text": "same", "title": "t"}\n'
    )
    assert ingested(instance, library, lines) == {"added": 1, "unchanged": 2}
    assert ingested(instance, library, '{"text": "y", "title": "t"}\n{"text": "x"}\n') == {"added": 2}
    assert ingested(instance, library, lines, "--batch", "1") == {"unchanged": 3}


def test_the_same_file_again_changes_nothing(instance: Instance, library: str, tmp_path: Path) -> None:
    path = tmp_path / "docs.ndjson"
    path.write_text(
        ndjson([*numbered(500), {"text": "without an id"}, {"id": "m", "text": "x", "metadata": {"b": 1, "a": [1.5]}}])
    )
    first = instance.objects("ingest", "-l", library, str(path))[-1]
    again = instance.objects("ingest", "-l", library, str(path))[-1]
    assert (counted(first), counted(again)) == ({"added": 502}, {"unchanged": 502})
    assert again["seq"] == first["seq"]


@pytest.mark.parametrize(
    "change",
    [{"text": "b"}, {"title": "b"}, {"title": None}, {"metadata": {"k": 2}}, {"metadata": None}],
    ids=["text", "title", "no-title", "metadata", "no-metadata"],
)
def test_any_change_of_a_document_is_an_update(instance: Instance, library: str, change: dict[str, Any]) -> None:
    before = {"id": "x", "text": "a", "title": "a", "metadata": {"k": 1}}
    after = {**before, **change}
    assert ingested(instance, library, ndjson([before])) == {"added": 1}
    assert ingested(instance, library, ndjson([after])) == {"updated": 1}
    (found,) = documents(instance, library, "x")
    assert (found["title"], found["metadata"]) == (after["title"], after["metadata"] or {})
    assert [chunk["text"] for chunk in found["chunks"]] == [after["text"]]


def test_a_delete_line_deletes_and_of_a_missing_id_changes_nothing(instance: Instance, library: str) -> None:
    ingested(instance, library, ndjson(numbered(3)))
    deletes = [{"op": "delete", "id": "d000001"}, {"op": "delete", "id": "no"}]
    acks = instance.objects("ingest", "-l", library, "--ack", stdin=ndjson(deletes))
    assert [(ack["id"], ack["status"], "seq" in ack) for ack in acks[:-1]] == [
        ("d000001", "deleted", True),
        ("no", "unchanged", False),
    ]
    assert counted(acks[-1]) == {"deleted": 1, "unchanged": 1}
    assert ids_in(instance, library) == ["d000000", "d000002"]


def test_an_id_many_times_in_a_batch_is_as_if_sent_one_by_one(instance: Instance) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "a", "text": "first"},
        {"id": "b", "text": "other"},
        {"id": "a", "texts": ["second", "with two chunks"]},
        {"id": "a", "texts": ["second", "with two chunks"]},
        {"op": "delete", "id": "a"},
        {"op": "delete", "id": "a"},
        {"id": "a", "text": "third"},
        {"op": "delete", "id": "b"},
    ]
    told: list[Any] = []
    for batch in ("512", "1"):
        library = fresh(instance)
        with instance.connect() as client:
            head = client.status()["seq"]
        *acks, summary = instance.objects("ingest", "-l", library, "--ack", "--batch", batch, stdin=ndjson(lines))
        statuses = [(ack["line"], ack["id"], ack["status"], ack.get("seq", head) - head) for ack in acks]
        with instance.connect() as client:
            watched = client.watch(f"{client.log}:{head}", follow=False, libraries=[library])
            events = [(event["seq"] - head, event["type"], event["data"]) for event in watched]
        told.append((statuses, counted(summary), events, documents(instance, library, "a")))
        assert ids_in(instance, library) == ["a"]
    assert told[0] == told[1]
    assert [status for _, _, status, _ in told[0][0]] == [
        "added", "added", "updated", "unchanged", "deleted", "unchanged", "added", "deleted",
    ]  # fmt: skip
    assert told[0][3][0]["chunks"][0]["text"] == "third"


@pytest.mark.parametrize(
    ("line", "texts", "brought"),
    [
        ({"text": "one"}, ["one"], None),
        ({"texts": ["one", "two", "one"]}, ["one", "two", "one"], None),
        ({"text": "one", "vector": [1, 2.5, -3]}, ["one"], [[1, 2.5, -3]]),
        ({"text": "one", "vectors": [[1, 2, 3]]}, ["one"], [[1, 2, 3]]),
        ({"texts": ["one"], "vector": [1, 2, 3]}, ["one"], [[1, 2, 3]]),
        ({"texts": ["a", "b"], "vectors": [[1, 2, 3], [0.25, 0, -0.5]]}, ["a", "b"], [[1, 2, 3], [0.25, 0, -0.5]]),
        ({"vector": [1e-3, 2, 3]}, [None], [[1e-3, 2, 3]]),
        ({"vectors": [[1, 2, 3], [4, 5, 6]]}, [None, None], [[1, 2, 3], [4, 5, 6]]),
    ],
)  # fmt: skip
def test_each_shape_of_a_document_is_kept_as_it_was_given(
    instance: Instance, library: str, vectors: str, line: dict[str, Any], texts: list[str], brought: list[Any] | None
) -> None:
    into = library if brought is None else vectors
    given = {"id": "x", "title": "The Title", "metadata": {"n": 1, "deep": {"list": [None, True, "ü"]}}, **line}
    assert ingested(instance, into, ndjson([given])) == {"added": 1}
    (found,) = documents(instance, into, "x")
    assert {key: found[key] for key in ("id", "title", "metadata")} == {
        key: given[key] for key in ("id", "title", "metadata")
    }
    assert [chunk["chunk_id"] for chunk in found["chunks"]] == [f"x#{position}" for position in range(len(texts))]
    assert [chunk["text"] for chunk in found["chunks"]] == texts
    if brought is not None:
        assert [chunk["vector"] for chunk in found["chunks"]] == [pytest.approx(vector) for vector in brought]
    else:
        assert {len(chunk["vector"]) for chunk in found["chunks"]} == {256}


def test_a_long_text_is_cut_into_chunks_and_no_word_is_lost(instance: Instance) -> None:
    library = fresh(instance, chunk_chars=100)
    text = " ".join(f"word{number}" for number in range(500))
    ingested(instance, library, ndjson([{"id": "x", "text": text}]))
    (found,) = documents(instance, library, "x")
    assert len(found["chunks"]) > 10
    assert all(len(chunk["text"]) <= 100 for chunk in found["chunks"])
    assert " ".join(chunk["text"] for chunk in found["chunks"]).split() == text.split()


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31mred\x7f", "e\u0301 \u202e \U0001f600 \ufeff", "a\nb\r\nc\td"])
def test_any_character_comes_back_as_it_went_in(instance: Instance, library: str, text: str) -> None:
    given: dict[str, Any] = {
        "id": text.replace("\0", "0").replace("\n", "n"),
        "text": text,
        "title": text,
        "metadata": {text: text},
    }
    assert ingested(instance, library, ndjson([given])) == {"added": 1}
    (found,) = documents(instance, library, given["id"])
    assert (found["id"], found["title"], found["metadata"]) == (given["id"], text, {text: text})
    assert found["chunks"][0]["text"] == text


def test_whole_numbers_of_64_bits_are_kept_exactly_and_larger_ones_are_refused(
    instance: Instance, library: str
) -> None:
    numbers = {"a": 2**63 - 1, "b": -(2**63), "c": 2**64 - 1, "d": 2**53 + 1}
    large = [2**64, -(2**63) - 1, 10**30]
    lines = ndjson([{"id": "x", "text": "x", "metadata": {**numbers}}, *(
        {"id": "y", "text": "x", "metadata": {"n": number}} for number in large
    )])  # fmt: skip
    assert ingested(instance, library, lines, status=3) == {"added": 1, "failed": len(large)}
    (found,) = documents(instance, library, "x")
    assert found["metadata"] == numbers


# --- acknowledgements -----------------------------------------------------------------------------------------------


def test_ack_prints_a_line_a_document_in_the_order_of_the_input(instance: Instance, library: str) -> None:
    lines = ndjson(numbered(3)) + "\nbroken\n" + ndjson([{"id": "e", "colour": 1}, {"text": "f"}, *numbered(1)])
    with instance.connect() as client:
        head = client.status()["seq"]
    *acks, summary = instance.objects("ingest", "-l", library, "--ack", stdin=lines, status=3)
    assert [(ack["line"], ack["status"]) for ack in acks] == [
        (1, "added"), (2, "added"), (3, "added"), (5, "failed"), (6, "failed"), (7, "added"), (8, "unchanged"),
    ]  # fmt: skip
    assert [ack["id"] for ack in acks[:3]] == ["d000000", "d000001", "d000002"]
    assert (acks[3]["id"], acks[4]["id"], acks[6]["id"]) == (None, "e", "d000000")
    assert [acks[3]["error"]["code"], acks[4]["error"]["code"]] == ["invalid_document", "invalid_document"]
    assert acks[4]["error"]["field"] == "colour"
    assert [ack["seq"] - head for ack in acks if "seq" in ack] == [1, 3, 5, 7]
    assert counted(summary) == {"added": 4, "unchanged": 1, "failed": 2}
    # Each seq is that of the document's event.
    with instance.connect() as client:
        events = {e["seq"]: e for e in client.watch(f"{client.log}:{head}", follow=False)}
    for ack in acks:
        if "seq" in ack:
            assert (events[ack["seq"]]["type"], events[ack["seq"]]["data"]["id"]) == ("document.added", ack["id"])


def test_ack_of_several_files_names_the_file_and_keeps_their_order(
    instance: Instance, library: str, tmp_path: Path
) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    paths[0].write_text(ndjson(numbered(2)) + "broken\n" + ndjson(numbered(2, 2)))
    paths[1].write_text("broken\n" + ndjson(numbered(2, 4)) + '{"id": "x", "colour": 1}\n')
    done = instance.vec("ingest", "-l", library, "--ack", *map(str, paths), status=3)
    acks = [json.loads(line) for line in done.stdout.splitlines()][:-1]
    assert [(Path(ack["file"]).name, ack["line"]) for ack in acks] == [
        ("one", 1), ("one", 2), ("one", 3), ("one", 4), ("one", 5), ("two", 1), ("two", 2), ("two", 3), ("two", 4),
    ]  # fmt: skip
    told = re.findall(r"(one|two):(\d+): ", done.stderr)
    assert told == [("one", "3"), ("two", "1"), ("two", "4")]


def test_ack_goes_on_over_many_batches_without_a_line_lost_or_out_of_order(instance: Instance, library: str) -> None:
    *acks, summary = instance.objects("ingest", "-l", library, "--ack", "--batch", "7", stdin=ndjson(numbered(1_000)))
    assert [ack["line"] for ack in acks] == list(range(1, 1_001))
    assert [ack["id"] for ack in acks] == [f"d{number:06}" for number in range(1_000)]
    seqs = [ack["seq"] for ack in acks]
    assert seqs == list(range(seqs[0], seqs[0] + 2_000, 2))
    assert summary["seq"] == seqs[-1] + 1


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_line_is_in_and_acknowledged_while_stdin_stays_open(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--ack") as process:
        for number in range(3):
            feed(process, ndjson(numbered(1, number)))
            ack = line_of(process.stdout)
            assert (ack["line"], ack["id"], ack["status"]) == (number + 1, f"d{number:06}", "added")
            assert instance.objects("count", "-l", library)[0]["documents"] == number + 1
        assert process.poll() is None
        end_of_input(process)
        assert counted(line_of(process.stdout)) == {"added": 3}
        assert process.wait() == 0


def test_a_refused_line_is_told_while_stdin_stays_open(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--ack") as process:
        for number, line in enumerate((b"broken\n", b'{"id": "a", "colour": 1}\n', b"broken again\n"), 1):
            feed(process, line)
            ack = line_of(process.stdout)
            assert (ack["line"], ack["status"]) == (number, "failed")
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"vec: stdin:%d: " % number)
        end_of_input(process)
        assert process.wait() == 3


def test_half_a_line_waits_for_its_other_half(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--ack") as process:
        feed(process, '{"id": "whole", "text": "x"}\n{"id": "ha')
        taken(process)
        assert line_of(process.stdout)["id"] == "whole"
        feed(process, 'lf", "text": "y"}\n')
        assert line_of(process.stdout)["id"] == "half"


@linux_only
@pytest.mark.parametrize("kind", ["documents", "refused"])
def test_memory_stays_flat_however_much_comes(instance: Instance, vectors: str, kind: str) -> None:
    """200 MB of large documents, and 100,000 small lines that are refused."""
    if kind == "documents":
        one = {"vector": [1, 2, 3], "metadata": {"much": "x" * 100_000}}
        block = "".join(json.dumps({"id": f"d{number}", **one}) + "\n" for number in range(20)).encode()
        blocks, bound = 100, 24 * limits.MIB
    else:
        block, blocks, bound = b"5\n" * 1_000, 100, 8 * limits.MIB
    with running(instance, "ingest", "-l", vectors, stderr=subprocess.DEVNULL) as process:
        peaks = []
        for _ in range(5):
            for _ in range(blocks // 5):
                feed(process, block)
            taken(process)
            peaks.append(peak_bytes(process.pid))
        end_of_input(process)
        summary = line_of(process.stdout)
        assert process.wait() == (0 if kind == "documents" else 3)
    if kind == "documents":
        assert counted(summary) == {"added": 20, "unchanged": 20 * blocks - 20}
    else:
        assert counted(summary) == {"failed": 1_000 * blocks}
    assert peaks[-1] - peaks[0] < bound, f"peaks in MiB: {[peak >> 20 for peak in peaks]}"


def test_documents_too_large_to_travel_together_all_arrive(instance: Instance, vectors: str) -> None:
    """40 MB in lines of 1 to 7.9 MB: a frame holds 16 MiB, a batch would hold them all."""
    sizes = [*([10] * 12), *([40] * 5), 79]  # texts of 100,000 characters
    text, vector = "y" * 100_000, [1, 2, 3]
    lines = ndjson(
        [{"id": f"d{n:02}", "texts": [text] * size, "vectors": [vector] * size} for n, size in enumerate(sizes)]
    )
    assert ingested(instance, vectors, lines) == {"added": len(sizes)}
    assert ids_in(instance, vectors) == [f"d{n:02}" for n in range(len(sizes))]
    (largest,) = documents(instance, vectors, f"d{len(sizes) - 1:02}")
    assert [chunk["text"] for chunk in largest["chunks"]] == [text] * sizes[-1]


def test_a_daemon_that_does_not_keep_up_holds_the_stream_back() -> None:
    """It is stopped altogether: what `vec` takes from the pipe meanwhile is a few batches, and then nothing more."""
    with Instance({"VEC_EMBEDDER": "none"}) as own:
        daemon = own.start()
        block = ndjson([{"id": "x", "vector": [1], "metadata": {"much": "y" * 200_000}}] * 5).encode()
        try:
            with running(own, "ingest") as process:
                assert process.stdin is not None
                feed(process, block)
                taken(process)
                daemon.send_signal(signal.SIGSTOP)
                fd = process.stdin.fileno()
                os.set_blocking(fd, False)
                written, rest = 0, b""
                while written < 100_000_000 and select.select([], [fd], [], 1.0)[1]:
                    rest = rest or block
                    sent = os.write(fd, rest[:4096])  # a pipe that can be written takes as much
                    written, rest = written + sent, rest[sent:]
                assert written < 50_000_000
                os.set_blocking(fd, True)
                daemon.send_signal(signal.SIGCONT)
                feed(process, rest)
                end_of_input(process)
                summary = line_of(process.stdout)
                assert summary["added"] + summary["unchanged"] == 5 + -(-written // len(block)) * 5
                assert process.wait() == 0
        finally:
            daemon.kill()
            daemon.wait()


# --- interruptions --------------------------------------------------------------------------------------------------


def pump(process: subprocess.Popen[bytes], count: int | None = None) -> threading.Thread:
    """Writes numbered documents to a command's stdin, and then ends it; endlessly if `count` is None."""

    def write() -> None:
        assert process.stdin is not None
        start = 0
        try:
            while count is None or start < count:
                many = 100 if count is None else min(100, count - start)
                process.stdin.write(ndjson(numbered(many, start)).encode())
                start += many
            process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass  # it has gone

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_in_a_silence_ends_with_the_summary_of_what_is_in(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--ack") as process:
        feed(process, ndjson(numbered(2)))
        assert [line_of(process.stdout)["line"] for _ in range(2)] == [1, 2]
        process.send_signal(signal.SIGINT)
        assert counted(line_of(process.stdout)) == {"added": 2}
        assert process.wait() == 130
        assert rest_of(process.stderr) == ""


def test_ctrl_c_in_the_middle_of_a_stream_counts_exactly_what_is_in(instance: Instance, library: str) -> None:
    with running(instance, "ingest", "-l", library, "--ack") as process:
        writer = pump(process)
        for _ in range(1_000):
            assert line_of(process.stdout)["status"] == "added"
        process.send_signal(signal.SIGINT)
        *acks, summary = (json.loads(line) for line in rest_of(process.stdout).splitlines())
        assert process.wait() == 130
        assert rest_of(process.stderr) == ""
    writer.join()
    assert counted(summary) == {"added": 1_000 + len(acks)}
    assert ids_in(instance, library) == [f"d{number:06}" for number in range(1_000 + len(acks))]


def sleeps(pid: int) -> bool:
    """Whether a process waits, and has handled all signals that it was sent."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "State:\tS" in status and re.search(r"ShdPnd:\s0+\n", status) is not None


@linux_only
@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_ends_though_the_daemon_does_not_answer(again: bool) -> None:
    """With 130 and the summary: within the 5 seconds of the manual, and before they are over if it comes again."""
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        with running(own, "ingest", "--ack", "--batch", "1") as process:
            feed(process, ndjson(numbered(1)))
            assert line_of(process.stdout)["status"] == "added"
            daemon.send_signal(signal.SIGSTOP)
            feed(process, ndjson(numbered(6, 1)))  # more than are in flight: it waits in the middle of its input
            taken(process)
            for _ in range(1 + again):
                until(lambda: sleeps(process.pid))
                process.send_signal(signal.SIGINT)
            assert counted(json.loads(rest_of(process.stdout))) == {"added": 1}
            assert process.wait() == 130
            given_up = "4 documents were sent and not acknowledged" in rest_of(process.stderr)
            assert given_up == (not again)
        daemon.send_signal(signal.SIGCONT)


def test_a_daemon_killed_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    """The stream goes on with a new daemon; every line is acknowledged once and there once."""
    count = 20_000
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("status")
        first = own.pid()
        assert first is not None
        with running(own, "ingest", "--ack") as process:
            writer = pump(process, count)
            acks = [line_of(process.stdout) for _ in range(2_000)]
            os.kill(first, signal.SIGKILL)
            told = [json.loads(line) for line in rest_of(process.stdout).splitlines()]
            said = rest_of(process.stderr)
            assert process.wait() == 0, said
        writer.join()
        acks += told[:-1]
        assert [ack["line"] for ack in acks] == list(range(1, count + 1))
        assert [ack["id"] for ack in acks] == [f"d{number:06}" for number in range(count)]
        # What was committed and not acknowledged was sent again, and changed nothing.
        summary = told[-1]
        assert summary["added"] + summary["unchanged"] == count
        assert summary["failed"] == summary["updated"] == 0
        assert "unacknowledged documents again" in said
        assert own.pid() != first
        assert len(ids_in(own, "default")) == count
        with own.connect() as client:
            watched = client.watch("beginning", follow=False, types=["document.*"])
            added = [event["data"]["id"] for event in watched]
            assert sorted(added) == [f"d{number:06}" for number in range(count)]


def test_a_daemon_killed_for_good_ends_it_with_the_summary_of_what_is_in() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        with running(own, "ingest", "--ack", "--no-spawn") as process:
            writer = pump(process)
            acks = [line_of(process.stdout) for _ in range(1_000)]
            daemon.kill()
            daemon.wait()
            told = [json.loads(line) for line in rest_of(process.stdout).splitlines()]
            said = rest_of(process.stderr)
            assert process.wait() in (69, 75), said
        writer.join()
        acks += told[:-1]
        assert counted(told[-1]) == {"added": len(acks)}
        assert "it is safe to send them again" in said
        assert "Traceback" not in said
        own.vec("status")
        there = set(ids_in(own, "default"))
        assert there >= {ack["id"] for ack in acks}


def test_a_daemon_that_is_stopped_in_the_middle_costs_nothing() -> None:
    count = 20_000
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("status")
        with running(own, "ingest", "--ack") as process:
            writer = pump(process, count)
            for _ in range(2_000):
                line_of(process.stdout)
            own.vec("daemon", "stop")
            *acks, summary = (json.loads(line) for line in rest_of(process.stdout).splitlines())
            assert process.wait() == 0, rest_of(process.stderr)
        writer.join()
        assert len(acks) == count - 2_000
        assert summary["added"] + summary["unchanged"] == count
        assert len(ids_in(own, "default")) == count


@pytest.mark.parametrize("options", [["--ack"], []], ids=["ack", "summary"])
def test_a_reader_that_has_had_enough_ends_it_quietly(instance: Instance, library: str, options: list[str]) -> None:
    with running(instance, "ingest", "-l", library, *options) as process:
        assert process.stdout is not None
        process.stdout.close()
        feed(process, ndjson(numbered(10)))
        end_of_input(process)
        assert process.wait() == 141
        assert rest_of(process.stderr) == ""


def test_a_disk_that_is_full_under_the_output_is_told_as_that(instance: Instance, library: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "wb") as full, running(instance, "ingest", "-l", library, stdout=full) as process:
        feed(process, ndjson(numbered(1)))
        end_of_input(process)
        assert process.wait() == 1
        assert rest_of(process.stderr) == "vec: cannot write the output (No space left on device) (system_refused)\n"


# --- speed ----------------------------------------------------------------------------------------------------------


def test_a_slow_trickle_is_not_held_back_for_a_full_batch(instance: Instance, library: str) -> None:
    """A line is acknowledged soon after it came: many in a row, none of which fills a batch."""
    with running(instance, "ingest", "-l", library, "--ack", "--batch", "8192") as process:
        started = time.monotonic()
        for number in range(20):
            feed(process, ndjson(numbered(1, number)))
            assert line_of(process.stdout)["line"] == number + 1
        assert time.monotonic() - started < 30  # 20 x 50 ms, and much room
