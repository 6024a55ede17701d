"""On a terminal: tables and lines for people, nothing that could command the terminal, progress on stderr only."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import fresh
from tests.support.waiting import PATIENCE_S

from .terminal import on_a_terminal

ESCAPE = "\x1b"

#: What must not reach a terminal from a document: colours, a title, a beep, a clearing, 8-bit and other control
#: characters, a reversal of the writing's direction.
HOSTILE = "\x1b[31mred \x1b]0;title\x07 \x1b[2J \x9b31m \x7f \x08\x08 \r \u202e \x00 \x85 \u2028 end"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        documents: list[dict[str, Any]] = [
            {"id": "logs", "title": "Log rotation", "text": "Rotate the logs every night.", "metadata": {"by": "cron"}},
            {"id": "mail", "text": "The mail server answers on port 25."},
        ]
        made.vec("ingest", stdin=ndjson(documents))
        yield made


@pytest.fixture(scope="module")
def hostile(instance: Instance) -> str:
    """A library of one document, hostile wherever it can be."""
    library = fresh(instance)
    no_id = HOSTILE.replace("\0", "")
    document = {"id": no_id, "title": HOSTILE, "text": f"word {HOSTILE}", "metadata": {HOSTILE: HOSTILE}}
    assert instance.objects("ingest", "-l", library, stdin=ndjson([document]))[0]["added"] == 1
    return library


#: Every command that prints data, with what a person should see of it.
SEEN = {
    "status": (["status"], r"pid \d+"),
    "list": (["list"], r"logs +Log rotation +1 +.*cron"),
    "count": (["count"], r"^default: 2 documents, 2 chunks$"),
    "search": (["search", "rotate logs"], r"^  1  Log rotation  logs +0\.\d{4}$"),
    "get": (["get", "logs"], r"(?s)logs.*title +Log rotation.*cron.*Rotate the logs every night\."),
    "library list": (["library", "list"], r"default +2 +2 +256 +cosine +pq +hash +\d"),
    "library show": (
        ["library", "show", "default"],
        r"(?s)^library +default, created .*^holds +2 documents, 2 chunks$.*^embedder +hash, .*^vectors +256 "
        r"dimensions, cosine$.*^index +pq \(bits 0\)$",
    ),
    "library rebuild": (
        ["library", "rebuild", "default"],
        r"^library default: pq \(bits 0\), 2 vectors in \d+\.\d s$",
    ),
    "watch": (
        ["watch", "--from", "beginning", "-n", "2"],
        r"^\w{3} \d\d \d\d:\d\d:\d\d  added +default  logs  Log rotation$",
    ),
    "ingest": (["ingest"], r"^nothing in \d+\.\d s"),
    "delete": (["delete", "nobody"], r"^0 documents deleted, 1 missing"),
    "daemon start": (["daemon", "start"], r"^vecd is already running, pid \d+$"),
}


def is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


@pytest.mark.parametrize("name", SEEN)
def test_people_see_words_and_tables_and_no_json(instance: Instance, name: str) -> None:
    arguments, pattern = SEEN[name]
    seen = on_a_terminal(instance, *arguments, NO_COLOR="1")
    assert seen.status == 0
    assert re.search(pattern, seen.out, re.MULTILINE), seen.out
    assert not any(is_json(line) for line in seen.out.splitlines())


@pytest.mark.parametrize("name", SEEN)
def test_json_is_json_also_on_a_terminal(instance: Instance, name: str) -> None:
    arguments, _ = SEEN[name]
    seen = on_a_terminal(instance, *arguments, "--json")
    lines = seen.out.splitlines()
    assert lines
    assert all(is_json(line) for line in lines), seen.out
    assert ESCAPE not in seen.out


@pytest.mark.parametrize("name", SEEN)
def test_no_color_and_dumb_terminals_get_no_escape_codes(instance: Instance, name: str) -> None:
    arguments, _ = SEEN[name]
    without = on_a_terminal(instance, *arguments, NO_COLOR="1").out
    dumb = on_a_terminal(instance, *arguments, TERM="dumb").out
    assert ESCAPE not in without
    assert ESCAPE not in dumb


def test_an_empty_no_color_is_none(instance: Instance) -> None:
    assert ESCAPE in on_a_terminal(instance, "search", "rotate logs", NO_COLOR="").out
    assert ESCAPE in on_a_terminal(instance, "search", "rotate logs").out


@pytest.mark.parametrize("name", ["list", "search", "get", "watch", "get --vectors"])
@pytest.mark.parametrize("colour", ["colour", "no colour"])
def test_nothing_in_a_document_can_command_the_terminal(
    instance: Instance, hostile: str, name: str, colour: str
) -> None:
    arguments = {
        "list": ["list"],
        "search": ["search", "word"],
        "get": ["get", HOSTILE.replace("\0", "")],
        "get --vectors": ["get", "--vectors", HOSTILE.replace("\0", "")],
        "watch": ["watch", "--from", "beginning", "--no-follow"],
    }[name]
    environment = {"NO_COLOR": "1"} if colour == "no colour" else {}
    # Wide, so that no table folds in the middle of an escape sequence that is shown.
    seen = on_a_terminal(instance, *arguments, "-l", hostile, columns=2_000, **environment)
    assert seen.status == 0
    # Our own colours are all that may be there: SGR sequences that end what they begin.
    own = re.sub(r"\x1b\[[0-9;]*m", "", seen.out) if colour == "colour" else seen.out
    raw = {character for character in own if not character.isprintable() and character != "\n"}
    assert raw == set(), f"{raw} in {own!r}"
    if colour == "colour":
        assert "\x1b[31m" not in seen.out
    assert "\\x1b[31mred" in own  # it is shown


def test_what_is_not_there_is_told_without_commanding_the_terminal(instance: Instance, hostile: str) -> None:
    for arguments in (["get", HOSTILE.replace("\0", "") + "x"], ["delete", HOSTILE.replace("\0", "") + "x"]):
        seen = on_a_terminal(instance, *arguments, "-l", hostile, streams="err")
        assert "does not exist in library" in seen.err
        assert {character for character in seen.err if not character.isprintable()} <= {"\n"}


def test_a_refused_line_is_told_without_commanding_the_terminal(instance: Instance, hostile: str) -> None:
    line = json.dumps({"id": "x", "text": "a", HOSTILE[:40]: 1}) + "\n" + json.dumps({"op": HOSTILE, "id": "x"}) + "\n"
    seen = on_a_terminal(instance, "ingest", "-l", hostile, streams="err", stdin=line, TERM="dumb")
    assert seen.status == 3
    assert seen.err.count("(invalid_document)") == 2
    assert {character for character in seen.err if not character.isprintable()} <= {"\n", "\r"}


def test_a_line_break_in_a_title_makes_no_line_of_its_own(instance: Instance) -> None:
    """Or a title could pass itself off as an event."""
    library = fresh(instance)
    fake = "t\n2026-01-01T00:00:00.000000Z         1  document.deleted  default       everything"
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "a\tb", "title": fake, "text": "word"}]))
    for arguments in (
        ["watch", "--from", "beginning", "--no-follow"], ["search", "word"], ["list"], ["get", "a\tb"],
    ):  # fmt: skip
        seen = on_a_terminal(instance, *arguments, "-l", library, columns=300, NO_COLOR="1")
        assert "everything" in seen.out
        assert not [line for line in seen.out.splitlines() if line.startswith("2026-01-01")]


def test_a_table_fits_the_terminal(instance: Instance) -> None:
    for columns in (80, 100, 132):
        for arguments in (["list"], ["library", "list"], ["search", "rotate logs"]):
            seen = on_a_terminal(instance, *arguments, columns=columns, NO_COLOR="1")
            assert max(map(len, seen.out.splitlines())) <= columns
        head = next(
            line
            for line in on_a_terminal(instance, "library", "list", columns=columns, NO_COLOR="1").out.splitlines()
            if line.strip()
        )
        assert head.split() == [
            "library",
            "documents",
            "chunks",
            "dimension",
            "metric",
            "index",
            "embedder",
            "in",
            "memory",
        ]


def test_columns_may_be_set_for_a_terminal_that_lies(instance: Instance) -> None:
    seen = on_a_terminal(instance, "library", "list", columns=100, COLUMNS="60", NO_COLOR="1")
    assert max(map(len, seen.out.splitlines())) <= 60


def test_a_long_text_is_shortened_to_two_lines_and_a_pipe_gets_all_of_it(instance: Instance) -> None:
    library = fresh(instance)
    text = "word " * 100
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "a", "text": text}]))
    seen = on_a_terminal(instance, "search", "word", "-l", library, columns=80, NO_COLOR="1")
    assert "…" in seen.out
    assert len(seen.out.splitlines()) == 3
    assert instance.objects("search", "word", "-l", library)[0]["text"] == text


def test_no_hits_is_said_on_stderr_with_the_reason(instance: Instance) -> None:
    empty = fresh(instance)
    words = fresh(instance, embedder="none")
    instance.vec("ingest", "-l", words, stdin='{"id": "a", "text": "rotate the logs", "vector": [1]}\n')
    vectors = fresh(instance, embedder="none")
    instance.vec("ingest", "-l", vectors, stdin='{"id": "a", "vector": [1]}\n')
    for arguments, why in (
        (["word", "-l", vectors], f"library '{vectors}' holds no text, only vectors, which need a query's vector"),
        (["word", "-l", empty], f"library '{empty}' is empty"),
        (["word", "-w", "id = x"], "no document matches the filter"),
        (["word", "--since", "now"], "no document has changed since now"),
        (["rotate", "--min-score", "9"], "no hit has a score of 9 or more"),
        (["rotate", "--offset", "7"], "there are only 2 hits, and the offset is 7"),
        (["zebra", "--mode", "text"], "no document contains the word"),
        (["zebra", "-l", words], "no document contains the word, and without an embedder only words are compared"),
        (["two zebras", "-l", words], "no document contains any of the words, and without an embedder only words are"
         " compared"),
        (["--like", "a", "-l", words], f"library '{words}' has no other document"),
    ):  # fmt: skip
        seen = on_a_terminal(instance, "search", *arguments)
        assert (seen.status, seen.out, seen.err.splitlines()[-1]) == (0, "", f"no hits: {why}")
        assert instance.vec("search", *arguments).stdout == ""


def test_a_list_of_very_many_is_cut_on_a_terminal_and_says_so(instance: Instance) -> None:
    library = fresh(instance, embedder="none", dimension=1)
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": f"d{n:04}", "vector": [1]} for n in range(1_001)]))
    seen = on_a_terminal(instance, "list", "-l", library, NO_COLOR="1")
    assert "d0999" in seen.out
    assert "d1000" not in seen.out
    assert "the first 1,000" in seen.err
    assert len(instance.objects("list", "-l", library)) == 1_001


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_list_fits_the_terminal_and_no_id_is_cut_or_broken(instance: Instance, columns: int) -> None:
    library = fresh(instance, embedder="none", dimension=1)
    long = "folder/" * 40 + "file.md"
    given: list[dict[str, Any]] = [
        {"id": "short", "title": "A title that is rather long " * 4, "vector": [1], "metadata": {"it's": ["x", None]}},
        {"id": "日本語", "title": "日本語のタイトル" * 9, "vector": [1], "metadata": {"key": "value " * 50}},
        {"id": long, "title": "\U0001f469\u200d\U0001f4bb " * 50, "vector": [1]},
    ]
    instance.vec("ingest", "-l", library, stdin=ndjson(given))
    lines = on_a_terminal(instance, "list", "-l", library, columns=columns, NO_COLOR="1").out.splitlines()
    assert long in lines
    assert all(cell_len(line) <= columns for line in lines if line != long)
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")] == ["id", long, "short", "日本語"]
    assert '{"it\'s":["x",null]}' in "".join(lines)


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress_is_on_stderr_and_only_if_that_is_a_terminal(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "docs.ndjson"
    path.write_text(ndjson([{"id": f"d{n}", "text": f"text {n}"} for n in range(2_000)]))
    library = fresh(instance)
    piped = instance.vec("ingest", "-l", library, str(path))
    assert piped.stderr == ""
    out_only = on_a_terminal(instance, "ingest", "-l", library, str(path), streams="out")
    assert out_only.err == ""
    assert out_only.out.startswith("2,000 unchanged in ")
    err_only = on_a_terminal(instance, "ingest", "-l", library, str(path), streams="err")
    assert "documents" in err_only.err
    assert [json.loads(line)["unchanged"] for line in err_only.out.splitlines()] == [2_000]
    both = on_a_terminal(instance, "ingest", "-l", library, str(path), streams="out err")
    assert "documents" in both.err
    assert both.out.startswith("2,000 unchanged in ")


@pytest.mark.parametrize("bad", ["missing.ndjson", "folder", "docs.ndjson"])
def test_with_progress_what_goes_wrong_is_told_as_without(instance: Instance, tmp_path: Path, bad: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "docs.ndjson").write_text('{"id": "a", "text": "x"}\nbroken\n')
    arguments = ["ingest", "-l", fresh(instance), str(tmp_path / bad)]
    piped = instance.vec(*arguments, status=None)
    seen = on_a_terminal(instance, *arguments, streams="err", columns=500)
    assert seen.status == piped.returncode
    assert piped.stderr.strip() in seen.err
    assert "Traceback" not in seen.err


def test_reading_from_a_keyboard_says_so(instance: Instance) -> None:
    """A person who types `vec ingest` alone should not wonder what it waits for."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [BIN / "vec", "ingest"], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=instance.environment
    )
    os.close(slave)
    os.write(master, b'{"id": "typed", "text": "x"}\n\x04')
    out, err = process.communicate(timeout=PATIENCE_S)
    os.close(master)
    assert (process.returncode, json.loads(out)["added"]) == (0, 1)
    assert err == b"vec: reading documents from the terminal; end with Ctrl-D\n"
    instance.vec("delete", "typed")


def test_errors_are_told_without_colour_or_boxes(instance: Instance) -> None:
    """One line to read and one of what to do, the same for people and for logs."""
    for arguments in (["count", "-l", "nowhere"], ["search"], ["watch", "--from", "x"], ["library", "create", "a b"]):
        piped = instance.vec(*arguments, status=None)
        seen = on_a_terminal(instance, *arguments, streams="out err")
        assert seen.err == piped.stderr
        assert seen.err.startswith("vec: ")
        assert seen.status == piped.returncode != 0


@pytest.mark.parametrize(
    "command",
    [["search", "word"], ["get"], ["list"], ["watch", "--from", "beginning", "--no-follow"]],
    ids=lambda command: command[0],
)
def test_json_on_a_terminal_cannot_command_it_and_means_the_same(
    instance: Instance, hostile: str, command: list[str]
) -> None:
    """JSON permits DEL and the 8-bit control characters as they are, and some terminals obey those as they obey ESC."""
    its_id = HOSTILE.replace("\0", "")
    arguments = [*command, "-l", hostile, *([its_id] if command == ["get"] else [])]
    seen = on_a_terminal(instance, *arguments, "--json").out
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f]", seen) == []
    assert "\\u009b31m" in seen
    piped = instance.vec(*arguments).stdout
    assert "\x9b31m" in piped
    assert [json.loads(line) for line in seen.split("\n") if line] == [
        json.loads(line) for line in piped.split("\n") if line
    ]


def test_metadata_is_shown_as_json(instance: Instance) -> None:
    instance.vec("library", "create", "nested", "--embedder", "hash")
    nested = '{"id": "n", "text": "t", "metadata": {"a": {"b": [true, null, "é"]}}}'
    instance.vec("ingest", "-l", "nested", stdin=nested)
    for arguments in (["list"], ["get", "n"]):
        shown = on_a_terminal(instance, *arguments, "-l", "nested").out
        assert '{"b":[true,null,"é"]}' in shown, arguments
