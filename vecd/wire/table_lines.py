"""The lines of a table, sans I/O: decoded, with their ends, which may be within a cell: LF, CR LF, or CR."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from .. import limits
from ..errors import Code, VecError
from .encodings import not_utf8
from .pieces import Input


class Paused(Exception):
    """No input has arrived for a while."""


class Lines(Iterator[str]):
    """The lines. Between two rows, of which the first calls `begin`, it raises Paused if no input has arrived."""

    def __init__(self, given: Input, form: str) -> None:
        self._lines = _decoded(given, form)
        self._back: str | None = None
        self._within = False  # a part of a row has been read, which would be lost
        self.number = 0  # of the last line that was read

    def begin(self) -> None:
        """The next row begins."""
        self._within = False

    def hold(self) -> None:
        """A row has begun: no more Paused."""
        self._within = True

    def back(self, line: str) -> None:
        """Takes the last line back: it is the next one."""
        self._back = line
        self.number -= 1

    def __next__(self) -> str:
        line, self._back = self._back, None
        while line is None:
            line = next(self._lines)
            if line is None and not self._within:
                raise Paused
        self._within = True
        self.number += 1
        return line


_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")


def _decoded(given: Input, form: str) -> Iterator[str | None]:
    name = given.name
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    try:
        for piece in given.pieces:
            if piece is None:
                yield None
                continue
            *whole, rest = _split(rest + decoder.decode(piece))
            yield from whole
            if len(rest) > limits.LINE_BYTES_MAX:
                raise VecError(
                    Code.INVALID_DOCUMENT,
                    f"{name}: a line over the limit of {limits.LINE_BYTES_MAX:,} bytes",
                    file=name,
                )
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise not_utf8(name, form, error.object, error.start) from None
    if rest:
        yield rest


def _split(text: str) -> list[str]:
    """The lines, and what follows them: a CR at the end may be half of a CR LF."""
    if "\r" not in text:
        *whole, rest = text.split("\n")
        return [*(line + "\n" for line in whole), rest]
    end = len(text) - 1 if text[-1] == "\r" else len(text)
    whole = _LINE.findall(text, 0, end)
    return [*whole, text[sum(map(len, whole)) :]]
