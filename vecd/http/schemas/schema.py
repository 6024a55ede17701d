"""JSON Schema (2020-12): builders, and the schemas of values that many components have."""

from __future__ import annotations

from typing import Any, Final

from ... import limits

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": PREFIX + name}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    if "null" in schema.get("type", ()) or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def not_null(schema: Schema) -> Schema:
    """The schema without null: a parameter in a URL is a text, or missing."""
    if isinstance(kinds := schema.get("type"), list):
        (kind,) = [each for each in kinds if each != "null"]
        return {**schema, "type": kind}
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return choices[0] if len(choices) == 1 else schema


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def record(
    required: dict[str, Schema],
    optional: dict[str, Schema] | None = None,
    /,
    description: str = "",
    **more: Any,
) -> Schema:
    """An object with these keys. Others are allowed, unless `more` has `additionalProperties`."""
    made: Schema = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    if description:
        made["description"] = description
    return {**made, **more}


def closed(
    required: dict[str, Schema], optional: dict[str, Schema] | None = None, /, description: str = "", **more: Any
) -> Schema:
    """The body of a request: an object with these keys and no others, so that a typing error is not ignored. An
    optional key may be null, which counts as missing."""
    nulls = {name: nullable(schema) for name, schema in (optional or {}).items()}
    return record(required, nulls, description, additionalProperties=False, **more)


def extended(name: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """A component with more keys."""
    return {"allOf": [ref(name), record(required, optional)]}


STRING: Final[Schema] = {"type": "string"}

BOOLEAN: Final[Schema] = {"type": "boolean"}

NUMBER: Final[Schema] = {"type": "number"}

COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

SECONDS: Final[Schema] = {"type": "number", "minimum": 0}

MAP: Final[Schema] = {"type": "object"}

TIME: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}

VECTOR: Final[Schema] = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 1,
    "maxItems": limits.DIMENSION_MAX,
    "description": "A vector: its components, as many as the library has dimensions.",
}

#: One filter or several; in a query string the parameter is repeated.
WHERE: Final[Schema] = {
    "anyOf": [STRING, array(STRING, maxItems=limits.FILTERS_MAX)],
    "description": "One filter, or a list of filters that must all match; vec-search(1) describes the language.",
    "examples": ["year >= 2020 and tags in (ops, 'back up')"],
}

CURSOR: Final[Schema] = {
    "type": "string",
    "description": "A position in the log: the log's id, a colon, and the sequence number of the last event before it.",
    "examples": ["77d5d23b47fbedfa:42"],
}

JOB_STATUS: Final[Schema] = enum("pending", "running", "completed", "failed", "cancelled", "dead")

RECALL: Schema = {"type": "number", "minimum": limits.RECALL_MIN, "maximum": 1}

WARNINGS: Schema = array(STRING, description="Messages for people, for example that no document has a field.")

TEXTS_BY_NAME: Schema = {"type": "object", "additionalProperties": STRING}

RULES: Schema = {**TEXTS_BY_NAME, "description": "Rules that make any JSON documents: vec-source(1)."}

COUNTS = {"added": COUNT, "updated": COUNT, "unchanged": COUNT, "deleted": COUNT, "failed": COUNT}

QUEUE = {
    **dict.fromkeys(JOB_STATUS["enum"], COUNT),
    "workers": COUNT,
    "paused": array(STRING, description="Kinds of job; the empty string means all."),
    "executor": {**MAP, "description": "What embeds outside the daemon; see vec-workers(7)."},
}

#: Of a file, from 1.
LINE: Schema = {"type": "integer", "minimum": 1, "maximum": limits.LINE_MAX}
