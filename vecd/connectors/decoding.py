"""What a broker's message means to a source: a document to write, one to delete, or nothing.

Without a mapping, a message is one of these, which are told apart by their keys:

- a document, or a delete, as a line of `vec ingest`;
- an event of a relay of another daemon, in either of its formats;
- nothing, with a key: the tombstone of a compacted topic, which deletes the document of that key.

With a mapping, every message is an object that the mapping turns into a document. Pure: the connector process decodes
what arrives, and the daemon decodes dead letters that are retried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from .. import limits
from ..errors import Code, VecError
from ..wire import strict_json
from ..wire.documents import pack_document
from ..wire.event_documents import ingest_form
from ..wire.mapping import DocumentMapping
from ..wire.ndjson import exact, parse
from . import messages

_NO_HEADERS: Final[Mapping[str, str]] = {}


class Decoder:
    """Decodes the messages of one source."""

    def __init__(self, mapping: Mapping[str, str], libraries: tuple[str, ...] = ()) -> None:
        """`libraries`: events of other libraries mean nothing; empty: of all. Raises VecError `invalid_request` for an
        invalid mapping."""
        self._mapping = DocumentMapping.parse(mapping) if mapping else None
        self._libraries = frozenset(libraries)

    def decode(
        self, body: bytes, key: bytes | None = None, headers: Mapping[str, str] = _NO_HEADERS
    ) -> dict[str, Any] | None:
        """The document or the delete in wire format, as the op `ingest` takes it; None if the message means nothing.

        Raises VecError `invalid_document` or `too_large`.
        """
        if len(body) > limits.SOURCE_MESSAGE_BYTES_MAX:
            raise VecError(
                Code.TOO_LARGE,
                f"the message has {len(body):,} bytes; the limit is {limits.SOURCE_MESSAGE_BYTES_MAX:,}",
            )
        if not body or body.isspace():
            return self._tombstone(key, headers)
        strict_json.check_size(body)
        value = parse(body, "message")
        if self._mapping is not None:
            strict_json.check_value(body, value)
            return pack_document(self._mapping.apply(value, _envelope(key, headers)))
        if "type" in value and "data" in value:
            strict_json.check_value(body, value)
            return self._event(value)
        return exact(body, value)

    def _tombstone(self, key: bytes | None, headers: Mapping[str, str]) -> dict[str, Any] | None:
        if self._libraries and headers.get(messages.LIBRARY, "") not in self._libraries:
            return None
        beside = _envelope(key, headers)
        document_id = headers.get(messages.ID)
        if self._mapping is not None:
            path = self._mapping.id
            document_id = path.of(None, beside) if path is not None and path.beside else None
        elif document_id is None:
            document_id = beside["key"]
        if not document_id:
            raise VecError(Code.INVALID_DOCUMENT, "the message is empty, and has no key that names a document")
        return {"op": "delete", "id": document_id}

    def _event(self, value: dict[str, Any]) -> dict[str, Any] | None:
        library = _library_of(value)
        if self._libraries and library not in self._libraries:
            return None
        event_type, data = value["type"], value["data"]
        if not isinstance(event_type, str) or not isinstance(data, dict):
            raise VecError(Code.INVALID_DOCUMENT, "an event has a string 'type' and an object 'data'", field="type")
        line = ingest_form(event_type, data)
        return None if line is None else pack_document(line)


def _library_of(event: dict[str, Any]) -> str | None:
    """The library that an event is of, from the event or from the source of a CloudEvent: /vec/LOG/LIBRARY."""
    if "specversion" not in event:
        library = event.get("library")
        return library if isinstance(library, str) else None
    source = event.get("source")
    parts = source.split("/") if isinstance(source, str) else []
    return unquote(parts[3]) if len(parts) == 4 and parts[:2] == ["", "vec"] else None


def _envelope(key: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
    return {"key": None if key is None else key.decode("utf-8", "replace"), "headers": headers}
