"""Input: lines with their places, from files, pipes and gzip, as they arrive.

A pipe is read as soon as it has something, so a trickle is not held back. What a line is, and a document in it, is
vecd/wire/ndjson.py's to say; like all that only some commands need, it is imported where it is used.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vecd import limits
from vecd.errors import Code, VecError

if TYPE_CHECKING:
    from vecd.wire.ndjson import Line


def lines(
    paths: list[str], wait: Callable[[int], bool] | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[Line | None]:
    """All lines of these files (`-` is stdin; none at all is stdin), without their newlines.

    Before each read of a pipe or terminal `wait(fd)` is called; it returns when the descriptor can be read, or false
    when nothing has come for a while: then None is yielded, and the caller may deal with what it has. `check()` is
    called for each piece of input, unpacked; what it raises ends the reading inside a line too. Raises VecError
    `invalid_request` for a file that cannot be read and `invalid_document` for one that is no valid gzip.
    """
    from vecd.wire.ndjson import split, unzipped

    for path in paths or ["-"]:
        name = "stdin" if path == "-" else os.fsencode(path).decode("utf-8", "backslashreplace")
        try:
            fd = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot read {name} ({error.strerror})", file=name) from error
        try:
            yield from split(name, _checked(unzipped(name, _pieces(name, fd, wait)), check))
        finally:
            if path != "-":
                os.close(fd)


def _pieces(name: str, fd: int, wait: Callable[[int], bool] | None) -> Iterator[bytes | None]:
    waits = wait is not None and not os.path.isfile(f"/dev/fd/{fd}")
    from vecd.wire.ndjson import PIECE_BYTES

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
    """A line as a document that can travel; None for a blank line. Raises VecError `invalid_document`."""
    from vecd.wire.ndjson import document

    return document(line)


def readable(fd: int, busy: bool) -> bool:
    """For `lines`: waits until there is something to read, but not while the caller has something to do."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0 if busy else None))


def id_pages(given: list[str], stdin: bool, size: int, *, mixed: bool = True) -> Iterator[list[str]]:
    """The ids that were given, or those on stdin, `size` at a time; from stdin also fewer, when no more are there yet.
    With `mixed`, JSON may follow bare lines.

    What stands before a line that is no id is yielded before the VecError `invalid_request` is raised.
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
    """Reads lines that are ids: JSON strings, objects with an "id" or a "document_id", or bare.

    Among bare lines, one that looks like JSON may be a bare id as well: unless they may be mixed, it is refused if the
    first line is bare.
    """

    def __init__(self, mixed: bool) -> None:
        self._mixed = mixed
        self._bare: bool | None = None  # whether the first one is; None: nothing has come yet

    def id_of(self, line: Line) -> str | None:
        """The id; None for a blank line. Raises VecError `invalid_request`, naming the line."""
        where = f"{line.file}:{line.number}"
        if line.data is None:
            raise VecError(Code.INVALID_REQUEST, f"{where}: a line over the limit of {limits.LINE_BYTES_MAX:,} bytes")
        if not line.data.strip():
            return None
        json = line.data.lstrip()[:1] in (b'"', b"{", b"[")
        if self._bare is None:
            self._bare = not json
        if json and self._bare and not self._mixed:
            raise VecError(
                Code.INVALID_REQUEST, f"{where}: this line is JSON, and the first one is a bare id", _AS_JSON
            )
        return _from_json(line.data, where) if json else _bare(line.data, where)


_AS_JSON = "write ids as JSON strings, which carry any id: jq .id, not jq -r .id"


def _from_json(data: bytes, where: str) -> str:
    from vecd.wire import exact

    from .output import load_orjson

    load_orjson()
    try:
        value = exact.loads(data)
    except (VecError, ValueError) as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: no id ({error})", _AS_JSON) from error
    if isinstance(value, dict):
        found = [value[key] for key in ("id", "document_id") if key in value]
        if not found or found[-1] != found[0]:
            what = "two different ids" if found else 'no "id" and no "document_id"'
            raise VecError(Code.INVALID_REQUEST, f"{where}: the object has {what}")
        value = found[0]
    if not isinstance(value, str):
        raise VecError(Code.INVALID_REQUEST, f'{where}: "id" must be a string', _AS_JSON)
    return value


def _bare(data: bytes, where: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: no id, because it is not UTF-8 ({error})") from error
    if text != text.strip() or not text.isprintable():
        what = "has white space around it" if text != text.strip() else "holds a control character"
        raise VecError(Code.INVALID_REQUEST, f"{where}: the bare id {what}, and may be read wrongly", _AS_JSON)
    return text
