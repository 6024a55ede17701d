"""Layout of styled text in the cells of a terminal: wrapping, cutting, and colours.

A text is a list of pieces, each with a style. East Asian characters and emoji take two cells, combining marks none
(Unicode's East Asian Width, by rich.cells); a cluster of characters that a terminal draws as one is never split.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

ELLIPSIS: Final = "…"

#: Style -> parameters of the escape sequence that begins it (ECMA-48, SGR).
_SGR: Final = {
    "": "", "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35",
    "cyan": "36", "mark": "1;31",
}  # fmt: skip


class Piece(NamedTuple):
    """A part of a text in one style."""

    text: str
    style: str = ""


Styled = list[Piece]


def width(text: str) -> int:
    """The cells that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def styled_width(pieces: Iterable[Piece]) -> int:
    return sum(width(piece.text) for piece in pieces)


def paint(pieces: Iterable[Piece], colours: bool) -> str:
    """The text with escape sequences for its styles, if there are colours."""
    if not colours:
        return "".join(piece.text for piece in pieces)
    return "".join(
        f"\x1b[{_SGR[style]}m{text}\x1b[0m" if text and _SGR[style] else text for text, style in pieces
    )  # fmt: skip


def cut(pieces: Styled, cells: int) -> Styled:
    """The text, shortened to that many cells; an ellipsis shows that it is."""
    if styled_width(pieces) <= cells:
        return pieces
    kept: Styled = []
    room = cells - 1
    for text, style in pieces:
        part = ""
        for cluster in _clusters(text):
            if (size := width(cluster)) > room:
                kept += [Piece(part.rstrip(), style), Piece(ELLIPSIS)]
                return kept
            part += cluster
            room -= size
        kept.append(Piece(part, style))
    return kept


def wrap(pieces: Styled, cells: int, lines_max: int) -> list[Styled]:
    """The text on up to `lines_max` lines of that many cells, broken between words, or between East Asian characters.
    If there is more, the last line ends with an ellipsis."""
    lines: list[Styled] = [[]]
    used = 0
    for text, style in _words(pieces):
        size = width(text)
        if used and used + size > cells:
            lines.append([])
            used = 0
        if not used and text.isspace():
            continue
        while size > cells:  # a word longer than a line
            head = "".join(_fitting(text, cells)) or text[:1]
            lines[-1].append(Piece(head, style))
            lines.append([])
            text = text[len(head) :]
            size = width(text)
        lines[-1].append(Piece(text, style))
        used += size
    for line in lines:
        while line and line[-1].text.isspace():
            line.pop()
    lines = [line for line in lines if line]
    if len(lines) > lines_max:
        rest = lines[lines_max - 1] + [Piece(" ")] + [piece for line in lines[lines_max:] for piece in line]
        lines = [*lines[: lines_max - 1], cut(rest, cells)]
    return lines


def marked(text: str, marks: Iterable[Iterable[int]], style: str = "") -> Styled:
    """The text with the places of `marks` (start, and stop, exclusive) highlighted."""
    pieces: Styled = []
    done = 0
    for start, stop in marks:
        if not done <= start < stop <= len(text):
            continue  # not places in this text
        pieces += [Piece(text[done:start], style), Piece(text[start:stop], "mark")]
        done = stop
    return [piece for piece in [*pieces, Piece(text[done:], style)] if piece.text]


def _words(pieces: Styled) -> Iterator[Piece]:
    """Words, the spaces between them, and wide characters, which a line may be broken around."""
    for text, style in pieces:
        word = ""
        for cluster in _clusters(text):
            if cluster.isspace() or (not cluster.isascii() and width(cluster) > 1):
                if word:
                    yield Piece(word, style)
                word = ""
                yield Piece(cluster, style)
            else:
                word += cluster
        if word:
            yield Piece(word, style)


def _fitting(text: str, cells: int) -> Iterator[str]:
    for cluster in _clusters(text):
        cells -= width(cluster)
        if cells < 0:
            return
        yield cluster


def _clusters(text: str) -> Iterator[str]:
    """What a terminal draws as one: a character with its marks, joined emoji, a flag. (Rules of UAX #29 that matter for
    widths.)"""
    if text.isascii():
        yield from text
        return
    cluster = ""
    for char in text:
        if cluster and (
            char in "\u200d\ufe0f\ufe0e"
            or cluster[-1] == "\u200d"
            or unicodedata.category(char) in ("Mn", "Me", "Mc")
            or "\U0001f3fb" <= char <= "\U0001f3ff"
            or (_is_regional(char) and len(cluster) == 1 and _is_regional(cluster))
        ):
            cluster += char
            continue
        if cluster:
            yield cluster
        cluster = char
    if cluster:
        yield cluster


def _is_regional(char: str) -> bool:
    """Whether two of it make a flag."""
    return "\U0001f1e6" <= char <= "\U0001f1ff"
