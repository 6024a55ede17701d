"""Records of JSON, sans I/O: an array of objects, or objects one behind the other, however many lines they take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .. import limits
from ..errors import Code, VecError
from .ndjson import BOM, Line
from .pieces import Input, Pieces


def _without_bom(pieces: Pieces) -> Pieces:
    first = b""
    for piece in pieces:
        if not piece:
            yield None
            continue
        first += piece
        if not BOM.startswith(first):
            yield first.removeprefix(BOM)
            yield from pieces
            return
    if first != BOM:
        yield first


#: What matters outside of a record, inside of one, and inside a string.
_BEGINS: Final = re.compile(rb"[^\s,]")
_INSIDE: Final = re.compile(rb'["{}\[\]]')
_STRING: Final = re.compile(rb'["\\]')


def read(given: Input) -> Iterator[Line | None]:
    """The objects. The number of a record counts records: an array may be one line. Raises VecError `invalid_document`
    for what is between them, or if the input ends too early."""
    scanner = _JsonScanner(given.name)
    for piece in _without_bom(given.pieces):
        if piece is None:
            yield None
        else:
            yield from scanner.feed(piece)
    yield from scanner.end()


class _JsonScanner:
    """Finds the records in JSON that arrives in pieces. Whether they are valid is for the parser to say."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held = bytearray()  # the record so far
        self._depth = 0  # of brackets within the record; 0: between records
        self._in_string = self._escaped = self._skipping = False
        self._array: bool | None = None  # whether the records are in an array; None before the first byte
        self._closed = False  # the array has ended
        self._line = 1
        self._records = 0

    def feed(self, piece: bytes) -> Iterator[Line]:
        at = 0
        while at < len(piece):
            if self._depth == 0:
                at = self._between(piece, at)
                continue
            end = self._inside(piece, at)
            self._keep(piece[at:end])
            at = end
            if self._depth == 0:
                yield self._record()

    def end(self) -> Iterator[Line]:
        """The end of the input. Raises VecError `invalid_document` if it comes too early."""
        if self._depth or (self._array and not self._closed):
            what = f"object {self._records + 1:,}" if self._depth else "the array"
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"{self._name} ends within {what}",
                "check that the file is complete",
                file=self._name,
            )
        return iter(())

    def _between(self, piece: bytes, at: int) -> int:
        """Skips white space and commas to the next record; returns where it begins, or the end of the piece."""
        found = _BEGINS.search(piece, at)
        stop = len(piece) if found is None else found.start()
        self._line += piece.count(b"\n", at, stop)
        if found is None:
            return stop
        byte = found[0]
        if self._array is None:
            self._array = byte == b"["
            if self._array:
                return stop + 1
        if byte == b"]" and self._array and not self._closed:
            self._closed = True
            return stop + 1
        if byte != b"{" or self._closed:
            where = "behind the array" if self._closed else "between the objects"
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"{self._name}: unexpected {piece[stop : stop + 20].decode('utf-8', 'replace')!r} {where}, on line"
                f" {self._line:,}",
                "JSON input is one array of objects, or objects one behind the other",
                file=self._name,
            )
        self._depth = 1
        self._keep(b"{")
        return stop + 1

    def _inside(self, piece: bytes, at: int) -> int:
        """Scans to the end of the record, or of the piece; returns that place."""
        began = at
        if self._escaped:
            self._escaped, at = False, at + 1
        while self._depth:
            found = (_STRING if self._in_string else _INSIDE).search(piece, at)
            if found is None:
                at = len(piece)
                break
            byte, at = found[0], found.end()
            if byte == b"\\":
                at += 1
                if at > len(piece):
                    self._escaped, at = True, len(piece)
                    break
            elif byte == b'"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if byte in b"{[" else -1
        self._line += piece.count(b"\n", began, at)
        return at

    def _keep(self, part: bytes) -> None:
        if not self._skipping:
            self._held += part
            if len(self._held) > limits.LINE_BYTES_MAX:
                self._held, self._skipping = bytearray(), True

    def _record(self) -> Line:
        data = None if self._skipping else bytes(self._held)
        self._held, self._skipping = bytearray(), False
        self._records += 1
        return Line(self._name, self._records, data)
