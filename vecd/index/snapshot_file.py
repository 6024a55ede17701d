"""The snapshot file: numpy arrays with checksums, so that damage is detected before the arrays are used.

    8 bytes   magic, with the format number
    4 bytes   length of the header, big-endian
    header    JSON: `about`, which identifies the content, and the arrays: name, dtype, length, offset, SHA-256
    32 bytes  SHA-256 of all bytes before
    arrays    little-endian, each at a multiple of 64 bytes

Rules: a file is written under another name, synced and renamed, so a snapshot is complete or absent. All data is
checked before use; the caller renames a file that fails. Nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import orjson

from ..durable_files import writing

_MAGIC: Final = b"vecidx\x00"
_FORMAT: Final = 1
_ALIGN: Final = 64
#: Rows of a snapshot that are compared with the store.
_SPOT_CHECKS: Final = 16
#: Bytes that are read and hashed at a time.
_READ_BYTES: Final = 1 << 20
_HEADER_BYTES_MAX: Final = 1 << 20
_DTYPES: Final = frozenset(("|u1", "<i4", "<i8", "<u8", "<f4"))


class UnusableSnapshot(Exception):
    """The file cannot be used as a snapshot. The message is a predicate: "is damaged: …"."""


def save(path: Path, about: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> int:
    """Writes a snapshot of one-dimensional arrays; returns its size in bytes. Raises OSError."""
    entries: list[dict[str, Any]] = []
    place = 0
    for name, array in arrays.items():
        digest = hashlib.sha256(_bytes(array)).hexdigest()
        entries.append({"name": name, "dtype": array.dtype.str, "count": len(array), "at": place, "sha256": digest})
        place += -(-array.nbytes // _ALIGN) * _ALIGN
    header = orjson.dumps({"about": about, "arrays": entries})
    head = _MAGIC + bytes((_FORMAT,)) + len(header).to_bytes(4, "big") + header
    head += hashlib.sha256(head).digest()
    start = -(-len(head) // _ALIGN) * _ALIGN
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with writing(path, unfinished) as file:
        file.write(head)
        for entry, array in zip(entries, arrays.values(), strict=True):
            file.seek(start + entry["at"])
            file.write(_bytes(array))
        file.truncate(start + place)
    return start + place


class Arrays(Mapping[str, npt.NDArray[Any]]):
    """The arrays of a snapshot file. Each access reads and checks an array, so a structure that copies them one by one
    needs the memory of only one in addition. `arrays[name]` raises KeyError, UnusableSnapshot or OSError."""

    def __init__(self, file: BinaryIO, entries: list[dict[str, Any]], start: int) -> None:
        self._file, self._start = file, start
        self._entries = {entry["name"]: entry for entry in entries}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.empty(self.count(name), self.dtype(name))
        self.read_into(name, array)
        return array

    def dtype(self, name: str) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self._entries[name]["dtype"])
        return found

    def count(self, name: str) -> int:
        return int(self._entries[name]["count"])

    def read_into(self, name: str, array: npt.NDArray[Any]) -> None:
        """Reads into a contiguous array of that dtype and length."""
        assert (array.dtype, len(array)) == (self.dtype(name), self.count(name))
        entry, packed = self._entries[name], _bytes(array)
        self._file.seek(self._start + entry["at"])
        digest = hashlib.sha256()
        for place in range(0, len(packed), _READ_BYTES):
            piece = packed[place : place + _READ_BYTES]
            if self._file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                raise UnusableSnapshot(f"is truncated: {name} is incomplete")
            digest.update(piece)
        if digest.hexdigest() != entry["sha256"]:
            raise UnusableSnapshot(f"is damaged: the checksum of {name} does not match")


def dtype_of(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> np.dtype[Any]:
    return arrays.dtype(name) if isinstance(arrays, Arrays) else arrays[name].dtype


def count_of(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> int:
    return arrays.count(name) if isinstance(arrays, Arrays) else len(arrays[name])


def read_into(arrays: Mapping[str, npt.NDArray[Any]], name: str, array: npt.NDArray[Any]) -> None:
    """Copies an array, from memory or from a file, into another of its dtype and length."""
    if isinstance(arrays, Arrays):
        arrays.read_into(name, array)
    else:
        array[:] = arrays[name]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[dict[str, Any], Arrays]]:
    """Opens a snapshot; yields `about` and the arrays, which can be read inside the block.

    Raises UnusableSnapshot, or OSError (FileNotFoundError: there is none).
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        about, entries, start = _header(file)
        for entry in entries:
            if start + entry["at"] + entry["count"] * np.dtype(entry["dtype"]).itemsize > size:
                raise UnusableSnapshot(f"is truncated: {entry['name']} is incomplete")
        yield about, Arrays(file, entries, start)


def load(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Reads all of a snapshot. Raises as `opened`."""
    with opened(path) as (about, arrays):
        return about, dict(arrays)


def check_seq(seq: int, head: int) -> None:
    """Raises UnusableSnapshot if a snapshot was saved at a seq above the head of the store's log."""
    if seq > head:
        raise UnusableSnapshot(
            f"belongs to another state of the store: it has seq {seq:,}, and the log ends at {head:,}"
        )


def spots(count: int) -> npt.NDArray[np.int64]:
    """The rows, of `count`, to compare with the store: a store that was restored to an older state may have given the
    same labels to other documents. The last row is included, because it is the first to differ."""
    return np.unique(np.linspace(0, count - 1, min(count, _SPOT_CHECKS)).astype(np.int64))


def _header(file: Any) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    head = file.read(len(_MAGIC) + 5)
    if len(head) < len(_MAGIC) + 5 or head[: len(_MAGIC)] != _MAGIC:
        raise UnusableSnapshot("is not a snapshot of vecd")
    if head[len(_MAGIC)] > _FORMAT:
        raise UnusableSnapshot(f"has format {head[len(_MAGIC)]}; this vecd supports formats up to {_FORMAT}")
    length = int.from_bytes(head[-4:], "big")
    if length > _HEADER_BYTES_MAX:
        raise UnusableSnapshot("is damaged: its header is too long")
    header, digest = file.read(length), file.read(32)
    if hashlib.sha256(head + header).digest() != digest:
        raise UnusableSnapshot("is damaged: the checksum of its header does not match")
    content = orjson.loads(header)  # the checksum matches, so vecd wrote it
    if any(entry["dtype"] not in _DTYPES for entry in content["arrays"]):
        raise UnusableSnapshot("has arrays of an unknown dtype")
    start = -(-(len(head) + length + 32) // _ALIGN) * _ALIGN
    return content["about"], content["arrays"], start


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """The array's own memory."""
    return array.data.cast("B") if len(array) else memoryview(bytearray())
