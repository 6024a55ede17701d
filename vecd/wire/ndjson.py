"""NDJSON reader, sans I/O: pieces of bytes in, lines out, and a line to a document in wire format.

Rules: no I/O, so that the command line and the daemon share it, for pipes and files; memory is bounded for any input (a
line over the limit is reported and skipped to its end). decompress.py comes before it.
A piece of None means that no input has arrived for a while; it is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import limits
from ..errors import Code, VecError
from . import strict_json
from .documents import pack, pack_document
from .mapping import DocumentMapping

BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Line:
    """One line of input, or a record of another format. `data` is None if the line is over the limit."""

    file: str
    number: int  # from 1
    data: bytes | None = b""
    end: int = 0  # offset of the next line in the (decompressed) file
    value: dict[str, Any] | None = None  # of a record of another format, which has been parsed
    error: VecError | None = None  # why it is no record
    own: bool = False  # `value` is a document: a mapping does not apply
    weight: int = 0  # bytes of a record without data, about

    @property
    def size(self) -> int:
        """Bytes of input, about."""
        return self.weight or len(self.data or b"")


def split(name: str, pieces: Iterator[bytes | None], number: int = 0, offset: int = 0) -> Iterator[Line | None]:
    """Splits input into lines. The input begins after line `number`, at `offset` bytes of the file."""
    rest, skipping = bytearray(), False  # a long line may come in many short pieces
    for piece in pieces:
        if piece is None:
            yield None
            continue
        *whole, tail = piece.split(b"\n")
        offset += len(piece) - len(tail)
        end = offset - sum(map(len, whole)) - len(whole)
        for line in whole:
            number += 1
            end += len(line) + 1
            data = bytes(rest + line) if rest else line
            yield _line(name, number, None if skipping else data, end)
            if rest or skipping:
                rest, skipping = bytearray(), False
        offset += len(tail)
        if skipping:
            continue
        rest += tail
        if len(rest) > limits.LINE_BYTES_MAX:
            rest, skipping = bytearray(), True
    if rest or skipping:
        yield _line(name, number + 1, None if skipping else bytes(rest), offset)


def _line(name: str, number: int, data: bytes | None, end: int) -> Line:
    if data is not None and len(data) > limits.LINE_BYTES_MAX:
        data = None
    elif data is not None and number == 1:
        data = data.removeprefix(BOM)
    return Line(name, number, data, end)


def document(line: Line, mapping: DocumentMapping | None = None) -> dict[str, Any] | None:
    """A line as a document in wire format; None for a blank line. Raises VecError `invalid_document`."""
    if line.error is not None:
        raise line.error
    if line.value is not None:
        return pack_document(line.value if mapping is None or line.own else mapping.apply(line.value))
    if line.data is None:
        raise VecError(Code.INVALID_DOCUMENT, f"a line over the limit of {limits.LINE_BYTES_MAX:,} bytes")
    if not line.data or line.data.isspace():  # checked first: input may have gigabytes of blank lines
        return None
    value = parse(line.data, "line")
    if mapping is None:
        return exact(line.data, value)
    strict_json.check_value(line.data, value)
    return pack_document(mapping.apply(value))


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in a text. Values that the parser has changed are found by `exact`. `what` is the text, for
    messages: a line, a message. Raises VecError `invalid_document`."""
    import orjson

    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise VecError(Code.INVALID_DOCUMENT, _why_not_json(data, str(error))) from error
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "no object"
        raise VecError(Code.INVALID_DOCUMENT, f"a document must be a JSON object, but this {what} is {kind}")
    return value


def exact(data: bytes, document: dict[str, Any]) -> dict[str, Any]:
    """The document that `parse` found in a text, in wire format. Raises VecError `invalid_document`, also for a value
    that the parser has changed."""
    packed, (keys, large) = pack(document)
    strict_json.check(data, keys, large)
    return packed


#: Brackets and strings; a string before a colon is a key.
_TOKENS = re.compile(r'[\[\]{}]|"(?P<key>(?:[^"\\]|\\.)*)"(?=\s*:)|"(?:[^"\\]|\\.)*"')


def _why_not_json(data: bytes, said: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"invalid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if "depth" in said or "recursion" in said:
        return f"'{_deepest_field(text)}' is nested too deep: more than {limits.METADATA_DEPTH_MAX} levels"
    if (found := strict_json.not_finite(text)) is not None:
        place, number = found
        why = "JSON has no NaN and no Infinity" if number[-1] in "Ny" else "the largest number is 1.8e308"
        instead = "leave the document out" if place.startswith("vector") else "write it as a string, or null"
        return f"'{place}' is {number:.60}, and {why}: {instead}"
    return f"not JSON ({said})"


def _deepest_field(text: str) -> str:
    """The top-level key whose value has the deepest nesting."""
    depth = deepest = 0
    key = field = ""
    for match in _TOKENS.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > deepest:
                deepest, field = depth, key
        elif token in "]}":
            depth -= 1
        elif depth == 1 and match["key"] is not None:
            key = match["key"]
    return field[:60]
