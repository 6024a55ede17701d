"""Records of Parquet files and of Arrow's IPC formats (streams, and files, which are also Feather), by batches of rows.

pyarrow reads them; it is loaded when the first one is. A row is an object, as in tables.py: with a mapping, it becomes
a document by its rules; without one, what is no column of a document is metadata. A null is a missing value. What JSON
does not have is written as JSON usually has it (`_json`), and vectors are packed without becoming numbers.
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from ..json_values import INTEGER_MAX, INTEGER_MIN
from .mapping import DocumentMapping
from .ndjson import Line
from .pieces import Input, Pieces, check_mapped

#: Rows that are converted at once, and about how many bytes these may have.
_ROWS: Final = 1024
_ROWS_BYTES: Final = 8 * limits.MIB
#: What a Parquet file begins and ends with, an Arrow file, and Feather before it was one.
_PARQUET: Final = b"PAR1"
_ARROW_FILE: Final = b"ARROW1\0\0"
_FEATHER_1: Final = b"FEA1"

#: The columns of a document, if there is no mapping, and those of which it needs one.
_COLUMNS: Final = frozenset(("op", "id", "title", "text", "texts", "vector", "vectors"))
_CONTENTS: Final = _COLUMNS - {"id"}


def load() -> Any:
    """pyarrow. Raises VecError `unsupported` if it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise VecError(
            Code.UNSUPPORTED,
            "Parquet and Arrow need pyarrow, which this installation does not have",
            "pip install 'vecd[arrow]'",
        ) from None
    pyarrow.enable_signal_handlers(False)
    return pyarrow


def parquet(given: Input) -> Iterator[Line | None]:
    """The rows of a Parquet file. What is no file on the disk is first copied to one: the table of its contents is at
    its end. Raises VecError."""
    arrow = load()
    with contextlib.ExitStack() as stack:
        file = given.file
        if file is None or file.seek(0) or file.read(len(_PARQUET)) != _PARQUET:
            if file is not None:
                file.seek(0)  # it is compressed; the pieces are of the same file
            file = stack.enter_context(tempfile.TemporaryFile())
            yield from _copy(given, file)
        file.seek(0)
        with _translated(arrow, given.name, "Parquet"):
            from pyarrow.parquet import ParquetFile

            source = stack.enter_context(ParquetFile(file, pre_buffer=False, buffer_size=limits.MIB))
            _check_columns(given, source.schema_arrow.names)
            rows = _rows_at_once(source.metadata)
            yield from _Rows(arrow, given).lines(source.iter_batches(batch_size=rows, use_threads=False))


def stream(given: Input) -> Iterator[Line | None]:
    """The rows of an Arrow stream or file, as they arrive: a file is a stream between two marks. Raises VecError."""
    arrow = load()
    pieces = _PieceFile(given.pieces)
    first = pieces.read(len(_ARROW_FILE))
    if not first:
        return
    if first.startswith((_FEATHER_1, _PARQUET)):
        feather = first.startswith(_FEATHER_1)
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{given.name} is {'version 1 of Feather' if feather else 'Parquet'}, not Arrow",
            "write it again as version 2" if feather else "use --format parquet",
            file=given.name,
        )
    if first != _ARROW_FILE:
        pieces.back(first)
    with _translated(arrow, given.name, "Arrow"):
        source = arrow.ipc.open_stream(arrow.PythonFile(pieces, mode="r"))
        _check_columns(given, source.schema.names)
        rows = _Rows(arrow, given)
        for batch in source:
            batch.validate(full=True)  # the input may be hostile, and pyarrow trusts a batch
            count = max(1, min(_ROWS, _ROWS_BYTES * batch.num_rows // max(1, batch.nbytes)))
            yield from rows.lines(batch.slice(start, count) for start in range(0, batch.num_rows, count))
            yield None  # the next batch may be long in coming


def _copy(given: Input, file: Any) -> Iterator[None]:
    """Copies the input, and yields for each piece. Raises VecError `disk_full`."""
    for piece in given.pieces:
        try:
            file.write(piece or b"")
        except OSError as error:
            raise VecError(
                Code.DISK_FULL,
                f"{given.name} cannot be copied to the folder for temporary files ({error.strerror})",
                "name the file instead of piping it, or set TMPDIR",
                file=given.name,
            ) from error
        yield None
    if not file.tell():
        raise VecError(Code.INVALID_DOCUMENT, f"{given.name} is empty, and no Parquet file is", file=given.name)


@contextlib.contextmanager
def _translated(arrow: Any, name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name} is no {what}, or it is damaged: {str(error).splitlines()[0]:.200}",
            "check that the file is complete",
            file=name,
        ) from error


def _check_columns(given: Input, names: Sequence[str]) -> None:
    """Raises VecError `invalid_document` if no document can come of these columns."""
    name = given.name
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise VecError(
            Code.INVALID_DOCUMENT, f"{name} has two columns {twice!r:.60}", "give each a name of its own", file=name
        )
    check_mapped(name, names, given.mapping)
    if given.mapping is None and not _CONTENTS & set(names):
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name} has no column 'text' or 'vector': its columns are {', '.join(names):.200}",
            "name the columns to search in: --text COLUMN[,COLUMN]; the others become metadata",
            file=name,
        )


def _rows_at_once(metadata: Any) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_ROWS, int(_ROWS_BYTES / max(1, row_bytes))))


class _PieceFile:
    """Pieces as a file that is read from its beginning to its end."""

    closed = False

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._held) < size:
            try:
                self._held += next(self._pieces) or b""
            except StopIteration:
                size = len(self._held)
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def back(self, data: bytes) -> None:
        """Puts back what was read."""
        self._held[:0] = data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


# --- rows -----------------------------------------------------------------------------------------------------------


class _Rows:
    """Turns batches of rows into records."""

    def __init__(self, arrow: Any, given: Input) -> None:
        self._arrow = arrow
        self._name = given.name
        self._mapping = given.mapping
        self._number = 0
        self._vectors = _vector_columns(given.mapping)

    def lines(self, batches: Iterable[Any]) -> Iterator[Line]:
        for batch in batches:
            columns = [
                self._column(name, column)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]  # fmt: skip
            weight = batch.nbytes // max(1, batch.num_rows) + 1
            for row in zip(*columns, strict=True):
                self._number += 1
                yield self._line(dict(zip(batch.schema.names, row, strict=True)), weight)

    def _line(self, row: dict[str, Any], weight: int) -> Line:
        line = Line(self._name, self._number, weight=weight)
        value: dict[str, Any] = {}
        for name, cell in row.items():
            if isinstance(cell, VecError):
                line.error = cell
            elif cell is not None:
                value[name] = cell
        line.value = value if self._mapping is not None else _document(value)
        return line

    def _column(self, name: str, column: Any) -> list[Any]:
        """The values of a column; a VecError for one that cannot be read."""
        types = self._arrow.types
        kind = column.type
        if isinstance(column, self._arrow.ExtensionArray):
            column, kind = column.storage, column.storage.type
        if name in self._vectors and (packed := self._packed(column)) is not None:
            return packed
        if types.is_timestamp(kind) and kind.unit == "ns":
            column = column.cast(self._arrow.timestamp("us", kind.tz), safe=False)
        elif (types.is_time(kind) or types.is_duration(kind)) and kind.unit == "ns":
            column = column.cast(self._arrow.time64("us") if types.is_time(kind) else self._arrow.duration("us"), False)
        try:
            values: list[Any] = column.to_pylist()
        except (ValueError, OverflowError):
            values = [self._value(name, column, place) for place in range(len(column))]
        if types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
            return values
        return [value if isinstance(value, VecError) else _json(value) for value in values]

    def _value(self, name: str, column: Any, place: int) -> Any:
        try:
            return column[place].as_py()
        except (ValueError, OverflowError) as error:
            return VecError(Code.INVALID_DOCUMENT, f"the value of {name!r:.60} cannot be read: {error}", field=name)

    def _packed(self, column: Any) -> list[bytes | None] | None:
        """A column of lists of numbers as packed vectors; None if it is another column, or has nulls in its lists."""
        types, kind = self._arrow.types, column.type
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if not listed or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
            return None
        from pyarrow import compute

        values = column.flatten()
        if values.null_count:
            return None
        values = values.cast(self._arrow.float32(), safe=False)
        buffer = values.buffers()[1]
        data = memoryview(b"" if buffer is None else buffer)[4 * values.offset :]
        packed: list[bytes | None] = []
        at = 0
        for length in compute.list_value_length(column).to_pylist():
            packed.append(None if length is None else data[at : at + 4 * length].tobytes())
            at += 4 * (length or 0)
        return packed


def _vector_columns(mapping: DocumentMapping | None) -> set[str]:
    """The columns that are vectors as they are."""
    if mapping is None:
        return {"vector"}
    path = mapping.lists.get("vector")
    return {str(path.steps[0])} if path is not None and not path.beside and len(path.steps) == 1 else set()


def _document(row: dict[str, Any]) -> dict[str, Any]:
    document = {column: value for column, value in row.items() if column in _COLUMNS}
    given = row.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    whole = isinstance(given, dict)  # a column `metadata` of structures or maps
    metadata |= {
        name: value for name, value in row.items() if name not in _COLUMNS and not (whole and name == "metadata")
    }
    if metadata:
        document["metadata"] = metadata
    return document


def _json(value: Any) -> Any:
    """A value as JSON has it: times in RFC 3339 (in UTC, where they have a zone), decimals as numbers if a 64-bit float
    has all their digits and else as texts, bytes as text if they are UTF-8 and else in base64, NaN as null."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if INTEGER_MIN <= value <= INTEGER_MAX else str(value)
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, dict):
        return {str(key): _json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(each, tuple) and len(each) == 2 for each in value):  # a map
            return {str(key): _json(each) for key, each in value}
        return [_json(each) for each in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        return value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and INTEGER_MIN <= value <= INTEGER_MAX:
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    return str(value)
