"""Messages to and from a broker, and the formats in which a relay writes events.

`vec` is the line that `vec watch` prints; `cloudevents` is a CloudEvent in JSON (cloudevents.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ..wire.event_lines import event_object
from . import cloudevents

#: Names of the headers that go with each message.
CURSOR: Final = "vec-cursor"
TYPE: Final = "vec-type"
LOG: Final = "vec-log"
LIBRARY: Final = "vec-library"
ID: Final = "vec-id"


@dataclass(frozen=True, slots=True)
class OutMessage:
    """One event on its way to a broker."""

    seq: int
    cursor: str  # unique in the log; `<log id>:<seq>`
    type: str
    library: str | None
    document_id: str | None
    key: bytes  # `library/document id`; events of one document have one key. Empty: the event concerns no library
    body: bytes
    content_type: str
    headers: Mapping[str, str]  # the cursor, the type, the log and, if there are, the library and the document's id
    deleted: bool  # document.deleted: the key's last event


@dataclass(frozen=True, slots=True)
class InMessage:
    """One message of a broker. `offset` is in the transport's own form; it is the message's own (inclusive)."""

    partition: str
    offset: str
    body: bytes
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    redelivered: bool = False  # the broker may have delivered it before


Event = dict[str, Any]


def _vec_body(event: Event, log_id: str) -> bytes:
    return orjson.dumps(event_object(event))


#: A format: the body of an event, and its content type.
FORMATS: Final[Mapping[str, tuple[Callable[[Event, str], bytes], str]]] = {
    "vec": (_vec_body, "application/json"),
    "cloudevents": (cloudevents.body, cloudevents.CONTENT_TYPE),
}


def encode(events: Sequence[Event], format: str, log_id: str) -> list[OutMessage]:
    """A message for each event of a watch. Changes the events."""
    body, content_type = FORMATS[format]
    return [_message(event, log_id, body(event, log_id), content_type) for event in events]


def _message(event: Event, log_id: str, body: bytes, content_type: str) -> OutMessage:
    data, library, kind = event["data"], event["library"], event["type"]
    document_id = data.get("id") if kind.startswith("document.") else data.get("document_id")
    cursor = event["cursor"] or f"{log_id}:{event['seq']}"
    return message(event["seq"], cursor, kind, library, document_id, log_id, body, content_type)


def message(
    seq: int,
    cursor: str,
    kind: str,
    library: str | None,
    document_id: str | None,
    log_id: str,
    body: bytes,
    content_type: str,
) -> OutMessage:
    """The message of an event, with its key and its headers."""
    headers = {CURSOR: cursor, TYPE: kind, LOG: log_id}
    key = b""
    if library is not None:
        headers[LIBRARY] = library
        key = library.encode()
        if document_id is not None:
            headers[ID] = document_id
            key = f"{library}/{document_id}".encode()
    return OutMessage(
        seq, cursor, kind, library, document_id, key, body, content_type, headers, kind == "document.deleted"
    )
