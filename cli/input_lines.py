"""Reads line-based input (documents, ids) from files and pipes, also compressed, as it arrives.

A pipe is read as soon as data arrives, so a slow producer is not delayed. vecd/wire/ndjson.py splits input into lines
and parses documents; like other modules that only some commands need, it is imported where it is used.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from io import FileIO
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from vecd import limits
from vecd.errors import Code, VecError

if TYPE_CHECKING:
    from vecd.wire.mapping import DocumentMapping
    from vecd.wire.ndjson import Line

    from .file_lines import FileLines


def lines(
    paths: list[str], wait: Callable[[int], bool] | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[Line | None]:
    """Yields the lines of these files, without newlines; `-`, or an empty list, is stdin. See `_inputs`."""
    from vecd.wire.ndjson import split

    for name, pieces, _ in _inputs(paths, wait, check):
        yield from split(name, pieces)


def records(
    paths: list[str],
    form: str | None,
    mapping: DocumentMapping | None,
    wait: Callable[[int], bool] | None = None,
    check: Callable[[], None] = lambda: None,
    files: FileLines | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Line | None]:
    """Yields the records of these files, as vecd/wire/records.py has them. `form` is their format; None: what the name
    of each says. With `files`, what is a document as a whole, or a folder, is read by it. `say` tells how an
    input is read. See `_inputs`."""
    from vecd.wire.records import format_of, records

    for path in paths or ["-"]:
        if files is not None and form is None and path != "-" and is_files(path):
            yield from files.lines(path, check)
            continue
        for name, pieces, file in _inputs([path], wait, check):
            yield from records(form or format_of(name), name, pieces, mapping, file, say)


def is_files(path: str) -> bool:
    """Whether an input is a folder, or a file that is a document as a whole."""
    from vecd.wire.records import has_format

    if has_format(path) and not os.path.isdir(path):
        return False
    from . import file_lines

    return file_lines.is_files(path)


def _inputs(
    paths: list[str], wait: Callable[[int], bool] | None, check: Callable[[], None]
) -> Iterator[tuple[str, Iterator[bytes | None], BinaryIO | None]]:
    """Yields each file's name, its contents, decompressed, in pieces, and the file itself if it is a regular one, from
    which the pieces are read; `-`, or an empty list, is stdin.

    Calls `wait(fd)` before each read of a pipe or terminal. It returns true when the descriptor is readable, and false
    after a time without input; then None is yielded, so that the caller can process what it has. Calls `check()` for
    each piece of decompressed input; an exception from it ends the reading even within a line. Raises VecError
    `invalid_request` if a file cannot be read, and `invalid_document` if its compression is damaged.
    """
    from vecd.durable_files import printable_path
    from vecd.wire.decompress import decompressed

    for path in paths or ["-"]:
        name = "stdin" if path == "-" else printable_path(path)
        try:
            fd = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot read {name} ({error.strerror})", file=name) from error
        try:
            file = FileIO(fd, closefd=False) if os.path.isfile(f"/dev/fd/{fd}") else None
            yield name, _checked(decompressed(name, _pieces(name, fd, wait)), check), cast("BinaryIO | None", file)
        finally:
            if path != "-":
                os.close(fd)


def _pieces(name: str, fd: int, wait: Callable[[int], bool] | None) -> Iterator[bytes | None]:
    waits = wait is not None and not os.path.isfile(f"/dev/fd/{fd}")
    from vecd.wire.decompress import PIECE_BYTES

    while True:
        if waits and wait is not None and not wait(fd):
            yield None
            continue
        try:
            piece = os.read(fd, PIECE_BYTES)
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot read {name} ({error.strerror})", file=name) from error
        if not piece:
            return
        yield piece


def _checked(pieces: Iterator[bytes | None], check: Callable[[], None]) -> Iterator[bytes | None]:
    for piece in pieces:
        check()
        yield piece


def document(line: Line) -> dict[str, Any] | None:
    """Parses a line as a document in the form of the wire protocol; None for a blank line. Raises VecError
    `invalid_document`."""
    from vecd.wire.ndjson import document

    return document(line)


def readable(fd: int, busy: bool) -> bool:
    """A `wait` for `lines`: waits until `fd` is readable; does not block if the caller is `busy`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0 if busy else None))


def id_pages(given: list[str], stdin: bool, size: int, *, mixed: bool = True) -> Iterator[list[str]]:
    """Yields the given ids, or those on stdin, in batches of at most `size`; smaller batches while stdin has no more
    input yet. With `mixed`, JSON can follow bare ids.

    Yields the ids before an invalid line, and then raises VecError `invalid_request`.
    """
    if not stdin:
        yield from (given[start : start + size] for start in range(0, len(given), size))
        return
    page: list[str] = []
    wrong: VecError | None = None
    read = _Ids(mixed)

    def wait(fd: int) -> bool:
        return readable(fd, bool(page))

    try:
        for line in lines([], wait):
            found = read.id_of(line) if line is not None else None
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


class _Ids:
    """A parser of lines with ids: JSON strings, objects with an "id" or a "document_id", or bare ids.

    After a bare id, a line that looks like JSON is ambiguous: unless `mixed`, it is refused if the first line is bare.
    """

    def __init__(self, mixed: bool) -> None:
        self._mixed = mixed
        self._bare: bool | None = None  # whether the first line is a bare id; None before it

    def id_of(self, line: Line) -> str | None:
        """The id; None for a blank line. Raises VecError `invalid_request`, naming the line."""
        where = f"{line.file}:{line.number}"
        if line.data is None:
            raise VecError(Code.INVALID_REQUEST, f"{where}: the line exceeds {limits.LINE_BYTES_MAX:,} bytes")
        if not line.data.strip():
            return None
        json = line.data.lstrip()[:1] in (b'"', b"{", b"[")
        if self._bare is None:
            self._bare = not json
        if json and self._bare and not self._mixed:
            raise VecError(
                Code.INVALID_REQUEST, f"{where}: the line is JSON, but the first line is a bare id", _AS_JSON
            )
        return _from_json(line.data, where) if json else _bare(line.data, where)


_AS_JSON = "write all ids as JSON strings: use jq .id, not jq -r .id"


def _from_json(data: bytes, where: str) -> str:
    from vecd.json_values import id_text
    from vecd.wire import strict_json

    from .output import load_orjson

    load_orjson()
    try:
        value = strict_json.loads(data)
    except (VecError, ValueError) as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: not an id ({error})", _AS_JSON) from error
    if isinstance(value, dict):
        found = [value[key] for key in ("id", "document_id") if key in value]
        if not found or found[-1] != found[0]:
            what = "two different ids" if found else 'no "id" and no "document_id"'
            raise VecError(Code.INVALID_REQUEST, f"{where}: the object has {what}")
        value = id_text(found[0])
    if not isinstance(value, str):
        raise VecError(Code.INVALID_REQUEST, f'{where}: "id" must be a string or a whole number', _AS_JSON)
    return value


def _bare(data: bytes, where: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: the id is not UTF-8 ({error})") from error
    if text != text.strip() or not text.isprintable():
        what = "has surrounding white space" if text != text.strip() else "contains a control character"
        raise VecError(Code.INVALID_REQUEST, f"{where}: the bare id {what} and is ambiguous", _AS_JSON)
    return text
