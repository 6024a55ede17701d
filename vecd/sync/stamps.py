"""Stamps: what tells, without reading a file, that it is the file that was read before.

A stamp has the size, mtime, ctime and inode. If all are the same, so is the content: the ctime changes with every
change, and cannot be set. There is one exception: within the granularity of the file system's times, a second change
leaves the same stamp. So a file that is that young has no stamp, and its content is compared by its digest.
"""

from __future__ import annotations

import os
import struct
import time
from hashlib import blake2b
from typing import Final, Protocol

_FORM: Final = struct.Struct("<QqqQ")  # size, mtime, ctime, inode

#: The granularity of times: a few milliseconds in Linux; seconds in some file systems (FAT, NFS, HFS+).
_FINE_NS: Final = 50_000_000
_COARSE_NS: Final = 2_500_000_000
_SECOND_NS: Final = 1_000_000_000

DIGEST_BYTES: Final = 16


class Times(Protocol):
    """What a listing knows of a file."""

    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...


def stamp_of(entry: Times) -> bytes:
    return _FORM.pack(entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode & 0xFFFF_FFFF_FFFF_FFFF)


def stamp_of_stat(about: os.stat_result) -> bytes:
    return _FORM.pack(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino & 0xFFFF_FFFF_FFFF_FFFF)


def lasting(stamp: bytes, now_ns: int | None = None) -> bytes:
    """The stamp, or none if the file is so young that it can change without changing its stamp."""
    _, mtime_ns, ctime_ns, _ = _FORM.unpack(stamp)
    newest = max(mtime_ns, ctime_ns)
    coarse = mtime_ns % _SECOND_NS == 0 and ctime_ns % _SECOND_NS == 0
    age_ns = (time.time_ns() if now_ns is None else now_ns) - newest
    return b"" if age_ns < (_COARSE_NS if coarse else _FINE_NS) else stamp


def same_times(one: bytes, other: bytes) -> bool:
    """Whether only the ctime or the inode differ, as after a copy that keeps the times, or a change of the mode."""
    return one[:16] == other[:16]


def same_file(one: bytes, other: bytes) -> bool:
    """Whether it is the same file under another name: a rename changes only the ctime."""
    return one[:16] == other[:16] and one[24:] == other[24:]


def digest_of(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()
