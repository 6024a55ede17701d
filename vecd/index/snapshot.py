"""A structure in a file: numpy arrays, each with its digest, so that damage is noticed before anything uses them.

    8 bytes   magic, with the format's number
    4 bytes   length of the header, big-endian
    header    JSON: what the snapshot is of (`about`) and its arrays: name, dtype, length, place, SHA-256
    32 bytes  SHA-256 of all before
    arrays    little-endian, each at a multiple of 64 bytes

Rules: a file is written under another name, synced and renamed, so a snapshot is whole or not there. What is read is
checked before it is used; a file that fails is the caller's to set aside. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from ..files import sync_folder

_MAGIC: Final = b"vecidx\x00"
_FORMAT: Final = 1
_ALIGN: Final = 64
_HEADER_BYTES_MAX: Final = 1 << 20
_DTYPES: Final = frozenset(("|u1", "<i4", "<i8", "<u8", "<f4"))


class UnusableSnapshot(Exception):
    """Why a file is no snapshot that can be used, as what follows "it"."""


def save(path: Path, about: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> int:
    """Writes a snapshot of one-dimensional arrays; returns its bytes. Raises OSError."""
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
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(head)
            for entry, array in zip(entries, arrays.values(), strict=True):
                file.seek(start + entry["at"])
                file.write(_bytes(array))
            file.truncate(start + place)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return start + place


def load(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """What the snapshot is of, and its arrays.

    Raises UnusableSnapshot, or OSError (FileNotFoundError: there is none).
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        about, entries, start = _header(file)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for entry in entries:
            dtype = np.dtype(entry["dtype"])
            if start + entry["at"] + entry["count"] * dtype.itemsize > size:
                raise UnusableSnapshot(f"is cut short: {entry['name']} is not all there")
            array = np.empty(entry["count"], dtype)
            file.seek(start + entry["at"])
            if file.readinto(_bytes(array)) != array.nbytes:
                raise UnusableSnapshot(f"is cut short: {entry['name']} is not all there")
            if hashlib.sha256(_bytes(array)).hexdigest() != entry["sha256"]:
                raise UnusableSnapshot(f"is damaged: the checksum of {entry['name']} does not match")
            arrays[entry["name"]] = array
    return about, arrays


def _header(file: Any) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    head = file.read(len(_MAGIC) + 5)
    if len(head) < len(_MAGIC) + 5 or head[: len(_MAGIC)] != _MAGIC:
        raise UnusableSnapshot("is not a snapshot of vecd")
    if head[len(_MAGIC)] > _FORMAT:
        raise UnusableSnapshot(f"has format {head[len(_MAGIC)]}, and this vecd knows formats up to {_FORMAT}")
    length = int.from_bytes(head[-4:], "big")
    if length > _HEADER_BYTES_MAX:
        raise UnusableSnapshot("is damaged: its header cannot be that long")
    header, digest = file.read(length), file.read(32)
    if hashlib.sha256(head + header).digest() != digest:
        raise UnusableSnapshot("is damaged: the checksum of its header does not match")
    told = orjson.loads(header)  # from here on it is what we wrote
    if any(entry["dtype"] not in _DTYPES for entry in told["arrays"]):
        raise UnusableSnapshot("holds numbers of a kind that this vecd does not know")
    start = -(-(len(head) + length + 32) // _ALIGN) * _ALIGN
    return told["about"], told["arrays"], start


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """The array's own memory."""
    return array.data.cast("B") if len(array) else memoryview(bytearray())
