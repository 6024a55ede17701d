"""Formats of input: NDJSON, JSON, tables (CSV, TSV, Parquet, Arrow) and mail, in pieces of bytes; records out.

So all that follows (mapping, batches, errors with a line number) is the same for every format. A record that is wrong
is one rejected line; memory is bounded by some records. A piece of None means that no input has arrived for a while; it
is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import BinaryIO, Final, NamedTuple

from .. import limits
from ..errors import Code, VecError
from . import arrow, json_records, tables
from .encodings import utf8
from .mapping import DocumentMapping
from .ndjson import BOM, Line, split
from .pieces import Input, Pieces, Reader

#: Suffixes of compressed files, which say nothing about the format.
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")


def format_of(name: str) -> str:
    """The format that the name of a file stands for, `ndjson` if it says nothing."""
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((form for form, each in FORMATS.items() if name.endswith(each.suffixes)), "ndjson")


def has_format(name: str) -> bool:
    """Whether the name of a file stands for a format of records."""
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return any(name.endswith(each.suffixes) for each in FORMATS.values())


def check_format(form: str) -> None:
    """Raises VecError `invalid_request` for a format that there is not, `unsupported` for one that this installation
    cannot read."""
    if form not in FORMATS:
        raise VecError(
            Code.INVALID_REQUEST, f"there is no format {form!r:.60}", f"formats: {', '.join(FORMATS)}", field="format"
        )
    if FORMATS[form].extra:
        arrow.load()


def records(
    form: str,
    name: str,
    pieces: Pieces,
    mapping: DocumentMapping | None = None,
    file: BinaryIO | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Line | None]:
    """The records of an input. `form` is one of FORMATS, `name` the input's name in messages, `file` and `say` as in
    Input.

    NDJSON that begins with a bracket is JSON, and Parquet and Arrow are recognised by their first bytes. With a
    mapping, the rows of a table are objects; without one they are documents, whose metadata are the columns that a
    document does not have. Raises VecError `invalid_document` if the input as a whole cannot be read; records before
    that have been yielded.
    """
    if FORMATS[form].text:
        pieces = utf8(name, form, pieces)
    return FORMATS[form].read(Input(name, pieces, mapping, file, say))


def _ndjson(given: Input) -> Iterator[Line | None]:
    first = b""
    for piece in given.pieces:
        if not piece:
            yield None
            continue
        first += piece
        begun = first.removeprefix(BOM).lstrip()
        if any(each.startswith(first) for each in (BOM, *_MAGIC)) or (not begun and len(first) < limits.LINE_BYTES_MAX):
            continue
        given = replace(given, pieces=chain((first,), given.pieces))
        reader = next((FORMATS[form].read for magic, form in _MAGIC.items() if first.startswith(magic)), None)
        if reader is None and begun.startswith(b"["):
            reader = json_records.read
        yield from split(given.name, given.pieces) if reader is None else reader(given)
        return
    yield from split(given.name, iter((first,)))


def _mbox(given: Input) -> Iterator[Line | None]:
    from . import mail  # the email package takes its time to load

    for found in mail.messages(given.name, given.pieces):
        if found is None:
            yield None
        else:
            yield _message(given.name, *found)


def _eml(given: Input) -> Iterator[Line | None]:
    message = bytearray()
    for piece in given.pieces:
        if piece is None:
            yield None
        elif len(message) < limits.LINE_BYTES_MAX:
            message += piece
    if message:
        yield _message(given.name, 1, bytes(message))


def _message(name: str, number: int, message: bytes) -> Line:
    from . import mail

    try:
        return Line(name, number, value=mail.document_of(message), own=True, weight=len(message))
    except VecError as error:
        return Line(name, number, error=error)


class _Format(NamedTuple):
    read: Reader
    suffixes: tuple[str, ...]  # of files in this format
    text: bool = False  # in UTF-8, or UTF-16 with a byte order mark
    extra: bool = False  # it needs a library that not everybody has


#: The formats of input.
FORMATS: Final[dict[str, _Format]] = {
    "ndjson": _Format(_ndjson, (".ndjson", ".jsonl"), text=True),
    "json": _Format(json_records.read, (".json",), text=True),
    "csv": _Format(tables.csv_records, (".csv",), text=True),
    "tsv": _Format(tables.tsv_records, (".tsv",), text=True),
    "parquet": _Format(arrow.parquet, (".parquet", ".pq"), extra=True),
    "arrow": _Format(arrow.stream, (".arrow", ".arrows", ".feather", ".ipc"), extra=True),
    "mbox": _Format(_mbox, (".mbox", ".mbx")),
    "eml": _Format(_eml, (".eml",)),
}
#: What binary formats begin with -> their names.
_MAGIC: Final = {b"PAR1": "parquet", b"ARROW1": "arrow"}
