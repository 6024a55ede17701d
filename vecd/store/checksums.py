"""Checksums of stored texts and vectors: a flipped bit in a row becomes an error, never another text or vector.

SQLite does not check the contents of its pages. So each row of `chunks` has the CRC-32 of its text and that of its
vector (`sums`, 8 bytes), and each row of `documents` that of its id, title, metadata and number of chunks (`sum`). They
are made before the row is written, and compared whenever it is read whole. Rows of stores made before schema 6 have
none until a verify adds them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from ..errors import Code, VecError

#: Bytes of the checksums of one chunk: of its text, and of its vector, each little-endian.
CHUNK_BYTES: Final = 8
#: Stands for those of a chunk that has none yet.
NONE: Final = bytes(CHUNK_BYTES)

_PAIR: Final = Struct("<II")
#: Of a chunk without a text.
_NO_TEXT: Final = zlib.crc32(b"\xff")


def of_chunks(texts: Sequence[str | None], vectors: npt.NDArray[np.float32]) -> bytes:
    """The checksums of chunks, one behind the other. `vectors` has shape (len(texts), dimension), C-contiguous."""
    crc, pack = zlib.crc32, _PAIR.pack
    packed: memoryview = vectors.reshape(-1).view(np.uint8).data
    size = 4 * vectors.shape[1] if len(texts) else 0
    return b"".join(
        pack(_NO_TEXT if text is None else crc(text.encode()), crc(packed[place * size : (place + 1) * size]))
        for place, text in enumerate(texts)
    )


def of_chunk(text: bytes | None, vector: bytes) -> bytes:
    """The checksums of one chunk; the text is in UTF-8."""
    return _PAIR.pack(_NO_TEXT if text is None else zlib.crc32(text), zlib.crc32(vector))


def of_document(document_id: str, title: str | None, metadata: str, chunks: int) -> int:
    """The checksum of a document's own row."""
    return zlib.crc32(orjson.dumps((document_id, title, metadata, int(chunks))))


def bad_text(text: bytes | None, sums: bytes | None) -> bool:
    """Whether a chunk's text, in UTF-8, is not the one that was written."""
    if sums is None:
        return False
    return bool(_PAIR.unpack(sums)[0] != (_NO_TEXT if text is None else zlib.crc32(text)))


def bad_vector(vector: bytes, sums: bytes | None) -> bool:
    """Whether a chunk's vector is not the one that was written."""
    return sums is not None and _PAIR.unpack(sums)[1] != zlib.crc32(vector)


def first_bad_text(texts: Iterable[str | None], sums: bytes) -> int | None:
    """The place of the first text that is not the one that was written; None if all are. `sums` are those of all of
    them, one behind the other, `NONE` where a chunk has none."""
    crc = zlib.crc32
    for place, (text, (wanted, vector)) in enumerate(zip(texts, _PAIR.iter_unpack(sums), strict=True)):
        found = _NO_TEXT if text is None else crc(text.encode())
        if found != wanted and (wanted or vector):
            return place
    return None


def first_bad_vector(vectors: bytes, sums: bytes) -> int | None:
    """The same of vectors of one size, one behind the other."""
    return next(bad_vectors(vectors, sums), None)


def bad_vectors(vectors: bytes, sums: bytes) -> Iterator[int]:
    """The places of all vectors that are not those that were written, ascending."""
    count = len(sums) // CHUNK_BYTES
    size = len(vectors) // count if count else 0
    crc, packed = zlib.crc32, memoryview(vectors)
    for place, (text, wanted) in enumerate(_PAIR.iter_unpack(sums)):
        if crc(packed[place * size : (place + 1) * size]) != wanted and (wanted or text):
            yield place


def damaged(db: apsw.Connection, label: int, what: str) -> VecError:
    """The error `damaged` about the document that a chunk belongs to; `what` of it does not match its checksum."""
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
