"""Layout in cells: no line is wider than asked, nothing is lost, and what a terminal draws as one stays together."""

from __future__ import annotations

import importlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

layout: Any = importlib.import_module("vec_cli.layout")
Piece, cut, marked, paint = layout.Piece, layout.cut, layout.marked, layout.paint
styled_width, width, wrap = layout.styled_width, layout.width, layout.wrap

CLUSTERS = st.sampled_from(["a", "b", "é", "e\u0301", "日", "１", "👩‍💻", "👍🏽", "🇩🇪", "❤\ufe0f", " ", ".", "ก็", "ב"])
TEXTS = st.lists(CLUSTERS, max_size=40).map("".join)
PIECES = st.lists(st.tuples(TEXTS, st.sampled_from(["", "bold", "mark"])).map(lambda pair: Piece(*pair)), max_size=4)


def text_of(pieces: list[Any]) -> str:
    return "".join(str(piece.text) for piece in pieces)


def test_wide_characters_take_two_cells_and_marks_none() -> None:
    assert [width(each) for each in ("ab", "日本", "e\u0301", "👩‍💻", "👍🏽", "🇩🇪")] == [2, 4, 1, 2, 2, 2]


def test_a_text_is_broken_between_words_and_between_wide_characters() -> None:
    assert [text_of(line) for line in wrap([Piece("one two three")], 8, 5)] == ["one two", "three"]
    assert [text_of(line) for line in wrap([Piece("日本語の文章")], 6, 5)] == ["日本語", "の文章"]
    assert [text_of(line) for line in wrap([Piece("unbreakable")], 4, 5)] == ["unbr", "eaka", "ble"]


def test_what_does_not_fit_ends_with_an_ellipsis() -> None:
    assert [text_of(line) for line in wrap([Piece("one two three four")], 8, 2)] == ["one two", "three f…"]
    assert text_of(cut([Piece("日本語", "bold"), Piece("x")], 6)) == "日本…"


def test_styles_end_where_they_began() -> None:
    pieces = marked("rotate logs", [[7, 11]], "bold")
    assert paint(pieces, True) == "\x1b[1mrotate \x1b[0m\x1b[1;31mlogs\x1b[0m"
    assert paint(pieces, False) == "rotate logs"


@given(pieces=PIECES, cells=st.integers(2, 30), lines_max=st.integers(1, 50))
def test_no_line_is_too_wide_and_nothing_is_lost(pieces: list[Any], cells: int, lines_max: int) -> None:
    lines = wrap(pieces, cells, lines_max)
    assert len(lines) <= lines_max
    assert all(styled_width(line) <= cells for line in lines)
    shown = "".join(map(text_of, lines))
    if not shown.endswith("…"):
        assert shown.replace(" ", "") == text_of(pieces).replace(" ", "")


@given(pieces=PIECES, cells=st.integers(2, 30))
def test_a_cut_text_fits_and_begins_as_the_whole(pieces: list[Any], cells: int) -> None:
    shown = cut(pieces, cells)
    assert styled_width(shown) <= cells
    assert text_of(pieces).startswith(text_of(shown).removesuffix("…").rstrip())


@given(text=TEXTS, marks=st.lists(st.lists(st.integers(-5, 50), min_size=2, max_size=2), max_size=4))
def test_marks_of_any_kind_keep_the_text(text: str, marks: list[list[int]]) -> None:
    assert text_of(marked(text, marks)) == text
