"""An event of the log as JSON: the same bytes for every client that watches, over server-sent events and WebSockets.

{"library_id": "notes", "document_id": "a", "seq": 42, "at": "2026-11-28T09:00:00.000000Z", …the event's data}

`document_id` is there if the event is about a document. A job's `state` is `status`, as everywhere over HTTP.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from .json_bytes import dumps

#: Types whose data names the document `id`.
_DOCUMENTS: Final = ("document.", "snapshot.document")


class Event:
    """An encoded event. `cursor` is the position behind it; None inside a part of a snapshot, which cannot be resumed
    there."""

    def __init__(self, event: dict[str, Any], cursor: str | None) -> None:
        self.type: str = event["type"]
        self.seq: int = event["seq"]
        self.library_id: str | None = event["library"]
        self.cursor = cursor
        self.data = encode_data(event)

    @property
    def sse(self) -> bytes:
        """As a server-sent event."""
        place = b"" if self.cursor is None else b"id: %b\n" % self.cursor.encode()
        return b"event: %b\n%bdata: %b\n\n" % (self.type.encode(), place, self.data)

    @cached_property
    def message(self) -> bytes:
        """As a message of a WebSocket, a JSON object without its closing brace: keys of the subscription follow."""
        head = dumps({"event": self.type, "cursor": self.cursor, "library_id": self.library_id})
        return b'%b,"data":%b' % (head[:-1], self.data)


def encode_data(event: dict[str, Any]) -> bytes:
    """The `data` of an event as the daemon sends it (vec-events(7))."""
    kind: str = event["type"]
    data = dict(event["data"])
    found: dict[str, Any] = {"library_id": event["library"]}
    if kind.startswith(_DOCUMENTS) and "id" in data:
        found["document_id"] = data.pop("id")
    elif "document_id" in data:
        found["document_id"] = data.pop("document_id")
    elif kind.startswith("job.") and "state" in data:
        data["status"] = data.pop("state")
    found["seq"], found["at"] = event["seq"], event["time"]
    found.update(data)
    return dumps(found)
