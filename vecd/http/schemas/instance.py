"""The daemon as a whole: its status, its log, errors, backups and tickets."""

from __future__ import annotations

from typing import Final

from .schema import (
    BOOLEAN,
    COUNT,
    CURSOR,
    QUEUE,
    SECONDS,
    STRING,
    TIME,
    Schema,
    array,
    closed,
    enum,
    nullable,
    record,
    ref,
)

_ERROR = record(
    {"code": STRING, "message": STRING},
    {"hint": STRING},
    "An error inside an answer: a stable code, what happened and, often, what to do.",
    additionalProperties=True,
)

COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": record(
        {
            "type": {"type": "string", "examples": ["urn:vec:error:not_found"]},
            "title": STRING,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": STRING,
            "code": {"type": "string", "examples": ["not_found"]},
        },
        {"hint": STRING, "instance": STRING, "field": STRING, "library": nullable(STRING), "oldest": CURSOR},
        "An error (RFC 9457). `code` is stable, and one of vec-protocol(7); `hint` says what to do. An error can have "
        "more keys, such as `oldest` of `compacted`.",
        additionalProperties=True,
    ),
    "Error": _ERROR,
    "Trim": closed(
        {},
        {
            "keep_age_s": nullable(SECONDS),
            "keep_count": nullable(COUNT),
            "keep_bytes": nullable(COUNT),
            "past_consumers": BOOLEAN,
            "wait": BOOLEAN,
        },
        "What to keep of the log: at least one of the three limits.",
        anyOf=[
            {"required": [name], "properties": {name: {"type": "number"}}}
            for name in ("keep_age_s", "keep_count", "keep_bytes")
        ],
        examples=[{"keep_count": 100_000}],
    ),
    "Backup": closed(
        {"path": {"type": "string", "description": "An absolute path on the server; an existing file is replaced."}},
        examples=[{"path": "/var/backups/vec.db"}],
    ),
    "Trimmed": record(
        {
            "trimmed": COUNT,
            "oldest": CURSOR,
            "held_by": nullable(STRING),
            "bytes": COUNT,
            "free_bytes": COUNT,
        },
        description="How many events were deleted, and the cursor before the oldest one.",
    ),
    "Status": record(
        {
            "version": STRING,
            "log": STRING,
            "seq": COUNT,
            "oldest": CURSOR,
            "uptime_s": SECONDS,
            "libraries": array(ref("Library")),
        },
        {
            "pid": COUNT,
            "socket": STRING,
            "data": STRING,
            "memory_bytes": COUNT,
            "watchers": COUNT,
            "http": nullable(record({"pid": nullable(COUNT), "listen": array(STRING)})),
            "connections": COUNT,
            "jobs": record(QUEUE),
            "relays": record({"count": COUNT, "failing": array(STRING)}),
            "sources": record({"count": COUNT, "failing": array(STRING)}),
            "syncs": record({"count": COUNT, "failing": array(STRING)}),
        },
        description="The daemon's state; vec-status(1) explains the keys. A key for some libraries gets the first six.",
    ),
    "Ticket": record(
        {"ticket": STRING, "expires_at": TIME},
        {"expires_in_s": SECONDS},
        "A short-lived substitute for a key in a URL: `?ticket=`.",
    ),
    "Health": record({"status": enum("ok", "unavailable")}, {"detail": STRING}),
}
