"""Rows of cells with tabs between them, as Excel and the dialect `excel-tab` of Python's csv module write them.

A cell that begins with a quote, and whose next single quote is before a tab or at the end of a line, is in quotes:
tabs and line ends in it are characters, and two quotes are one. All other quotes are characters, so that a text such as
`"to be" or not` is read as it is. (The csv module would drop its quotes.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .. import limits
from .table_lines import Lines

_CELL_END: Final = re.compile(r"\t|\r\n|\r|\n")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class TabRows(Iterator[list[str]]):
    """The rows of a table."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._text = ""  # lines that have been read
        self._at = 0  # where the next row begins in the text
        self.number = 0  # of the last line of the last row

    def __next__(self) -> list[str]:
        if self._at == len(self._text):
            self._text, self._at = next(self._lines), 0
            if '"' not in self._text:
                self._at = len(self._text)
                self.number += 1
                return self._text.rstrip("\r\n").split("\t")
        elif self._at > len(self._text) // 2:
            self._text, self._at = self._text[self._at :], 0
        self._lines.hold()
        begins, cells = self._at, list[str]()
        while True:
            cell, end = self._cell(self._at)
            cells.append(cell)
            found = _CELL_END.match(self._text, end)
            self._at = end if found is None else found.end()
            if found is None or found[0] != "\t":
                break
        lines = sum(1 for _ in _LINE_END.finditer(self._text, begins, self._at))
        self.number += lines or 1  # the last line may have no end
        return cells

    def _cell(self, at: int) -> tuple[str, int]:
        """The cell that begins there, and where it ends."""
        if self._text.startswith('"', at) and (closes := self._closing(at)) is not None:
            return self._text[at + 1 : closes].replace('""', '"'), closes + 1
        found = _CELL_END.search(self._text, at)
        end = len(self._text) if found is None else found.start()
        return self._text[at:end], end

    def _closing(self, opens: int) -> int | None:
        """Where the quote is that ends the cell; None if the cell is not in quotes. Reads more lines if necessary."""
        text, begins, at = self._text, 0, opens + 1  # a part of the table, and where it begins in it
        more: list[str] = []
        closes = None
        while True:
            quote = text.find('"', at)
            if quote < 0:
                begins += len(text)
                line = next(self._lines, None) if begins - opens < limits.LINE_BYTES_MAX else None
                if line is None:
                    break
                more.append(line)
                text, at = line, 0
            elif text.startswith('"', quote + 1):
                at = quote + 2
            else:
                if quote + 1 == len(text) or text[quote + 1] in "\t\r\n":
                    closes = begins + quote
                break
        if more:
            self._text += "".join(more)
        return closes
