"""vec ingest of files and folders, and what searches say of them: through the real commands and daemon."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance

_TIDES = "# Tides\n\nThe moon pulls the water.\n\n## Spring tides\n\nAt full moon it rises higher.\n"
_CODE = '"""Heights of tides."""\n\n\ndef spring(harbour):\n    """The height of a spring tide."""\n    return 3\n'


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as started:
        started.start()
        yield started


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notes"
    (folder / "src").mkdir(parents=True)
    (folder / "tides.md").write_text(_TIDES)
    (folder / "src" / "tides.py").write_text(_CODE)
    (folder / "moon.png").write_bytes(bytes(range(256)))
    (folder / ".hidden").write_text("hidden")
    (folder / "wrong.pdf").write_bytes(b"%PDF-1.4")
    return folder


def test_a_folder_files_and_records_are_ingested_together(instance: Instance, notes: Path) -> None:
    (notes.parent / "more.ndjson").write_text('{"id": "record", "text": "a record of ebb"}\n')
    (notes.parent / "LICENSE").write_text("Free of charge.\n")
    done = instance.vec("ingest", "-l", "mixed", "notes/", "more.ndjson", "LICENSE")
    summary = instance.objects("ingest", "-l", "mixed", "notes", "more.ndjson", "./LICENSE")[0]
    assert (summary["unchanged"], summary["failed"]) == (4, 0)
    assert summary["skipped"] == {"binary": 1, "hidden": 1, "damaged": 1}
    assert "notes/wrong.pdf is skipped" in done.stderr
    assert "vec: skipped: " in done.stderr
    ids = [each["id"] for each in instance.objects("list", "-l", "mixed")]
    assert ids == ["LICENSE", "notes/src/tides.py", "notes/tides.md", "record"]
    (found,) = instance.objects("get", "-l", "mixed", "notes/tides.md")
    assert found["title"] == "Tides"
    assert found["metadata"]["path"] == str(notes / "tides.md")
    assert found["chunks"][0]["line"] == 1


def test_hits_name_the_line_and_grep_prints_it(instance: Instance, notes: Path) -> None:
    instance.vec("library", "create", "grep", "--chunk-chars", "60")
    instance.vec("ingest", "-l", "grep", "notes")
    (hit,) = instance.objects("search", "-l", "grep", "rises higher at full moon", "-k", "1")
    lines = _TIDES.split("\n")
    assert lines[hit["line"] - 1] == "## Spring tides"
    printed = instance.vec("search", "-l", "grep", "--format", "grep", "-k", "1", "full", "moon", "rises").stdout
    assert printed == "notes/tides.md:7:At full moon it rises higher.\n"
    elsewhere = notes.parent / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    printed = instance.vec("search", "-l", "grep", "--format", "grep", "-k", "1", "spring", "height").stdout
    assert printed.startswith(f"{notes}/src/tides.py:5:")


def test_a_named_file_that_cannot_be_read_is_a_rejected_line(instance: Instance, notes: Path) -> None:
    done = instance.vec("ingest", "-l", "rejected", "notes/wrong.pdf", "notes/tides.md", status=3)
    assert "notes/wrong.pdf:1: it cannot be read" in done.stderr
    assert '"added":1' in done.stdout
    done = instance.vec("ingest", "--background", "notes", status=2)
    assert "vec sync add" in done.stderr


def test_excluded_and_hidden_files_follow_the_options(instance: Instance, notes: Path) -> None:
    instance.vec("ingest", "-l", "chosen", "notes", "--hidden", "--exclude", "*.py", "--exclude", "wrong.*")
    assert [each["id"] for each in instance.objects("list", "-l", "chosen")] == ["notes/.hidden", "notes/tides.md"]


def test_unchanged_chunks_of_a_changed_file_keep_their_vectors(instance: Instance, notes: Path) -> None:
    """The embedder is a program that writes down what it is asked for."""
    program, asked = notes.parent / "embed", notes.parent / "asked"
    program.write_text(
        "#!/bin/sh\nwhile read -r line; do\n"
        f'  printf \'%s\\n\' "$line" >> {asked}\n  echo "[1, $(printf %s "$line" | wc -c)]"\ndone\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with instance.connect() as client:
        client.create_library(
            "kept", embedder="command", embedder_parameters={"command": str(program)}, first_embedder="none",
            chunk_chars=60,
        )  # fmt: skip
    sections = [f"## Day {number}\n\nThe water rose by {number} metres today.\n" for number in range(8)]
    path = notes.parent / "days.md"
    path.write_text("\n".join(sections))
    instance.vec("ingest", "-l", "kept", "days.md")
    assert len(asked.read_text().splitlines()) == 8
    before = instance.objects("get", "-l", "kept", "days.md", "--vectors")[0]["chunks"]
    asked.unlink()
    sections[3] = "## Day 3\n\nNobody measured, which is a pity.\n\n\n"
    path.write_text("\n".join(sections))
    assert instance.objects("ingest", "-l", "kept", "days.md")[0]["updated"] == 1
    (again,) = asked.read_text().splitlines()
    assert "Nobody measured" in again
    after = instance.objects("get", "-l", "kept", "days.md", "--vectors")[0]["chunks"]
    assert [each["vector"] for each in after[:3]] == [each["vector"] for each in before[:3]]
    assert [each["line"] for each in after[4:]] == [each["line"] + 2 for each in before[4:]]
    asked.unlink()
    os.utime(path, (1, 1))
    assert instance.objects("ingest", "-l", "kept", "days.md")[0]["updated"] == 1  # its mtime is metadata
    assert not asked.exists()


def test_lines_go_wherever_the_document_goes(instance: Instance, notes: Path) -> None:
    """A mirror, an export, a metadata update and a re-embedding with other chunks."""
    instance.vec("library", "create", "source", "--chunk-chars", "60")
    instance.vec("ingest", "-l", "source", "notes/tides.md")
    (source,) = instance.objects("get", "-l", "source", "notes/tides.md")
    lines = [each["line"] for each in source["chunks"]]
    assert len(lines) > 1
    events = instance.vec(
        "watch", "-l", "source", "--from", "beginning", "--no-follow", "--payload", "--vectors", "--format", "ingest"
    ).stdout
    instance.vec("ingest", "-l", "mirror", stdin=events)
    (mirror,) = instance.objects("get", "-l", "mirror", "notes/tides.md")
    assert [each["line"] for each in mirror["chunks"]] == lines
    instance.vec("jobs", "submit", "export", "-l", "source", "-p", f"path={notes.parent}/out.ndjson", "--wait")
    instance.vec("ingest", "-l", "exported", "out.ndjson")
    (exported,) = instance.objects("get", "-l", "exported", "notes/tides.md")
    assert [each["line"] for each in exported["chunks"]] == lines
    instance.vec("update", "-l", "source", "notes/tides.md", "--set", "read=true")
    (updated,) = instance.objects("get", "-l", "source", "notes/tides.md")
    assert [each["line"] for each in updated["chunks"]] == lines
    instance.vec("jobs", "submit", "reembed", "-l", "source", "-p", "chunk_chars=50", "--wait")
    (smaller,) = instance.objects("get", "-l", "source", "notes/tides.md")
    for chunk in smaller["chunks"]:
        assert chunk["text"].split("\n")[0] in _TIDES.split("\n")[chunk["line"] - 1]
    assert len(smaller["chunks"]) >= len(lines)


def test_a_reembed_keeps_an_overlap_or_takes_it_back(instance: Instance) -> None:
    words = [f"word{number}" for number in range(100)]
    document = json.dumps({"id": "a", "text": " ".join(words)}) + "\n"
    instance.vec("library", "create", "overlap", "--chunk-chars", "100", "--chunk-overlap", "40")
    instance.vec("ingest", "-l", "overlap", stdin=document)

    def chunks() -> list[list[str]]:
        (found,) = instance.objects("get", "-l", "overlap", "a")
        return [each["text"].split() for each in found["chunks"]]

    given = chunks()
    assert all(before[-1] in chunk for before, chunk in itertools.pairwise(given))
    instance.vec("jobs", "submit", "reembed", "-l", "overlap", "-p", "chunk_chars=150", "--wait")
    longer = chunks()
    assert len(longer) < len(given)
    assert all(before[-1] in chunk for before, chunk in itertools.pairwise(longer))
    instance.vec("jobs", "submit", "reembed", "-l", "overlap", "-p", "chunk_overlap=0", "--wait")
    assert list(itertools.chain.from_iterable(chunks())) == words
    done = instance.vec("library", "create", "half", "--chunk-chars", "100", "--chunk-overlap", "51", status=2)
    assert "more than half a chunk" in done.stderr
