"""JSON as the gateway sends it. Knows nothing of requests."""

from __future__ import annotations

from typing import Any

import orjson

from ..wire.vectors import unpack_vector


def dumps(body: Any) -> bytes:
    """A part of an answer as JSON; packed vectors become lists of numbers."""
    return orjson.dumps(body, default=_listed)


def _listed(value: Any) -> Any:
    if isinstance(value, bytes):
        return unpack_vector(value)
    raise TypeError
