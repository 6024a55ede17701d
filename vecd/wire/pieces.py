"""What a reader of records is given: an input in pieces of bytes. A piece of None means that none has arrived for a
while; it is passed on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import Code, VecError, nearest
from .mapping import DocumentMapping
from .ndjson import Line

Pieces = Iterator[bytes | None]


@dataclass(slots=True)
class Input:
    """One input, decompressed."""

    name: str  # in messages
    pieces: Pieces
    mapping: DocumentMapping | None = None
    file: BinaryIO | None = None  # the input as it was, perhaps compressed, if it is a file that can be read anywhere
    say: Callable[[str], None] | None = None  # tells a person how the input is read


#: Turns an input into its records.
Reader = Callable[[Input], Iterator[Line | None]]


def check_mapped(name: str, columns: Collection[str], mapping: DocumentMapping | None) -> None:
    """Raises VecError `invalid_document` if a table lacks a column without which none of its rows becomes a document.
    `name` is the table's name in messages."""
    if mapping is None or (lacking := mapping.lacking(columns)) is None:
        return
    field, path = lacking
    close = nearest(path, columns)
    raise VecError(
        Code.INVALID_DOCUMENT,
        f"{name} has no column {path!r:.60}, where the {field} should be: it has {', '.join(columns):.200}",
        f"did you mean {close!r}?" if close else f"name another column: --map {field}=COLUMN",
        file=name,
    )
