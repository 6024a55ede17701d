"""The documents of a file, in the form of an NDJSON line that `vec ingest` reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from .. import limits
from ..durable_files import printable_path
from ..errors import VecError
from ..wire.decompress import PIECE_BYTES, decompressed, is_compressed
from .chunks import split
from .entry import FileEntry, FileSkipped, SkipReason
from .extractors import TEXT, Extracted, FileKind, kind_of
from .options import FileOptions

_DEFAULTS: Final = FileOptions()


def documents_of(
    entry: FileEntry, options: FileOptions = _DEFAULTS, content: bytes | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the documents of a file: one, but for a mailbox.

    A document has `id` (the entry's), `title`, `texts` (its chunks), `lines` (the line of the file, from 1, where each
    chunk begins; only if the format has lines) and `metadata`: `path` (absolute), `mtime` (RFC 3339, UTC), `size`
    (bytes), `type` (of extractors.KINDS) and, for source code, `language`. `content` is what the file holds, if it has
    been read. Raises FileSkipped, also for an entry with `skipped` set.
    """
    if entry.skipped is not None:
        raise FileSkipped(entry.skipped, _why(entry, options))
    name = os.path.basename(entry.path)
    content = _decompressed(_read(entry.path) if content is None else content, options.bytes_max)
    if not content or content.isspace():
        raise FileSkipped(SkipReason.EMPTY, "it is empty")
    kind = kind_of(name) or TEXT
    metadata = _metadata(entry, kind)
    several = kind.extract(content, printable_path(name))
    ids: set[str] = set()
    for number, extracted in enumerate(several, 1):
        document_id = entry.id
        if extracted.part is not None or len(several) > 1:
            document_id = f"{entry.id}#{extracted.part or number}"
        if document_id in ids or len(document_id.encode()) > limits.ID_BYTES_MAX:
            document_id = f"{entry.id}#{number}"
        ids.add(document_id)
        yield _document(extracted, document_id, printable_path(name), metadata, options)


def _document(
    extracted: Extracted, document_id: str, name: str, metadata: dict[str, Any], options: FileOptions
) -> dict[str, Any]:
    chunks = split(extracted.text, extracted.structure, extracted.lines, options)
    if not chunks:
        raise FileSkipped(SkipReason.NO_TEXT, "it has no text")
    if len(chunks) > limits.DOCUMENT_CHUNKS_MAX:
        raise FileSkipped(
            SkipReason.TOO_LARGE,
            f"it has {len(chunks):,} chunks, and a document has at most {limits.DOCUMENT_CHUNKS_MAX:,}",
        )
    title = " ".join((extracted.title or name).split())
    document: dict[str, Any] = {
        "id": document_id,
        "title": title.encode()[: limits.TITLE_BYTES_MAX].decode(errors="ignore"),
        "texts": [chunk.text for chunk in chunks],
        "metadata": {**metadata, **extracted.metadata},
    }
    if extracted.has_lines:
        document["lines"] = [chunk.line for chunk in chunks]
    return document


def _metadata(entry: FileEntry, kind: FileKind) -> dict[str, Any]:
    seconds, ns = divmod(entry.mtime_ns, 1_000_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1_000)
    metadata: dict[str, Any] = {
        "path": printable_path(os.path.abspath(entry.path)),
        "mtime": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "size": entry.size,
        "type": kind.name,
    }
    if kind.language is not None:
        metadata["language"] = kind.language
    return metadata


def _why(entry: FileEntry, options: FileOptions) -> str:
    """Why an entry is skipped, in words."""
    match entry.skipped:
        case SkipReason.TOO_LARGE:
            return f"it has {entry.size:,} bytes, over the limit of {options.bytes_max:,}"
        case SkipReason.BAD_NAME:
            return f"its id would have more than {limits.ID_BYTES_MAX:,} bytes"
        case SkipReason.UNREADABLE:
            return f"it cannot be read ({os.strerror(entry.errno)})"
        case SkipReason.LINK:
            return "it is a symbolic link"
        case SkipReason.LOOP:
            return "it is a link to a folder that it is in"
        case SkipReason.SPECIAL:
            return "it is a pipe, a socket or a device"
    return f"it is {entry.skipped}"


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileSkipped(SkipReason.GONE, "it was deleted meanwhile") from None
    except OSError as error:
        raise FileSkipped(SkipReason.UNREADABLE, f"it cannot be read ({error.strerror})") from error


def _decompressed(content: bytes, bytes_max: int) -> bytes:
    """The content of a compressed file, whatever its name; other content as it is."""
    if not is_compressed(content[:6]):
        return content
    found = bytearray()
    pieces = (content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES))
    try:
        for piece in decompressed("the file", pieces):
            found += piece or b""
            if len(found) > bytes_max:
                raise FileSkipped(SkipReason.TOO_LARGE, f"it has more than {bytes_max:,} bytes, decompressed")
    except VecError as error:
        reason = SkipReason.EXTRA if error.code == "unsupported" else SkipReason.DAMAGED
        raise FileSkipped(reason, error.message, error.hint) from error
    return bytes(found)
