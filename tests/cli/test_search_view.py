"""vec search on a terminal, as pictures: title, place, score and the passage with the query's words, at any width."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson

from .terminal import on_a_terminal

FILLER = "Nothing of interest is said here. "


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        documents: list[dict[str, Any]] = [
            {
                "id": "logs-document",
                "title": "How to rotate logs without losing a line, even when the daemon writes at night",
                "text": FILLER * 4 + "\n\nRotate the logs every night, and keep thirty. " + FILLER * 4,
                "metadata": {"path": "notes/logs.md", "n": 1},
            },
            {
                "id": "ローテーション",
                "title": "夜のログ",
                "text": "夜にlogsをローテーションする。" * 6 + "👩‍💻👍🏽🇩🇪 end",
            },
            {"id": "an-id-that-is-longer-than-the-terminal-" * 3, "text": "logs"},
        ]
        made.vec("ingest", stdin=ndjson(documents))
        made.vec("ingest", "-l", "other", stdin=ndjson([{"id": "o", "text": "rotate logs"}]))
        yield made


PICTURES = {
    60: """\
  1  How to rotate logs without losi…  notes/logs.md  0.1569
     …Rotate the logs every night, and keep thirty. Nothing
     of interest is said here. Nothing of interest is said
     here. Nothing of interest is said here. Nothing of…
""",
    80: """\
  1  How to rotate logs without losing a line, even when…  notes/logs.md  0.1569
     …Rotate the logs every night, and keep thirty. Nothing of interest is said
     here. Nothing of interest is said here. Nothing of interest is said here.…
""",
    200: """\
  1  How to rotate logs without losing a line, even when the daemon writes at night  notes/logs.md  0.1569
     Nothing of interest is said here. Nothing of interest is said here. Nothing of interest is said here. Nothing of \
interest is said here. Rotate the logs every night, and keep thirty. Nothing of
     interest is said here. Nothing of interest is said here. Nothing of interest is said here. Nothing of interest is \
said here.
""",
}


@pytest.mark.parametrize("columns", PICTURES)
def test_a_hit_fits_the_terminal(instance: Instance, columns: int) -> None:
    seen = on_a_terminal(instance, "search", "rotate", "logs", "-k", "1", columns=columns, NO_COLOR="1")
    assert seen.out == PICTURES[columns]


@pytest.mark.parametrize("columns", PICTURES)
def test_wide_characters_and_emoji_take_their_cells_and_stay_whole(instance: Instance, columns: int) -> None:
    seen = on_a_terminal(instance, "search", "ローテーション", "-k", "1", columns=columns, NO_COLOR="1")
    head, *passage = seen.out.splitlines()
    wide = len(re.findall("[\u3000-\u9fff]", head))
    assert re.fullmatch(r"  1  夜のログ  ローテーション +0\.\d{4}", head)
    assert len(head) + wide == min(columns, 100)
    assert 1 <= len(passage) <= 3
    for line in passage:
        cells = len(line) + len(re.findall("[\u3000-\u9fff]", line))
        assert cells <= columns + 4  # an emoji sequence has more characters than cells
    if columns == 200:
        assert passage[-1].endswith("👩‍💻👍🏽🇩🇪 end")


def test_an_id_is_never_cut(instance: Instance) -> None:
    seen = on_a_terminal(instance, "search", "logs", columns=60, NO_COLOR="1")
    assert "an-id-that-is-longer-than-the-terminal-" * 3 in seen.out


def test_the_querys_words_are_highlighted_in_title_and_passage(instance: Instance) -> None:
    seen = on_a_terminal(instance, "search", "rotate", "logs", "-k", "1", columns=80)
    marked = re.findall(r"\x1b\[1;31m(.*?)\x1b\[0m", seen.out)
    assert marked == ["rotate", "logs", "Rotate", "logs"]


def test_verbose_shows_all_of_a_hit(instance: Instance) -> None:
    seen = on_a_terminal(instance, "search", "-v", "rotate", "logs", "-k", "1", "--explain", columns=80, NO_COLOR="1")
    lines = [line.strip() for line in seen.out.splitlines()]
    assert "id logs-document#0" in lines
    assert '{"n":1,"path":"notes/logs.md"}' in lines
    assert any(line.startswith("vector: rank ") for line in lines)
    assert (FILLER * 4).strip() in lines
    assert f"Rotate the logs every night, and keep thirty. {FILLER * 4}".strip() in lines
    assert re.search(r"^mode hybrid, index pq, as of event \d+: exact$", seen.err, re.MULTILINE)


def test_hits_of_several_libraries_name_theirs(instance: Instance) -> None:
    seen = on_a_terminal(instance, "search", "-l", "all", "rotate", "logs", "--explain", columns=80, NO_COLOR="1")
    assert re.search(r"^  \d  other  o +0\.\d{4}$", seen.out, re.MULTILINE)
    assert re.search(r"  default  notes/logs\.md +0\.\d{4}$", seen.out, re.MULTILINE)
    assert {line.split(":")[0] for line in seen.err.splitlines()} == {"default", "other"}
    again = on_a_terminal(instance, "search", "-l", "default", "-l", "other", "rotate", "logs", columns=80)
    assert again.status == 0
    assert {hit["library"] for hit in instance.objects("search", "-l", "all", "rotate logs")} == {"default", "other"}


def test_hits_that_are_chunks_are_named_by_their_chunk(instance: Instance) -> None:
    seen = on_a_terminal(instance, "search", "logs", "-l", "other", "--group-by", "chunk", NO_COLOR="1")
    assert re.match(r"  1  o#0 +0\.", seen.out)
