"""Compressed input comes out as it went in, however it arrives; what is wrong with it is named."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable

import pytest
from backports import zstd

from vecd.errors import VecError
from vecd.wire.decompress import PIECE_BYTES, decompressed, is_compressed

Compress = Callable[[bytes], bytes]

FORMATS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}

#: Long enough for several pieces, with little that repeats.
TEXT = random.Random(1).randbytes(200_000).hex("\n", 50).encode()

each_format = pytest.mark.parametrize(("name", "compress"), FORMATS.items(), ids=FORMATS)


def read(pieces: Iterable[bytes | None]) -> bytes:
    return b"".join(piece for piece in decompressed("a file", iter(pieces)) if piece is not None)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@each_format
def test_it_comes_out_as_it_went_in_however_it_is_cut(name: str, compress: Compress) -> None:
    data = compress(TEXT)
    assert is_compressed(data[:6])
    for size in (1_001, PIECE_BYTES, len(data)):
        assert read(cut(data, size)) == TEXT
    small = compress(b"a line\n")
    assert read(cut(small, 1)) == b"a line\n"


@each_format
def test_files_that_were_concatenated_are_one_file(name: str, compress: Compress) -> None:
    data = compress(TEXT[:1_000]) + compress(b"") + compress(TEXT[1_000:])
    assert read([data]) == TEXT
    assert read(cut(data, 1_001)) == TEXT


@each_format
def test_a_pause_is_passed_on_and_loses_nothing(name: str, compress: Compress) -> None:
    data = compress(TEXT)
    pieces = [data[:1], None, data[1:7], None, data[7:], None]
    found = list(decompressed("a file", iter(pieces)))
    assert found.count(None) == 3
    assert b"".join(piece for piece in found if piece is not None) == TEXT


@each_format
def test_what_expands_a_thousandfold_comes_in_small_pieces(name: str, compress: Compress) -> None:
    size = 0
    for piece in decompressed("a file", iter([compress(bytes(20_000_000))])):
        assert piece is not None
        assert len(piece) <= PIECE_BYTES
        size += len(piece)
    assert size == 20_000_000


@each_format
@pytest.mark.parametrize("length", [20, 60_000])
def test_truncated_input_is_named_after_all_that_is_whole(name: str, compress: Compress, length: int) -> None:
    found: list[bytes | None] = []
    with pytest.raises(VecError, match=f"^a file is truncated {name}") as refused:
        found.extend(decompressed("a file", iter(cut(compress(TEXT)[:length], 997))))
    assert refused.value.code == "invalid_document"
    whole = b"".join(piece for piece in found if piece is not None)
    assert TEXT.startswith(whole)
    assert bool(whole) == (length > 20 and name in ("gzip", "xz"))  # the blocks of the others are longer


@each_format
def test_damaged_input_is_named(name: str, compress: Compress) -> None:
    data = bytearray(compress(TEXT))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(VecError, match=f"^a file is damaged {name}"):
        read([bytes(data)])
    with pytest.raises(VecError, match=f"^a file is damaged {name}"):
        read([compress(TEXT) + b"something else"])


@pytest.mark.parametrize(
    "text", [b"", b"\x1f", b"B", b"BZ", b"\xfd7zX", b'{"id": "a"}\n', b"BZoo\n", b"(\xb5 is a sign"]
)
def test_what_is_not_compressed_passes_unchanged(text: bytes) -> None:
    assert read([text] if text else []) == text
    assert read(cut(text, 1)) == text


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_the_files_of_the_programs_themselves_are_read(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    made = subprocess.run([program, "-9", "-c"], input=TEXT, capture_output=True, check=True).stdout
    assert read(cut(made, PIECE_BYTES)) == TEXT
