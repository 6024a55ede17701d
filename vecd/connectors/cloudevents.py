"""CloudEvents 1.0 in JSON, structured mode (https://github.com/cloudevents/spec).

`id` is the cursor, `source` the log and the library, `type` the event's type, `subject` the document's id.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import orjson

from ..wire.event_lines import unpack_vectors

CONTENT_TYPE: Final = "application/cloudevents+json"
BATCH_CONTENT_TYPE: Final = "application/cloudevents-batch+json"


def body(event: dict[str, Any], log_id: str) -> bytes:
    """The CloudEvent of an event of a watch. Changes the event."""
    data, library = event["data"], event["library"]
    unpack_vectors(data)
    subject = data.get("id") if event["type"].startswith("document.") else data.get("document_id")
    envelope = {
        "specversion": "1.0",
        "id": event["cursor"] or f"{log_id}:{event['seq']}",
        "source": f"/vec/{log_id}/{quote(library, safe='')}" if library is not None else f"/vec/{log_id}",
        "type": event["type"],
        **({"subject": subject} if subject else {}),
        "time": event["time"],
        "datacontenttype": "application/json",
        "data": data,
    }
    return orjson.dumps(envelope)
