"""Formats of input, sans I/O: NDJSON, JSON arrays, and tables as CSV or TSV, in pieces of bytes; records out.

So all that follows (mapping, batches, errors with a line number) is the same for every format. A record that is wrong
is one rejected line; memory is bounded by one record. A piece of None means that no input has arrived for a while; it
is passed on.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from .mapping import DocumentMapping
from .ndjson import Line, split

Pieces = Iterator[bytes | None]
_Reader = Callable[[str, Pieces, DocumentMapping | None], Iterator[Line | None]]

#: Suffixes of compressed files, which say nothing about the format.
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_BOM: Final = b"\xef\xbb\xbf"


def format_of(name: str) -> str:
    """The format that the name of a file stands for, `ndjson` if it says nothing."""
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((form for form in ("json", "csv", "tsv") if name.endswith(f".{form}")), "ndjson")


def records(form: str, name: str, pieces: Pieces, mapping: DocumentMapping | None = None) -> Iterator[Line | None]:
    """The records of an input. `form` is one of FORMATS, `name` the input's name in messages.

    NDJSON that begins with a bracket is a JSON array. With a mapping, the rows of a table are objects; without one they
    are documents, whose metadata are the columns that a document does not have. Raises VecError `invalid_document` if
    the input as a whole cannot be read; records before that have been yielded.
    """
    return FORMATS[form](name, pieces, mapping)


# --- JSON -----------------------------------------------------------------------------------------------------------


def _ndjson(name: str, pieces: Pieces, mapping: DocumentMapping | None) -> Iterator[Line | None]:
    first = b""
    for piece in pieces:
        if not piece:
            yield None
            continue
        first += piece
        if (begun := first.removeprefix(_BOM).lstrip()) and not _BOM.startswith(begun):
            whole = chain((first,), pieces)
            yield from _json(name, whole, mapping) if begun.startswith(b"[") else split(name, whole)
            return
        if len(first) > limits.LINE_BYTES_MAX:
            break
    yield from split(name, chain((first,), pieces))


def _without_bom(pieces: Pieces) -> Pieces:
    first = b""
    for piece in pieces:
        if not piece:
            yield None
            continue
        first += piece
        if not _BOM.startswith(first):
            yield first.removeprefix(_BOM)
            yield from pieces
            return
    if first != _BOM:
        yield first


#: What matters outside of a record, inside of one, and inside a string.
_BEGINS: Final = re.compile(rb"[^\s,]")
_INSIDE: Final = re.compile(rb'["{}\[\]]')
_STRING: Final = re.compile(rb'["\\]')


def _json(name: str, pieces: Pieces, mapping: DocumentMapping | None) -> Iterator[Line | None]:
    """The objects of an array, or one behind the other, however many lines they take. The number of a record counts
    records: an array may be one line."""
    scanner = _JsonScanner(name)
    for piece in _without_bom(pieces):
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


# --- tables ---------------------------------------------------------------------------------------------------------


def _table(delimiter: str, quoted: bool) -> _Reader:
    def read(name: str, pieces: Pieces, mapping: DocumentMapping | None) -> Iterator[Line | None]:
        lines = _Lines(name, pieces)
        options: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE, "quotechar": None}
        csv.field_size_limit(limits.LINE_BYTES_MAX)
        reader = csv.reader(lines, delimiter=delimiter, strict=True, **options)
        columns: list[str] = []
        while True:
            lines.begin()
            number = lines.number + 1
            try:
                row = next(reader, None)
            except _Paused:
                yield None
                continue
            except csv.Error as error:
                yield Line(name, number, b"", error=_wrong(f"not a row of a table: {error}"))
                continue
            if row is None:
                return
            if not any(row):
                continue
            if not columns:
                columns = _columns(name, row, mapping)
                texts = _TEXTS if mapping is None else mapping.text_keys
            elif len(row) != len(columns):
                cells = f"{len(row):,} cells, but the header has {len(columns):,}"
                yield Line(name, number, b"", error=_wrong(f"the row has {cells}"))
            else:
                value = {
                    column: cell if column in texts else _value(cell)
                    for column, cell in zip(columns, row, strict=True)
                    if cell != ""
                }
                value = _document(value) if mapping is None else value
                yield Line(name, number, delimiter.join(row).encode(), value=value)

    return read


#: The columns that a document has; other columns are its metadata.
_TEXTS: Final = frozenset(("op", "id", "title", "text"))
_COLUMNS: Final = _TEXTS | {"vector"}


def _document(row: dict[str, Any]) -> dict[str, Any]:
    document = {column: value for column, value in row.items() if column in _COLUMNS}
    if metadata := {column: value for column, value in row.items() if column not in _COLUMNS}:
        document["metadata"] = metadata
    return document


class _Paused(Exception):
    """No input has arrived for a while."""


class _Lines(Iterable[str]):
    """The lines of a table, as the csv module reads them: with their line breaks, which may be within a cell."""

    def __init__(self, name: str, pieces: Pieces) -> None:
        self._lines = _decoded(name, pieces)
        self._within = False  # the module has read a part of a row, which it would forget
        self.number = 0  # of the last line that was read

    def begin(self) -> None:
        """The next row begins."""
        self._within = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while (line := next(self._lines)) is None:
            if not self._within:
                raise _Paused
        self._within = True
        self.number += 1
        return line


def _decoded(name: str, pieces: Pieces) -> Iterator[str | None]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    try:
        for piece in pieces:
            if piece is None:
                yield None
                continue
            *whole, rest = (rest + decoder.decode(piece)).split("\n")
            for line in whole:
                yield line + "\n"
            if len(rest) > limits.LINE_BYTES_MAX:
                raise VecError(
                    Code.INVALID_DOCUMENT,
                    f"{name}: a line over the limit of {limits.LINE_BYTES_MAX:,} bytes",
                    file=name,
                )
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name} is not UTF-8 (byte 0x{error.object[error.start]:02x})",
            f"convert it, for example: iconv -f latin1 -t utf-8 {name} | vec ingest --format csv",
            file=name,
        ) from None
    if rest:
        yield rest


def _columns(name: str, row: list[str], mapping: DocumentMapping | None) -> list[str]:
    """The header of a table. Raises VecError `invalid_document` if no document can come of it."""
    twice = next((column for column in row if row.count(column) > 1 or not column.strip()), None)
    if twice is not None:
        what = f"two columns {twice!r:.60}" if twice.strip() else "a column without a name"
        raise VecError(Code.INVALID_DOCUMENT, f"{name}: the header has {what}", "give each column a name", file=name)
    if len(row) == 1 and (other := next((each for each in ";|\t" if each in row[0]), None)) is not None:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name}: the cells are separated by {other!r}, not by a comma: {row[0]:.60}",
            "use --format tsv for tabs; convert a table with other separators",
            file=name,
        )
    if mapping is None and not {"text", "vector", "op"} & set(row):
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name}: the header has no column 'text' and no column 'vector': it has {', '.join(row):.200}",
            "name the columns to search in: --text COLUMN[,COLUMN]; the others become metadata",
            file=name,
        )
    return row


_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_LITERALS: Final = {"true": True, "false": False}


def _value(cell: str) -> Any:
    """A number if the cell is written as JSON writes that number (`007` and `1.50` stay texts), true, false, a list of
    numbers, or else the text."""
    if cell[0] in "-0123456789" and _NUMBER.fullmatch(cell):
        number = int(cell) if cell.lstrip("-").isdigit() else float(cell)
        within = -(2**63) <= number < 2**64 if isinstance(number, int) else True
        return number if within and str(number) == cell else cell
    if cell[0] == "[" and cell[-1] == "]":
        import orjson

        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(cell)
    return _LITERALS.get(cell, cell)


def _wrong(message: str) -> VecError:
    return VecError(Code.INVALID_DOCUMENT, message)


#: The formats of input: name -> its reader.
FORMATS: Final[dict[str, _Reader]] = {
    "ndjson": _ndjson,
    "json": _json,
    "csv": _table(",", quoted=True),
    "tsv": _table("\t", quoted=False),
}
