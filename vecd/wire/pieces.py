"""What a reader of records is given: an input in pieces of bytes. A piece of None means that none has arrived for a
while; it is passed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

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


#: Turns an input into its records.
Reader = Callable[[Input], Iterator[Line | None]]
