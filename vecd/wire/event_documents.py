"""From an event of a document to the document in the form of an NDJSON line: what a replica ingests.

The event has its document as `vec watch --payload` and relays with --payload write it; a library that ingests what
this returns, event by event, becomes equal to the one that the events are of.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import Code, VecError

_WRITTEN: Final = frozenset(("document.added", "document.updated", "snapshot.document"))
#: Events of these groups change no document; those of a library's deletion neither: its documents have no events.
_GROUPS: Final = frozenset(("chunk", "index", "job", "library", "snapshot"))


def ingest_form(event_type: str, data: dict[str, Any]) -> dict[str, Any] | None:
    """The line for an event, with its vectors as they are there; None for an event that changes no document.

    Raises VecError `invalid_document` for an unknown type, and for an event without its document.
    """
    if event_type == "document.deleted" or (event_type in _WRITTEN and data.get("left")):
        return {"op": "delete", "id": _id(data)}
    if event_type in _WRITTEN:
        return _written(data)
    if event_type.partition(".")[0] in _GROUPS:
        return None
    raise VecError(Code.INVALID_DOCUMENT, f"unknown type of an event: {event_type!r:.60}", field="type")


def document_form(document: dict[str, Any], *, vectors: bool) -> dict[str, Any]:
    """The line of a document with its chunks, as `get` and payloads have it. It has neither `texts` nor `vectors` if
    the document has no text, and its vectors are not there or not wanted."""
    chunks = document["chunks"]
    line: dict[str, Any] = {"id": document["id"]}
    if document.get("title") is not None:
        line["title"] = document["title"]
    if document.get("metadata"):
        line["metadata"] = document["metadata"]
    if any(chunk.get("text") is not None for chunk in chunks):
        line["texts"] = [chunk.get("text") for chunk in chunks]
    if chunks and all(chunk.get("line") is not None for chunk in chunks):
        line["lines"] = [chunk["line"] for chunk in chunks]
    if vectors and any(chunk.get("vector") is not None for chunk in chunks):
        line["vectors"] = [chunk.get("vector") for chunk in chunks]
    return line


def _id(data: dict[str, Any]) -> str:
    found = data.get("id")
    if not isinstance(found, str):
        raise VecError(Code.INVALID_DOCUMENT, "the event has no id of a document", field="data")
    return found


def _written(data: dict[str, Any]) -> dict[str, Any]:
    document = data.get("document")
    if document is None:
        if data.get("omitted"):
            why, hint = "it was too large for one message, or damaged in the store", "copy it with vec get | vec ingest"
        else:
            why, hint = "it was sent without", "add the relay with --payload"
        raise VecError(
            Code.INVALID_DOCUMENT, f"the event of {_id(data)!r:.200} has no document: {why}", hint, field="data"
        )
    chunks = document.get("chunks") if isinstance(document, dict) else None
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise VecError(Code.INVALID_DOCUMENT, "the event's document has no list of chunks", field="data")
    line = document_form({**document, "id": _id(data)}, vectors=True)
    by_title = "title" in line and len(chunks) == 1  # a document with only a title has one chunk, which is of the title
    if not by_title and not line.keys() & {"texts", "vectors"}:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"the document {line['id']!r:.200} has no text, and the event has no vectors",
            "add the relay with --vectors",
            field="data",
        )
    return line
