"""Relays, sources, and their dead letters."""

from __future__ import annotations

from typing import Final

from ... import limits
from .schema import (
    BOOLEAN,
    COUNT,
    CURSOR,
    MAP,
    NUMBER,
    RULES,
    STRING,
    TEXTS_BY_NAME,
    TIME,
    WARNINGS,
    Schema,
    array,
    closed,
    enum,
    nullable,
    record,
    ref,
)

_FORMAT = enum("vec", "cloudevents")
_CONNECTOR = {
    "direction": enum("relay", "source"),
    "name": STRING,
    "url": STRING,
    "parameters": MAP,
    "generation": COUNT,
    "paused": BOOLEAN,
    "created_at": TIME,
    "state": enum("starting", "running", "retrying", "failing", "paused", "removed"),
    "error": nullable(ref("Error")),
    "error_at": nullable(TIME),
    "delivered": nullable(COUNT),
    "rate": nullable(NUMBER),
    "dead_letters": COUNT,
    "retrying": COUNT,
}

COMPONENTS: Final[dict[str, Schema]] = {
    "Relay": record(
        {
            **_CONNECTOR,
            "format": _FORMAT,
            "libraries": array(STRING),
            "types": array(STRING),
            "where": array(STRING),
            "payload": BOOLEAN,
            "vectors": BOOLEAN,
            "cursor": CURSOR,
            "lag": COUNT,
        },
        {"warnings": WARNINGS},
        description="A relay of the log to a broker; `lag` counts the events after its cursor. See vec-relay(1).",
    ),
    "Relays": record({"relays": array(ref("Relay"))}, description="All relays, by name."),
    "NewRelay": closed(
        {"name": {"type": "string", "minLength": 1}, "url": {"type": "string", "minLength": 1}},
        {
            "parameters": {**MAP, "description": "Of the transport: vec-connectors(7)."},
            "format": _FORMAT,
            "libraries": array(STRING),
            "types": array(STRING),
            "where": {"description": "A filter, or a list of filters.", "type": ["string", "array"]},
            "payload": BOOLEAN,
            "vectors": BOOLEAN,
            "from": {**STRING, "description": "`beginning`, `now`, a cursor, a time, or an age such as `-15m`."},
            "paused": BOOLEAN,
        },
        "What `vec relay add` takes. Paths in the parameters are of the server.",
        examples=[{"name": "live", "url": "redis://localhost/events", "types": ["document.*"]}],
    ),
    "Source": record(
        {
            **_CONNECTOR,
            "library": STRING,
            "group": nullable(STRING),
            "mapping": MAP,
            "libraries": array(STRING),
            "offsets": MAP,
            "lag": nullable(COUNT),
        },
        description="A source; `lag` counts the messages that wait at the broker. See vec-source(1).",
    ),
    "Sources": record({"sources": array(ref("Source"))}, description="All sources, by name."),
    "NewSource": closed(
        {"name": {"type": "string", "minLength": 1}, "url": {"type": "string", "minLength": 1}},
        {
            "library": STRING,
            "group": STRING,
            "mapping": RULES,
            "libraries": {**array(STRING), "description": "Of events of a relay, only those of these libraries."},
            "parameters": {**MAP, "description": "Of the transport: vec-connectors(7)."},
            "paused": BOOLEAN,
        },
        "What `vec source add` takes. Paths in the parameters are of the server.",
        examples=[{"name": "pages", "url": "redis://localhost/pages", "mapping": {"id": "url", "text": "title,body"}}],
    ),
    "ResetSource": closed(
        {},
        {
            "start": enum("earliest", "latest"),
            "offsets": {**TEXTS_BY_NAME, "description": "By partition: the last message not to apply again."},
        },
        "Where a source is to begin.",
    ),
    "DeadLetters": record(
        {
            "dead_letters": array(
                record(
                    {
                        "letter_id": COUNT,
                        "position": STRING,
                        "time": TIME,
                        "code": STRING,
                        "reason": STRING,
                        "attempts": COUNT,
                        "retrying": BOOLEAN,
                        "about": MAP,
                        "bytes": COUNT,
                    },
                    {"body": STRING},
                )
            )
        },
        description="Messages that were refused, the oldest first.",
    ),
    "Letters": closed(
        {},
        {"letter_ids": nullable(array(COUNT, maxItems=limits.DEAD_LETTERS_MAX))},
        "Which dead letters; all if there are no numbers.",
    ),
    "Retrying": record({"retrying": COUNT}),
    "Dropped": record({"dropped": COUNT}),
}
