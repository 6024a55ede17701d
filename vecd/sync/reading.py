"""Reads a file that somebody may be writing: a file counts as whole when it has not changed while it was read, and was
quiet before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ..files.entry import FileEntry, FileSkipped, SkipReason
from .stamps import digest_of, stamp_of_stat

#: How long a file has to be quiet, and how long somebody who writes it all the time is waited for: then it is taken as
#: it is, and again when it has changed.
QUIET_S: Final = 0.1
PATIENCE_S: Final = 3.0

_PIECE_BYTES: Final = 1 << 20


class Content(NamedTuple):
    """A file as it was at one moment."""

    entry: FileEntry
    stamp: bytes
    digest: bytes
    data: bytes


def read_whole(entry: FileEntry, bytes_max: int, wait: Callable[[float], bool]) -> Content:
    """Reads a file, and waits while it is being written. `wait` waits for some seconds, and says whether to give up.

    Raises FileSkipped if it cannot be read, or is too large by now.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with open(entry.path, "rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                young_s = time.time() - before.st_mtime
                if 0 <= young_s < QUIET_S and time.monotonic() < until and not wait(QUIET_S - young_s):
                    continue
                if before.st_size > bytes_max:
                    raise FileSkipped(SkipReason.TOO_LARGE, f"it has {before.st_size:,} bytes")
                data = _read(file.fileno(), bytes_max)
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            raise FileSkipped(SkipReason.GONE, "it was deleted meanwhile") from None
        except OSError as error:
            raise FileSkipped(SkipReason.UNREADABLE, f"it cannot be read ({error.strerror})") from error
        stamp = stamp_of_stat(after)
        if stamp == stamp_of_stat(before) or time.monotonic() >= until or wait(QUIET_S):
            now = entry._replace(size=len(data), mtime_ns=after.st_mtime_ns, ctime_ns=after.st_ctime_ns,
                                 inode=after.st_ino)  # fmt: skip
            return Content(now, stamp if stamp == stamp_of_stat(before) else b"", digest_of(data), data)


def _read(fd: int, bytes_max: int) -> bytes:
    """The content, or a byte more than the limit of it."""
    pieces = []
    left = bytes_max + 1
    while left > 0:
        wanted = min(left, _PIECE_BYTES)
        pieces.append(os.read(fd, wanted))
        left -= len(pieces[-1])
        if len(pieces[-1]) < wanted:  # of a regular file: its end
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
