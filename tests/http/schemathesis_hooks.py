"""What schemathesis needs to know of the gateway beyond its OpenAPI document: how a list of lines is sent as NDJSON."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """One JSON value a line. The document describes a line, so a generated value is one."""
    lines = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
