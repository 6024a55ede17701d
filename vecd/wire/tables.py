"""Records of tables, sans I/O: CSV, and TSV without quotes.

With a mapping, rows are objects; without one they are documents, whose metadata are the columns that a document does
not have.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from .mapping import DocumentMapping
from .ndjson import Line
from .pieces import Input, Pieces, Reader


def table(delimiter: str, quoted: bool) -> Reader:
    """The reader of tables whose cells have this between them; `quoted`: cells may be in double quotes."""

    def read(given: Input) -> Iterator[Line | None]:
        name, mapping = given.name, given.mapping
        lines = _Lines(name, given.pieces)
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
