"""Events as lines of NDJSON: the keys in their order, and vectors as lists of numbers. `vec watch` prints them, and
relays send them."""

from __future__ import annotations

from typing import Any, Final

from .vectors import unpack_vector

_ORDER: Final = ("seq", "cursor", "type", "library", "time", "data")


def event_object(event: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of an event of a watch, which has a `cursor`. Changes the event."""
    unpack_vectors(event["data"])
    return {key: event[key] for key in _ORDER}


def unpack_vectors(data: dict[str, Any]) -> None:
    """Replaces all packed vectors in an event's data by lists of numbers."""
    if isinstance(data.get("vector"), bytes):
        data["vector"] = unpack_vector(data["vector"])
    for key in ("document", "replaced"):
        for chunk in (data.get(key) or {}).get("chunks", ()):
            if isinstance(chunk.get("vector"), bytes):
                chunk["vector"] = unpack_vector(chunk["vector"])
