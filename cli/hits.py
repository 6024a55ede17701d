"""Search hits on a terminal: title, place, score, and the passage that answers the query, in the width there is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from .layout import Piece, Styled, cut, marked, paint, styled_width, width, wrap
from .output import as_json, one_line, printable

#: Cells before a hit's text: those of its rank.
_INDENT = 5
#: Lines of a passage that are looked at for words of the query.
_GREP_LINES = 8
#: Types of files (vec-files(7)) whose lines are not those of their texts.
_REWRITTEN = frozenset(("html", "man", "email"))
#: Cells that a title keeps beside its place; below, the place is on a line of its own.
_TITLE_CELLS_MIN = 20
#: The column that scores end at if the titles leave them there: further right they would be far from their hits.
_HEAD_COLUMNS = 100
#: Narrower terminals show three lines of a passage, others two.
_NARROW_COLUMNS = 80


def passage_chars(columns: int) -> int:
    """The length of the passages that fit on a terminal of that width."""
    return max(40, min(2_000, _lines(columns) * (columns - _INDENT)))


def place(hit: dict[str, Any], folder: str | None = None) -> str:
    """Where a hit stands: its file and line, as editors take it, or its id. A path below `folder` is relative to it."""
    if (path := _path(hit, folder)) is None:
        return str(hit["document_id"])
    line = _line(hit, 0)
    return path if line is None else f"{path}:{line}"


def working_folder() -> str | None:
    """The folder that paths are relative to; None if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _path(hit: dict[str, Any], folder: str | None) -> str | None:
    """The file that a hit is from; None if it is from none."""
    path = hit.get("path") or (hit.get("metadata") or {}).get("path")
    if not isinstance(path, str) or not path:
        return None
    return path.removeprefix(folder.rstrip("/") + "/") if folder else path


def _line(hit: dict[str, Any], within: int) -> int | None:
    """The line of the file where a hit's passage stands, or the line `within` lines further on in it; None if the
    document has no lines. Texts that are not written as they are in their files have only the line of their chunk."""
    line = hit.get("line")
    if not isinstance(line, int):
        return None
    if (hit.get("metadata") or {}).get("type") in _REWRITTEN:
        return line
    before = (hit.get("passage") or {}).get("lines", 0)
    return line + int(before) + within


def grep_line(hit: dict[str, Any], folder: str | None) -> str:
    """A hit as `PATH:LINE:TEXT`, where editors jump to: the line of its passage that has most words of the query. Paths
    below `folder` are relative to it."""
    name = _path(hit, folder) or str(hit["document_id"])
    passage = hit.get("passage") or {}
    shown = passage.get("text") or ""
    words = {shown[start:end].casefold() for start, end in passage.get("marks") or ()}
    lines = (hit.get("text") or hit.get("title") or "").split("\n")[passage.get("lines", 0) :][:_GREP_LINES] or [""]
    within = max(range(len(lines)), key=lambda place: (_count(lines[place], words), bool(lines[place].strip()), -place))
    return one_line(f"{name}:{_line(hit, within) or 1}:{lines[within].strip()}")


def _count(line: str, words: set[str]) -> int:
    line = line.casefold()
    return sum(word in line for word in words)


class HitView:
    """Formats hits for a terminal."""

    def __init__(
        self, *, columns: int, colours: bool, verbose: bool, by_chunk: bool, folder: str | None = None
    ) -> None:
        """`verbose`: all of a hit. `by_chunk`: hits are chunks, named by their ids unless they have a line. Paths below
        `folder` are relative to it."""
        self._folder = folder
        self._columns = max(20, columns)
        self._colours = colours
        self._verbose = verbose
        self._by_chunk = by_chunk

    def lines(self, hit: dict[str, Any]) -> list[str]:
        """The lines of a hit."""
        lines = [*self._head(hit)]
        if self._verbose:
            lines += self._all(hit)
        else:
            room = self._columns - _INDENT
            if "explain" in hit:
                lines += [[Piece(explained(hit["explain"]), "dim")]]
            lines += wrap(_passage(hit), room, _lines(self._columns))
        shown = [lines[0], *([Piece(" " * _INDENT), *line] for line in lines[1:])]
        return [paint(line, self._colours) for line in shown]

    def _head(self, hit: dict[str, Any]) -> list[Styled]:
        rank: Styled = [Piece(f"{hit['rank']:>3}  ", "dim")]
        score: Styled = [Piece(f"{hit['score']:.4f}", "green")]
        where = self._place(hit)
        # A file that has no title has its name for one.
        title = [] if (_path(hit, None) or "").rpartition("/")[2] == hit["title"] else _title(hit)
        room = self._columns - styled_width(rank) - styled_width(score) - 2
        if not title:
            return [self._row(rank, where, score)]
        beside = room - styled_width(where) - 2
        if beside >= min(_TITLE_CELLS_MIN, styled_width(title)):
            return [self._row(rank, [*cut(title, beside), Piece("  "), *where], score)]
        return [self._row(rank, cut(title, room), score), where]

    def _row(self, rank: Styled, middle: Styled, score: Styled) -> Styled:
        """A line with the score at its end; an id is never cut, so the line may be longer than the terminal is wide."""
        used = styled_width(rank) + styled_width(middle) + styled_width(score)
        columns = min(self._columns, max(_HEAD_COLUMNS, used + 2))
        return [*rank, *middle, Piece(" " * max(2, columns - used)), *score]

    def _place(self, hit: dict[str, Any]) -> Styled:
        found = place(hit, self._folder)
        if found == hit["document_id"] and (self._by_chunk or self._verbose):
            found = str(hit["chunk_id"])
        library = [Piece(f"{hit['library']}  ", "cyan")] if "library" in hit else []
        return [*library, Piece(one_line(found), "magenta")]

    def _all(self, hit: dict[str, Any]) -> list[Styled]:
        lines: list[Styled] = []
        if place(hit) != hit["document_id"]:
            lines.append([Piece(f"id {one_line(str(hit['chunk_id']))}", "dim")])
        if "explain" in hit:
            lines.append([Piece(explained(hit["explain"]), "dim")])
        if hit["metadata"]:
            lines.append([Piece(one_line(as_json(hit["metadata"])), "dim")])
        return [*lines, *([Piece(line)] for line in printable(hit["text"] or "").splitlines())]


def explained(explain: dict[str, Any]) -> str:
    """Formats the ranks and scores of a hit as one line."""
    rankings = [(name, each) for name, each in explain.items() if isinstance(each, dict) and "rank" in each]
    found = [f"{name}: rank {each['rank']:,}, score {each['score']:.4f}" for name, each in rankings]
    return ", ".join([*found, *(["the title equals the query"] if explain.get("title") else [])])


def certainty(explain: dict[str, Any]) -> list[str]:
    """Formats how reliable an answer is, a line for each library."""
    if "libraries" in explain:
        return [f"{name}: {line}" for name, each in explain["libraries"].items() for line in certainty(each)]
    if not explain:
        return []
    if explain["exact"]:
        sure = "exact"
    else:
        measured = "not measured yet" if explain["recall"] is None else f"{explain['recall']:.3f} measured"
        kept = {True: " and met", False: " but not met", None: ""}[explain["met"]]
        sure = f"approximate, recall {measured}, {explain['promise']:g} promised{kept}"
    return [f"mode {explain['mode']}, index {explain['index']}, as of event {explain['seq']:,}: {sure}"]


def _lines(columns: int) -> int:
    return 3 if columns < _NARROW_COLUMNS else 2


def _title(hit: dict[str, Any]) -> Styled:
    passage = hit.get("passage") or {}
    return _safe(marked(hit["title"] or "", passage.get("title_marks", ()), "bold"), one_line)


def _passage(hit: dict[str, Any]) -> Styled:
    if (passage := hit.get("passage")) is not None:
        return _safe(marked(passage["text"], passage["marks"]), one_line)
    text = " ".join((hit["text"] or "")[:20_000].split())
    return _safe([Piece(text)], one_line)


def _safe(pieces: Iterable[Piece], make: Any) -> Styled:
    """Made safe after the marks have been found, because that changes the places of characters."""
    return [Piece(make(text), style) for text, style in pieces]


assert width("  1  ") == _INDENT
