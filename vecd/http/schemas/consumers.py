"""Consumers of the log."""

from __future__ import annotations

from typing import Final

from .schema import COUNT, CURSOR, STRING, TIME, Schema, array, closed, nullable, record, ref

COMPONENTS: Final[dict[str, Schema]] = {
    "Consumer": record(
        {
            "name": STRING,
            "cursor": CURSOR,
            "seq": COUNT,
            "lag": COUNT,
            "holder": nullable(STRING),
            "created_at": TIME,
            "acked_at": nullable(TIME),
        },
        description="A named cursor that the daemon keeps; `lag` counts the events after it.",
    ),
    "Consumers": record({"consumers": array(ref("Consumer"))}, description="All consumers, by name."),
    "Ack": closed({"cursor": CURSOR}, description="Everything up to this cursor (inclusive) has been processed."),
    "Acked": record({"consumer": STRING, "cursor": CURSOR}),
    "Reset": closed(
        {"to": STRING},
        description="A position: `beginning`, `now`, a cursor, an RFC 3339 time, or an age such as `-15m`.",
        examples=[{"to": "beginning"}],
    ),
}
