"""Records of tables, sans I/O: CSV and TSV.

With a mapping, rows are objects; without one they are documents, whose metadata are the columns that a document does
not have.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from .. import limits
from ..errors import Code, VecError
from .mapping import DocumentMapping
from .ndjson import Line
from .pieces import Input, check_mapped
from .tab_rows import TabRows
from .table_lines import Lines, Paused


class _Rows(Protocol):
    @property
    def number(self) -> int:
        """Of the last line of the last row."""

    def __next__(self) -> list[str]: ...


def csv_records(given: Input) -> Iterator[Line | None]:
    """The rows of a table with commas between its cells, or what it says or shows to be between them."""
    return _records(given, "csv", lambda lines: _CsvRows(lines, given))


def tsv_records(given: Input) -> Iterator[Line | None]:
    """The rows of a table with tabs between its cells."""
    return _records(given, "tsv", TabRows)


def _records(given: Input, form: str, make: Callable[[Lines], _Rows]) -> Iterator[Line | None]:
    name, mapping = given.name, given.mapping
    lines = Lines(given, form)
    rows = make(lines)
    columns: list[str] = []
    while True:
        lines.begin()
        number = rows.number + 1
        try:
            row = next(rows, None)
        except Paused:
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
            yield Line(name, number, "\t".join(row).encode(), value=value)


#: What Excel writes in front of a table to say what is between its cells.
_SEP: Final = re.compile(r'"?sep=(?:(.)"?[,;]*)\s*', re.IGNORECASE)
#: What may be between the cells of a table whose header has no comma, as Excel writes it in Europe.
_DELIMITERS: Final = ";|\t"


class _CsvRows(Iterator[list[str]]):
    """The rows of CSV. A first line `sep=;` says what is between the cells, or else the header does."""

    def __init__(self, lines: Lines, given: Input) -> None:
        self._lines = lines
        self._given = given
        self._reader: Iterator[list[str]] | None = None

    @property
    def number(self) -> int:
        return self._lines.number

    def __next__(self) -> list[str]:
        if self._reader is None:
            self._reader = self._begun()
        return next(self._reader)

    def _begun(self) -> Iterator[list[str]]:
        while not (line := next(self._lines)).strip():
            pass
        if (said := _SEP.fullmatch(line)) is not None:
            delimiter = said[1]
        else:
            self._lines.back(line)
            delimiter = _delimiter(line)
            if delimiter != "," and self._given.say is not None:
                shown = "tabs" if delimiter == "\t" else repr(delimiter)
                self._given.say(f"{self._given.name}: the cells are separated by {shown}, not by commas")
        csv.field_size_limit(limits.LINE_BYTES_MAX)
        return csv.reader(self._lines, delimiter=delimiter, strict=True)


def _delimiter(header: str) -> str:
    """What is between the cells of a header."""

    def cells(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    found = max(_DELIMITERS, key=cells)
    return found if cells(",") == 1 and cells(found) > 1 else ","


#: The columns that a document has; other columns are its metadata.
_TEXTS: Final = frozenset(("op", "id", "title", "text"))
_COLUMNS: Final = _TEXTS | {"vector"}


def _document(row: dict[str, Any]) -> dict[str, Any]:
    document = {column: value for column, value in row.items() if column in _COLUMNS}
    if metadata := {column: value for column, value in row.items() if column not in _COLUMNS}:
        document["metadata"] = metadata
    return document


def _columns(name: str, row: list[str], mapping: DocumentMapping | None) -> list[str]:
    """The header of a table. Raises VecError `invalid_document` if no document can come of it."""
    twice = next((column for column in row if row.count(column) > 1 or not column.strip()), None)
    if twice is not None:
        what = f"two columns {twice!r:.60}" if twice.strip() else "a column without a name"
        raise VecError(Code.INVALID_DOCUMENT, f"{name}: the header has {what}", "give each column a name", file=name)
    if mapping is None and not {"text", "vector", "op"} & set(row):
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name}: the header has no column 'text' and no column 'vector': it has {', '.join(row):.200}",
            "name the columns to search in: --text COLUMN[,COLUMN]; the others become metadata",
            file=name,
        )
    check_mapped(name, row, mapping)
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
