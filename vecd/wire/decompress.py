"""Decompresses input as it arrives, sans I/O: gzip, bzip2, xz and zstd, told apart by their first bytes.

Rules: the name of a file says nothing; input that begins with no known magic number passes unchanged; files of one
format that were concatenated count as one, as their own programs have it; however far a piece expands, the pieces that
come out are small. A piece of None means that no input has arrived for a while; it is passed on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from .. import limits
from ..errors import Code, VecError

#: Bytes that are read, and decompressed, at once.
PIECE_BYTES: Final = 256 * limits.KIB

#: The memory that xz may take: `xz -9` needs 65 MiB.
_XZ_BYTES_MAX: Final = 256 * limits.MIB


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common; `decompress` returns at most `max_length` bytes,
    and is called with nothing until it needs more input."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._more = False  # it may hold output that did not fit

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._more

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._more = len(found) == max_length or bool(self._zlib.unconsumed_tail)
        return found


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_BYTES_MAX)


def _zstd() -> Any:
    try:
        from compression.zstd import ZstdDecompressor  # type: ignore[import-not-found, unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports.zstd import ZstdDecompressor
        except ImportError:
            raise VecError(
                Code.UNSUPPORTED,
                "the input is compressed with zstd, which this installation cannot read",
                "pip install 'vecd[zstd]', or decompress it: zstd -dc FILE | vec ingest",
            ) from None
    return ZstdDecompressor()


class _Format(NamedTuple):
    name: str
    magic: bytes
    make: Callable[[], _Decompressor]
    padding: bytes = b""  # what may follow a file


_FORMATS: Final = (
    _Format("gzip", b"\x1f\x8b", _Gzip, b"\0"),
    _Format("bzip2", b"BZh", _bzip2),
    _Format("xz", b"\xfd7zXZ\0", _xz, b"\0"),
    _Format("zstd", b"\x28\xb5\x2f\xfd", _zstd),
)


def is_compressed(first: bytes) -> bool:
    """Whether input that begins with these bytes (six or more) is decompressed."""
    return any(first.startswith(each.magic) for each in _FORMATS)


def decompressed(name: str, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """The pieces, decompressed if they begin with a magic number. `name` is the input's name in messages.

    Raises VecError `invalid_document` for damaged or truncated input, `unsupported` if a library is missing.
    """
    begun, found = b"", None
    for piece in pieces:
        if not piece:
            yield piece
            continue
        begun += piece
        if (found := next((each for each in _FORMATS if begun.startswith(each.magic)), None)) is not None:
            yield from _decompressed(name, found, begun, pieces)
            return
        if not any(each.magic.startswith(begun) for each in _FORMATS):  # it may be one that arrives in several pieces
            yield begun
            yield from pieces
            return
    if begun:
        yield begun


def _decompressed(name: str, form: _Format, first: bytes, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    piece: bytes | None = first
    unpack: _Decompressor | None = None  # None between two files
    while True:
        if piece is None:
            yield None
        elif piece:
            while unpack is not None or (piece := piece.lstrip(form.padding)):
                unpack = form.make() if unpack is None else unpack
                try:
                    yield unpack.decompress(piece, PIECE_BYTES)
                except Exception as error:  # each library has its own
                    raise VecError(
                        Code.INVALID_DOCUMENT, f"{name} is damaged {form.name}: {error}", file=name
                    ) from error
                piece = b""
                if unpack.eof:
                    piece, unpack = unpack.unused_data, None
                elif unpack.needs_input:
                    break
        try:
            piece = next(pieces)
        except StopIteration:
            break
    if unpack is not None:
        raise VecError(
            Code.INVALID_DOCUMENT, f"{name} is truncated {form.name}", "check that the file is complete", file=name
        )
