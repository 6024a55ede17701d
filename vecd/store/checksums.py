"""Checksums of stored rows: a flipped bit in a row is reported as an error, never returned as another text or vector.

SQLite does not check the contents of its pages. So each row of `chunks` has the CRC-32 of its text and of its vector
(`sums`, 8 bytes), and each row of `documents` that of its id, title, metadata, number of chunks and their lines
(`sum`). They are computed before the row is written, and compared at every full read of it. Rows written before
schema 6 have no checksums until a verify job adds them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, Final

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from ..errors import Code, VecError

#: Bytes of the checksums of one chunk: the CRC of its text and that of its vector, each little-endian.
CHUNK_BYTES: Final = 8
#: Means that a chunk has no checksums yet.
NONE: Final = bytes(CHUNK_BYTES)

_PAIR: Final = Struct("<II")
#: The checksum of a missing text.
_NO_TEXT: Final = zlib.crc32(b"\xff")


def of_chunks(texts: Sequence[str | None], vectors: npt.NDArray[np.float32]) -> bytes:
    """The checksums of chunks, concatenated. `vectors` has shape (len(texts), dimension), C-contiguous."""
    crc, pack = zlib.crc32, _PAIR.pack
    packed: memoryview = vectors.reshape(-1).view(np.uint8).data
    size = 4 * vectors.shape[1] if len(texts) else 0
    return b"".join(
        pack(_NO_TEXT if text is None else crc(text.encode()), crc(packed[place * size : (place + 1) * size]))
        for place, text in enumerate(texts)
    )


def of_chunk(text: bytes | None, vector: bytes) -> bytes:
    """The checksums of one chunk. `text` is UTF-8."""
    return _PAIR.pack(_NO_TEXT if text is None else zlib.crc32(text), zlib.crc32(vector))


def of_document(document_id: str, title: str | None, metadata: str, chunks: int, lines: str | None = None) -> int:
    """The checksum of a document's own row."""
    row = (document_id, title, metadata, int(chunks))
    return zlib.crc32(orjson.dumps(row if lines is None else (*row, lines)))


def bad_text(text: bytes | None, sums: bytes | None) -> bool:
    """Whether a chunk's text (UTF-8) differs from what was written."""
    if sums is None:
        return False
    return bool(_PAIR.unpack(sums)[0] != (_NO_TEXT if text is None else zlib.crc32(text)))


def bad_vector(vector: bytes, sums: bytes | None) -> bool:
    """Whether a chunk's vector differs from what was written."""
    return sums is not None and _PAIR.unpack(sums)[1] != zlib.crc32(vector)


def first_bad_text(texts: Iterable[str | None], sums: bytes) -> int | None:
    """The position of the first text that differs from what was written; None if all match. `sums` are their
    checksums, concatenated, with `NONE` for a chunk without checksums."""
    crc = zlib.crc32
    for place, (text, (wanted, vector)) in enumerate(zip(texts, _PAIR.iter_unpack(sums), strict=True)):
        found = _NO_TEXT if text is None else crc(text.encode())
        if found != wanted and (wanted or vector):
            return place
    return None


def first_bad_vector(vectors: bytes, sums: bytes) -> int | None:
    """The same for concatenated vectors of one size."""
    return next(bad_vectors(vectors, sums), None)


def bad_vectors(vectors: bytes, sums: bytes) -> Iterator[int]:
    """The positions of all vectors that differ from what was written, ascending."""
    count = len(sums) // CHUNK_BYTES
    size = len(vectors) // count if count else 0
    crc, packed = zlib.crc32, memoryview(vectors)
    for place, (text, wanted) in enumerate(_PAIR.iter_unpack(sums)):
        if crc(packed[place * size : (place + 1) * size]) != wanted and (wanted or text):
            yield place


def damaged(db: apsw.Connection, label: int, what: str) -> VecError:
    """The error `damaged` for the document that a chunk belongs to. `what` names the part with a wrong checksum."""
    row = db.execute(
        "SELECT CAST(id AS BLOB), CAST(name AS BLOB) FROM documents JOIN libraries USING (library_id)"
        " WHERE label = (SELECT max(label) FROM documents WHERE label <= ?)",
        (label,),
    ).fetchone()
    document_id, library = (part.decode("utf-8", "replace") for part in row) if row else ("?", "?")
    return VecError(
        Code.DAMAGED,
        f"document {document_id!r} of library {library!r} is damaged on disk: {what} does not match its checksum",
        "delete the document and write it again, or restore a backup; vec verify lists all damage",
        id=document_id,
        library=library,
    )


def packed_rows(packed: bytes) -> list[list[Any]]:
    """Rows that SQLite packed into one JSON array of arrays, with damaged ones: in a text that is not UTF-8, U+FFFD
    stands for the wrong bytes, and before the text, so that it is no JSON either."""
    try:
        rows: list[list[Any]] = orjson.loads(packed)
    except orjson.JSONDecodeError:
        rows = json.loads(packed.decode("utf-8", "surrogateescape"))
        return [[_replaced(value) if isinstance(value, str) else value for value in row] for row in rows]
    return rows


def _replaced(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "\ufffd" + text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text
