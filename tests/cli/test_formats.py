"""Tables and mail, whole numbers as ids, documents that have only a title: through the command, from real files."""

from __future__ import annotations

import json
import lzma
import mailbox
import signal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from tests.cli.test_mappings import contents
from tests.support.instance import Instance, ndjson
from tests.support.running import end_of_input, feed, fresh, line_of, running
from vecd.wire.vectors import unpack_vector

PAPERS = pyarrow.table(
    {
        "doi": [f"10.1/{n}" for n in range(1_500)],
        "abstract": [f"abstract number {n}" for n in range(1_500)],
        "embedding": pyarrow.array([[float(n), 1.0, 2.0] for n in range(1_500)], pyarrow.list_(pyarrow.float32())),
        "year": [1990 + n % 30 for n in range(1_500)],
    }
)
RULES = ["--id", "doi", "--text", "abstract", "--vector", "embedding"]


def papers(instance: Instance, library: str) -> None:
    """Asserts that all are there as they were."""
    with instance.connect() as client:
        assert client.count(library)["documents"] == 1_500
        (found,) = client.get(["10.1/1234"], library, vectors=True)
    assert found is not None
    (chunk,) = found["chunks"]
    assert (chunk["text"], unpack_vector(chunk["vector"])) == ("abstract number 1234", [1234.0, 1.0, 2.0])
    assert found["metadata"] == {"year": 1990 + 1234 % 30}


@pytest.mark.parametrize("way", ["file", "pipe", "job", "job of a pipe"])
@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_a_table_with_vectors_goes_in_from_a_file_a_pipe_and_in_the_background(
    instance: Instance, tmp_path: Path, form: str, way: str
) -> None:
    library, path = fresh(instance, embedder="none"), tmp_path / f"papers.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(PAPERS, path, row_group_size=400)
    else:
        pyarrow.feather.write_feather(PAPERS, path, chunksize=400)
    background = ["--background"] * way.startswith("job")
    command = ["ingest", "-l", library, *RULES, *background]
    if "pipe" in way:
        formats = ["--format", "parquet" if form == "parquet" else "arrow"]
        with running(instance, *command, *formats) as process:
            feed(process, path.read_bytes())
            end_of_input(process)
            done = line_of(process.stdout)
    else:
        (done,) = instance.objects(*command, str(path))
    if background:
        instance.vec("jobs", "wait", str(done["job_id"]))
    papers(instance, library)


def test_ctrl_c_ends_a_stream_of_arrow_with_what_is_in(instance: Instance) -> None:
    library = fresh(instance, embedder="none")
    with running(instance, "ingest", "-l", library, *RULES, "--format", "arrow", "--ack") as process:
        assert process.stdin is not None
        sink = pyarrow.PythonFile(process.stdin, mode="w")
        writer = pyarrow.ipc.new_stream(sink, PAPERS.schema)
        writer.write_table(PAPERS.slice(0, 10))
        process.stdin.flush()
        acknowledged = [line_of(process.stdout)["id"] for _ in range(10)]
        process.send_signal(signal.SIGINT)
        assert line_of(process.stdout)["added"] == 10
        assert process.wait() == 130
    assert contents(instance, library).keys() == set(acknowledged)


def test_a_row_that_is_refused_is_named_by_its_number_and_costs_itself_only(
    instance: Instance, library: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "", "c"], "text": ["x", "y", "z"]}), path)
    done = instance.vec("ingest", "-l", library, str(path), status=3)
    assert f"{path}:2: 'id' must not be empty" in done.stderr
    assert contents(instance, library).keys() == {"a", "c"}


def test_a_damaged_table_is_an_error_with_the_name_of_the_file(
    instance: Instance, library: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(PAPERS, path)
    path.write_bytes(path.read_bytes()[:-100])
    done = instance.vec("ingest", "-l", library, *RULES, str(path), status=2)
    assert f"{path} is no Parquet, or it is damaged" in done.stderr
    (job,) = instance.objects("ingest", "-l", library, *RULES, "--background", str(path))
    instance.vec("jobs", "wait", str(job["job_id"]), status=1)


@pytest.mark.parametrize("background", [False, True], ids=["stream", "job"])
def test_a_mailbox_goes_in_also_compressed(instance: Instance, library: str, tmp_path: Path, background: bool) -> None:
    box = mailbox.mbox(tmp_path / "archive.mbox")
    for number in range(30):
        box.add(
            f"Message-ID: <{number}@x>\nFrom: ann@x\nSubject: Mail {number}\n\nFrom me to you.\n\nThe {number}th.\n"
        )
    box.close()
    path = tmp_path / "archive.mbox.xz"
    path.write_bytes(lzma.compress((tmp_path / "archive.mbox").read_bytes()))
    (done,) = instance.objects("ingest", "-l", library, *["--background"] * background, str(path))
    if background:
        instance.vec("jobs", "wait", str(done["job_id"]))
    found = contents(instance, library)
    assert len(found) == 30
    assert found["7@x"] == ("Mail 7", "From me to you.\n\nThe 7th.", {"from": "ann@x"})


# --- ids and titles -------------------------------------------------------------------------------------------------


def test_a_whole_number_is_the_id_that_its_digits_are_wherever_it_stands(instance: Instance, library: str) -> None:
    lines = [{"id": 7, "text": "seven"}, {"id": -3, "text": "three"}, {"id": 2**64 - 1, "text": "large"}]
    done = instance.vec("ingest", "-l", library, "--ack", stdin=ndjson(lines))
    told = [json.loads(line)["id"] for line in done.stdout.splitlines()[:-1]]
    assert told == ["7", "-3", "18446744073709551615"]
    assert contents(instance, library).keys() == set(told)
    with instance.connect() as client:
        given: Any = [7, "7"]
        assert [each and each["id"] for each in client.get(given, library)] == ["7", "7"]
        given = [-3, 99]
        assert client.delete(given, library)["deleted"] == 1
    instance.vec("ingest", "-l", library, stdin='{"op": "delete", "id": 7}')
    assert contents(instance, library).keys() == {"18446744073709551615"}


def test_ids_on_stdin_can_be_numbers(instance: Instance, library: str) -> None:
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": 7, "text": "x"}, {"id": 8, "text": "y"}]))
    assert instance.objects("delete", "-l", library, "--stdin", stdin='{"id": 7}\n{"id": 8}\n')[-1]["deleted"] == 2


def test_a_document_with_a_title_only_is_found_by_it_and_stays_what_it_is_everywhere() -> None:
    with Instance() as own:
        own.start()
        documents = [{"id": "a", "title": "The harbour at dawn"}, {"id": "b", "title": "Cats", "text": " \n"}]
        own.vec("ingest", "-l", "t", stdin=ndjson([*documents, {"id": "c", "text": "an unrelated text"}]))
        for mode in ("vector", "text", "hybrid"):
            (hit, *_) = own.objects("search", "-l", "t", "--mode", mode, "harbour")
            assert (hit["document_id"], hit["text"]) == ("a", None)
        changes = own.vec("watch", "--no-follow", "--snapshot", "-l", "t", "--format", "ingest", "--no-vectors").stdout
        own.vec("ingest", "-l", "copy", stdin=changes)
        assert contents(own, "copy") == contents(own, "t")
        (job,) = own.objects("jobs", "submit", "reembed", "-l", "t", "--param", "embedder=hash")
        own.vec("jobs", "wait", str(job["job_id"]))
        (hit, *_) = own.objects("search", "-l", "t", "--mode", "vector", "harbour at dawn")
        assert hit["document_id"] == "a"
        again = own.objects("ingest", "-l", "t", stdin=ndjson(documents))[-1]
        assert (again["unchanged"], again["updated"]) == (2, 0)


def test_a_library_without_an_embedder_needs_a_vector_for_a_title_too(instance: Instance, vectors: str) -> None:
    done = instance.vec("ingest", "-l", vectors, stdin='{"id": "a", "title": "x"}', status=3)
    assert "has no embedder, so a document needs a 'vector'" in done.stderr
