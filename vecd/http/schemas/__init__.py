"""The component schemas of the OpenAPI document: JSON Schema (2020-12) for what requests and answers contain.

A pure table: no Starlette, no I/O. Endpoints refer to an entry with `ref("Library")`. The keys are those of
vec-protocol(7). Objects in answers are open: a client ignores keys that it does not know.
"""

from __future__ import annotations

from typing import Final

from . import connectors, consumers, documents, instance, jobs, libraries, search, streams
from .schema import BOOLEAN, COUNT, CURSOR, JOB_STATUS, MAP, PREFIX, STRING, Schema, array, enum, not_null, ref

__all__ = [
    "BOOLEAN",
    "COMPONENTS",
    "COUNT",
    "CURSOR",
    "JOB_STATUS",
    "MAP",
    "STRING",
    "Schema",
    "array",
    "enum",
    "not_null",
    "ref",
    "resolved",
]

COMPONENTS: Final[dict[str, Schema]] = {
    **instance.COMPONENTS,
    **libraries.COMPONENTS,
    **documents.COMPONENTS,
    **search.COMPONENTS,
    **consumers.COMPONENTS,
    **jobs.COMPONENTS,
    **connectors.COMPONENTS,
    **streams.COMPONENTS,
}


def resolved(schema: Schema) -> Schema:
    """The schema itself, or the component that it refers to."""
    found = COMPONENTS[schema["$ref"].removeprefix(PREFIX)] if "$ref" in schema else schema
    return dict(found)
