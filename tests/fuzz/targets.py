"""What bytes from outside are read by, without a daemon: each takes any bytes, and raises nothing but VecError.

A target returns for what is refused and for what is taken; anything that it raises is a fault.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from vecd.errors import VecError, nearest
from vecd.feed import positions
from vecd.feed.selection import match_types
from vecd.filters import expressions
from vecd.filters.attributes import DocumentRow, DocumentSet
from vecd.index import snapshot_file
from vecd.store.database import Database
from vecd.wire import ndjson
from vecd.wire.decompress import decompressed
from vecd.wire.frames import FrameDecoder
from vecd.wire.messages import decode, decode_request, encode, parse_reply, request_id

_DOCUMENTS: Final = [
    DocumentRow(1, 1, "a", "first", {"n": 1, "t": "x", "a": {"b": [1, "x", True, None, 2.5]}, "deep": [[1], {"a": 2}]}),
    DocumentRow(2, 2, "b", None, {"n": 2**64 - 1, "t": "", "a": [{"b": 2}, 3], "": 1}),
    DocumentRow(4, 1, "é", "\0", {"n": -1.5, "or": False}),
]


def frames(data: bytes) -> None:
    """A stream of bytes, cut in two, as frames and messages; what is decoded can be encoded."""
    decoder = FrameDecoder()
    payloads: list[bytes] = []
    try:
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            payloads += decoder.feed(piece)
        decoder.eof()
    except VecError as error:
        encode({"error": error.to_wire()})
    for payload in [*payloads, data]:
        request_id(payload)
        for read in (decode_request, lambda payload: parse_reply(decode(payload))):
            try:
                read(payload)
            except VecError as error:
                encode({"error": error.to_wire()})


def filters(data: bytes) -> None:
    """An expression, and the documents that it lets through."""
    text = data.decode("utf-8", "replace")
    try:
        where = expressions.parse((text,))
    except VecError as error:
        encode({"error": error.to_wire()})
        return
    fields = {field for each in where for field in each.fields}
    passing = DocumentSet(fields, _DOCUMENTS).passing(where)
    assert len(passing) == len(_DOCUMENTS)
    for each in where:  # a field is read again as it is shown
        for field in each.fields:
            (again,) = expressions.parse((f"{field} exists",))
            assert again.fields == {field}, (field, str(field))


def cursors(data: bytes) -> None:
    """Positions, globs of types, and words that may be meant."""
    text = data.decode("utf-8", "replace")
    database = cast(Database, SimpleNamespace(log_id="0123456789abcdef", head=1_000))
    for read in (
        positions.time_us,
        lambda text: positions.parse(database, text),
        lambda text: match_types([text[:64]]),
    ):
        try:
            read(text)
        except VecError as error:
            encode({"error": error.to_wire()})
    nearest(text, ["document.added", "document.deleted", text[:50], text[1:]])


def lines(data: bytes) -> None:
    """NDJSON, also compressed, in two pieces; a document that is taken can travel."""
    pieces = [data[: len(data) // 3], None, data[len(data) // 3 :]]
    try:
        for line in ndjson.split("a file", decompressed("a file", iter(pieces))):
            if line is None:
                continue
            try:
                document = ndjson.document(line)
            except VecError as error:
                encode({"error": error.to_wire()})
            else:
                if document is not None:
                    decode(encode(document)[4:])
    except VecError as error:
        encode({"error": error.to_wire()})


def snapshots(data: bytes) -> None:
    """The file of a snapshot of vectors or of texts."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            about, arrays = snapshot_file.load(Path(file.name))
        except snapshot_file.UnusableSnapshot:
            return
        assert isinstance(about, dict)
        assert all(array.nbytes <= len(data) for array in arrays.values())


Target = Callable[[bytes], None]
TARGETS: Final[dict[str, Target]] = {each.__name__: each for each in (frames, filters, cursors, lines, snapshots)}


def seeds(name: str) -> list[bytes]:
    """Inputs that are right, to begin with."""
    import gzip

    import numpy as np

    if name == "frames":
        message: dict[str, Any] = {
            "op": "search",
            "id": 1,
            "k": 3,
            "where": ["n = 1"],
            "vector": bytes(16),
            "x": {"a": [1.5]},
        }
        return [
            encode(message),
            encode({"id": 1, "items": [{"a": None}]}),
            encode({"id": None, "error": {"code": "x"}}),
        ]
    if name == "filters":
        return [
            b"n = 1 and (t != 'x' or not a.b in (1, 'x', true))",
            b"document_id ^= a or title exists or metadata.title not exists",
            b'"a b"."c.d" >= -1.5e300 and n not in (18446744073709551615, "q\\"uote")',
        ]
    if name == "cursors":
        return [b"0123456789abcdef:12@3", b"-15m", b"2024-02-29T12:00:00.5+01:00", b"document.*", b"[!a]?*"]
    if name == "lines":
        line = b'{"id": "a", "text": "t", "metadata": {"n": [1, 2.5e3, null, true]}, "vector": [1, 0.5]}\n'
        return [line, b"\xef\xbb\xbf" + line + b"\n" + line, gzip.compress(line * 3), b'{"op": "delete", "id": "a"}']
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot"
        arrays: dict[str, Any] = {
            "rows": np.arange(12, dtype=np.float32).reshape(3, 4),
            "labels": np.arange(3, dtype=np.int64),
        }
        snapshot_file.save(path, {"format": 1, "seq": 3}, arrays)
        return [path.read_bytes()]
