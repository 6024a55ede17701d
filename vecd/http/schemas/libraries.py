"""Libraries, their indexes and their recall."""

from __future__ import annotations

from typing import Final

from ... import limits
from .schema import (
    BOOLEAN,
    COUNT,
    MAP,
    RECALL,
    RULES,
    SECONDS,
    STRING,
    TEXTS_BY_NAME,
    TIME,
    Schema,
    array,
    closed,
    enum,
    extended,
    nullable,
    record,
    ref,
)

_UNIT_INTERVAL: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_METRIC: Schema = enum("cosine", "dot", "l2")
_INDEX: Schema = enum("pq", "hnsw", "flat", "lsh", "kdtree")
_NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": limits.NAME_BYTES_MAX,
    "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
}
_IN_MEMORY = record(
    {"state": enum("unloaded", "loading", "ready", "failed")},
    {
        "vectors": COUNT,
        "structure": COUNT,
        "tail": COUNT,
        "dead": COUNT,
        "memory_bytes": COUNT,
        "maintenance": nullable(STRING),
        "damage": MAP,
        "damaged": COUNT,
        "text": record(
            {"state": enum("unloaded", "loading", "ready", "failed")},
            {
                "chunks": COUNT,
                "segments": COUNT,
                "dead": COUNT,
                "memory_bytes": COUNT,
                "maintenance": nullable(STRING),
                "damage": MAP,
            },
            "The full-text index.",
        ),
        "second": MAP,
    },
    "The index in memory; an unloaded one has only a state.",
)
_LIBRARY = {
    "name": _NAME,
    "dimension": nullable(COUNT),
    "metric": _METRIC,
    "index": _INDEX,
    "parameters": MAP,
    "embedder": nullable(STRING),
    "embedder_parameters": MAP,
    "first_embedder": {**nullable(STRING), "description": "Finds documents until the embedder has embedded them."},
    "chunk_chars": COUNT,
    "chunk_overlap": COUNT,
    "language": STRING,
    "mapping": TEXTS_BY_NAME,
    "documents": COUNT,
    "chunks": COUNT,
    "created_at": TIME,
    "recall": record(
        {"promise": _UNIT_INTERVAL, "met": nullable(BOOLEAN), "own": nullable(MAP)},
        {"probe": nullable(MAP)},
        "The promised recall, whether it is met (null: not known), and what was measured.",
    ),
    "memory": _IN_MEMORY,
    "second_stage": nullable(
        record(
            {"dimension": nullable(COUNT), "embedded": COUNT, "refused": COUNT, "error": nullable(STRING)},
            description="How many chunks the embedder has embedded or refused, if there is a first one.",
        )
    ),
}

COMPONENTS: Final[dict[str, Schema]] = {
    "Library": record(_LIBRARY, {"seq": COUNT}, "A library, its index and its recall; vec-library(1) explains them."),
    "Libraries": record({"libraries": array(ref("Library"))}, description="All libraries, by name."),
    "NewLibrary": closed(
        {"name": _NAME},
        {
            "dimension": nullable({"type": "integer", "minimum": 1, "maximum": limits.DIMENSION_MAX}),
            "metric": _METRIC,
            "index": nullable(_INDEX),
            "params": {**MAP, "description": "Parameters of the index; missing ones have their defaults."},
            "mapping": RULES,
            "embedder": nullable(enum("wordllama", "minilm", "hash", "none")),
            "chunk_overlap": nullable({"type": "integer", "minimum": 0, "maximum": limits.CHUNK_CHARS_MAX // 2}),
            "first_embedder": nullable(STRING),
            "chunk_chars": nullable({"type": "integer", "minimum": 50, "maximum": limits.CHUNK_CHARS_MAX}),
            "recall": nullable(RECALL),
            "language": nullable(STRING),
        },
        "What `vec library create` takes.",
        examples=[{"name": "notes"}, {"name": "points", "embedder": "none", "dimension": 2, "metric": "l2"}],
    ),
    "Rebuild": closed(
        {},
        {"index": nullable(_INDEX), "params": MAP, "recall": nullable(RECALL)},
        "The new kind, parameters or promise. Without `index` and `params`, but with `recall`, nothing is built.",
        examples=[{"index": "hnsw", "params": {"m": 32}}],
    ),
    "Rename": closed({"to": STRING}, description="The new name.", examples=[{"to": "notes"}]),
    "Renamed": extended("Library", {"former": STRING, "seq": COUNT}),
    "Rebuilt": extended("Library", {"vectors": COUNT, "seconds": SECONDS, "seq": COUNT}),
    "DeletedLibrary": record({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}),
    "LibrarySettings": closed(
        {},
        {"mapping": RULES},
        "What to change; what is not given stays.",
        examples=[{"mapping": {"id": "url", "text": "title,body"}}],
    ),
}
