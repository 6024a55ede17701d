"""A source from a file: each line is a message, also those that are appended later.

The offset is the byte behind the line. A line without its newline is not complete yet. The file must only grow: one
that is shorter than the offset is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .. import limits
from ..durable_files import open_regular
from ..errors import Code, VecError
from .messages import InMessage
from .transport import Opening, SourceReader

_PIECE_BYTES: Final = 1024 * 1024
#: How often the file is looked at while nothing is appended.
_LOOK_S: Final = 0.05


class _FileReader:
    def __init__(self, opening: Opening, offsets: Mapping[str, str]) -> None:
        self._path = Path("/" + opening.url.path)
        self._stop = opening.stop
        try:
            self._fd = open_regular(self._path)
        except OSError as error:
            raise self._unreadable(error) from error
        self._size = os.fstat(self._fd).st_size
        latest = opening.parameters["start"] == "latest" and not offsets
        self._offset = self._size if latest else int(offsets.get("", "0"))  # behind what was read, and returned
        self._rest = b""  # read, and not returned yet
        self._lines = self._lines_bytes = 0  # returned

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        while not (lines := self._complete(count_max)):
            if len(self._rest) > limits.SOURCE_MESSAGE_BYTES_MAX:
                raise VecError(
                    Code.TOO_LARGE,
                    f"the line of {self._path} behind byte {self._offset:,} is longer than"
                    f" {limits.SOURCE_MESSAGE_BYTES_MAX:,} bytes",
                    "the source cannot pass it: correct the file",
                )
            piece = self._piece()
            if piece:
                self._rest += piece
            elif wait_s <= 0 or self._stop.wait(min(wait_s, _LOOK_S)):
                return ()
            else:
                wait_s -= _LOOK_S
        found = []
        for line in lines:
            self._offset += len(line) + 1
            self._lines, self._lines_bytes = self._lines + 1, self._lines_bytes + len(line) + 1
            if line and not line.isspace():
                found.append(InMessage("", str(self._offset), line))
        return found

    def _complete(self, count_max: int) -> list[bytes]:
        """Removes complete lines from the rest."""
        *lines, rest = self._rest.split(b"\n", count_max)
        if lines:
            self._rest = rest
        return lines

    def _piece(self) -> bytes:
        try:
            self._size = os.fstat(self._fd).st_size
            at = self._offset + len(self._rest)
            if self._size < at:
                raise VecError(
                    Code.INVALID_REQUEST,
                    f"the file {self._path} has {self._size:,} bytes, and {at:,} were read before: it was truncated, or"
                    " replaced",
                    "vec source reset begins with its first line",
                )
            return os.pread(self._fd, _PIECE_BYTES, at)
        except OSError as error:
            raise self._unreadable(error) from error

    def committed(self, offsets: Mapping[str, str]) -> None:
        """A file keeps its lines."""

    def lag(self) -> int | None:
        """Those of the unread bytes that are in memory are counted; the others are as long as those read before."""
        unread = self._size - self._offset - len(self._rest)
        return self._rest.count(b"\n") + unread * self._lines // max(1, self._lines_bytes)

    def pause(self) -> None:
        """A file keeps its lines."""

    def close(self) -> None:
        os.close(self._fd)

    def _unreadable(self, error: OSError) -> VecError:
        return VecError(
            Code.INVALID_REQUEST, f"cannot read {self._path} ({error.strerror})", "correct that, or remove the source"
        )


def open_source(opening: Opening, offsets: Mapping[str, str]) -> SourceReader:
    return _FileReader(opening, offsets)
