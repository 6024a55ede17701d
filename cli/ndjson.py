"""Input: lines with their places, from files, pipes and gzip, as they arrive.

Rules: memory is bounded whatever comes (a line over the limit is reported and skipped to its end); a pipe is read as
soon as it has something, so a trickle is not held back; gzip is known by its magic number, not by its name.
"""

from __future__ import annotations

import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vecd import limits
from vecd.errors import Code, VecError

_READ_BYTES = 256 * limits.KIB
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Line:
    """One line of input; `data` is None if it was over the limit."""

    file: str
    number: int  # from 1
    data: bytes | None


def lines(paths: list[str], wait: Callable[[int], bool] | None = None) -> Iterator[Line | None]:
    """All lines of these files (`-` is stdin; none at all is stdin), without their newlines.

    Before each read of a pipe or terminal `wait(fd)` is called; it returns when the descriptor can be read, or false
    when nothing has come for a while: then None is yielded, and the caller may deal with what it has. Raises VecError
    `invalid_request` for a file that cannot be read and `invalid_document` for one that is no valid gzip.
    """
    for path in paths or ["-"]:
        name = "stdin" if path == "-" else path
        try:
            fd = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot read {path} ({error.strerror})", file=path) from error
        try:
            yield from _split(name, _unzipped(name, _pieces(name, fd, wait)))
        finally:
            if path != "-":
                os.close(fd)


def _pieces(name: str, fd: int, wait: Callable[[int], bool] | None) -> Iterator[bytes | None]:
    waits = wait is not None and not os.path.isfile(f"/dev/fd/{fd}")
    while True:
        if waits and wait is not None and not wait(fd):
            yield None
            continue
        try:
            piece = os.read(fd, _READ_BYTES)
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot read {name} ({error.strerror})", file=name) from error
        if not piece:
            return
        yield piece


def _unzipped(name: str, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """The pieces, decompressed if the first begins like gzip; gzip files one behind the other are one."""
    unzip = None
    first = True
    begun = b""  # of a magic number that arrived in two pieces
    for piece in pieces:
        if piece is None:
            yield None
            continue
        if first:
            begun, piece = b"", begun + piece
            if piece == _GZIP_MAGIC[:1]:
                begun = piece
                continue
            first = False
            if piece.startswith(_GZIP_MAGIC):
                unzip = zlib.decompressobj(wbits=31)
        if unzip is None:
            yield piece
            continue
        try:
            while piece:
                yield unzip.decompress(piece, _READ_BYTES)
                piece = unzip.unconsumed_tail
                if unzip.eof:
                    piece = unzip.unused_data.lstrip(b"\0")
                    if piece:
                        unzip = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            raise VecError(Code.INVALID_DOCUMENT, f"{name} is damaged gzip: {error}", file=name) from error
    if begun:
        yield begun
    if unzip is not None and not unzip.eof:
        raise VecError(Code.INVALID_DOCUMENT, f"{name} is gzip that ends too early", "is it complete?", file=name)


def _split(name: str, pieces: Iterator[bytes | None]) -> Iterator[Line | None]:
    number, rest, skipping = 0, b"", False
    for piece in pieces:
        if piece is None:
            yield None
            continue
        *whole, tail = piece.split(b"\n")
        for line in whole:
            number += 1
            yield _line(name, number, rest + line if not skipping else None)
            rest, skipping = b"", False
        if skipping:
            continue
        rest += tail
        if len(rest) > limits.LINE_BYTES_MAX:
            rest, skipping = b"", True
    if rest or skipping:
        yield _line(name, number + 1, None if skipping else rest)


def _line(name: str, number: int, data: bytes | None) -> Line:
    if data is not None and len(data) > limits.LINE_BYTES_MAX:
        data = None
    elif data is not None and number == 1:
        data = data.removeprefix(_BOM)
    return Line(name, number, data)


def document(line: Line) -> dict[str, Any] | None:
    """A line as a document that can travel; None for a blank line. Raises VecError `invalid_document`."""
    import orjson

    from vecd.wire.documents import pack_document

    if line.data is None:
        raise VecError(Code.INVALID_DOCUMENT, f"a line over the limit of {limits.LINE_BYTES_MAX:,} bytes")
    try:
        document = orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        if not line.data.strip():
            return None
        raise VecError(Code.INVALID_DOCUMENT, _why_not_json(line.data, str(error))) from error
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "no object"
        raise VecError(Code.INVALID_DOCUMENT, f"a document is a JSON object, and this line is {kind}")
    return pack_document(document)


def _why_not_json(data: bytes, said: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return f"invalid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
    if "NaN" in text or "Infinity" in text:
        return f"not JSON, which has no NaN and no Infinity ({said})"
    return f"not JSON ({said})"


def readable(fd: int, busy: bool) -> bool:
    """For `lines`: waits until there is something to read, but not while the caller has something to do."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0 if busy else None))


def id_pages(given: list[str], stdin: bool, size: int) -> Iterator[list[str]]:
    """The ids that were given, or those on stdin, `size` at a time; from stdin also fewer, when no more are there yet.

    What stands before a line that is no id is yielded before the VecError `invalid_request` is raised.
    """
    if not stdin:
        yield from (given[start : start + size] for start in range(0, len(given), size))
        return
    page: list[str] = []
    wrong: VecError | None = None

    def wait(fd: int) -> bool:
        return readable(fd, bool(page))

    try:
        for line in lines([], wait):
            found = _id(line) if line is not None else None
            if found is not None:
                page.append(found)
            if len(page) == size or line is None:
                yield page
                page = []
    except VecError as error:
        wrong = error
    if page:
        yield page
    if wrong is not None:
        raise wrong


def _id(line: Line) -> str | None:
    """A line's id: bare, or an object's "id"; None for a blank line."""
    from .output import load_orjson

    orjson = load_orjson()
    where = f"{line.file}:{line.number}"
    if line.data is None:
        raise VecError(Code.INVALID_REQUEST, f"{where}: a line over the limit of {limits.LINE_BYTES_MAX:,} bytes")
    if not (text := line.data.strip()):
        return None
    try:
        value = orjson.loads(text)["id"] if text.startswith(b"{") else text.decode()
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise VecError(Code.INVALID_REQUEST, f'{where}: no id, and no object with an "id" ({error})') from error
    if not isinstance(value, str):
        raise VecError(Code.INVALID_REQUEST, f'{where}: "id" must be a string')
    return value
