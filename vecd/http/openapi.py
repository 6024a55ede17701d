"""The OpenAPI document (version 3.1), made from the table of endpoints.

A pure function: rows in, document out. What a row says is all there is: parameters, body, answers and scope. The errors
of an endpoint are those of its daemon's op (OP_ERRORS), and those that any request can meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .. import __version__
from ..errors import Code
from .endpoint import EVENTS, JSON, NDJSON, PROBLEM, Answer, Body, Endpoint, Parameter
from .problems import status_of
from .schemas import COMPONENTS, STRING, Schema, not_null, ref

ABOUT: Final = """\
Libraries of documents, their vectors, and a log of every change. vec-http(7) is the manual.

Errors are problem details (RFC 9457) with a stable `code`. An answered write is on disk, searchable, and in the log;
sending it again changes nothing. Times are RFC 3339 in UTC. Clients ignore keys that they do not know.

Two endpoints are WebSockets, which OpenAPI does not describe: `/v1/ws` and `/v1/libraries/{library}/ws`.
"""

TAGS: Final = {
    "libraries": "Named sets of documents, each with its embedder and its index.",
    "documents": "Write, read and delete documents, singly, in batches or as a stream.",
    "search": "Search by text, by vector, or both.",
    "events": "The log of every change, as server-sent events.",
    "consumers": "Named cursors that the daemon keeps.",
    "jobs": "Background jobs.",
    "schedules": "Jobs at certain times.",
    "relays": "The log, carried to message brokers.",
    "sources": "Messages of brokers, written to libraries.",
    "instance": "Status, backup, and the log's retention.",
    "tickets": "For clients that cannot send a key in a header.",
    "health": "For supervisors and monitoring.",
}

#: The tag of endpoints that a browser shows.
PAGES: Final = "pages"

#: What the daemon's ops can refuse, beyond what any request can meet (vec-protocol(7), OPERATIONS).
OP_ERRORS: Final[dict[str, tuple[str, ...]]] = {
    "library.create": (Code.EXISTS, Code.UNSUPPORTED, Code.DISK_FULL),
    "library.show": (Code.NOT_FOUND,),
    "library.set": (Code.NOT_FOUND,),
    "library.rebuild": (Code.NOT_FOUND, Code.UNSUPPORTED, Code.INDEX_FAILED),
    "library.rename": (Code.NOT_FOUND, Code.EXISTS, Code.DISK_FULL),
    "library.delete": (Code.NOT_FOUND, Code.DISK_FULL),
    "ingest": (
        Code.NOT_FOUND,
        Code.INVALID_DOCUMENT,
        Code.DIMENSION_MISMATCH,
        Code.EMBEDDER_FAILED,
        Code.DISK_FULL,
        Code.TOO_LARGE,
    ),
    "delete": (Code.NOT_FOUND, Code.INVALID_FILTER, Code.DISK_FULL),
    "update": (Code.NOT_FOUND, Code.INVALID_FILTER, Code.DISK_FULL),
    "get": (Code.NOT_FOUND, Code.TOO_LARGE, Code.DAMAGED),
    "list": (Code.NOT_FOUND, Code.INVALID_FILTER),
    "count": (Code.NOT_FOUND, Code.INVALID_FILTER),
    "search": (
        Code.NOT_FOUND,
        Code.INVALID_FILTER,
        Code.DIMENSION_MISMATCH,
        Code.UNSUPPORTED,
        Code.INDEX_FAILED,
        Code.EMBEDDER_FAILED,
        Code.DAMAGED,
        Code.INVALID_CURSOR,
        Code.FOREIGN_CURSOR,
        Code.COMPACTED,
    ),
    "watch": (
        Code.NOT_FOUND,
        Code.INVALID_CURSOR,
        Code.INVALID_FILTER,
        Code.CONSUMER_HELD,
        Code.COMPACTED,
        Code.FOREIGN_CURSOR,
    ),
    "ack": (Code.NOT_FOUND, Code.INVALID_CURSOR, Code.FOREIGN_CURSOR, Code.COMPACTED),
    "trim": (),
    "consumers.reset": (
        Code.NOT_FOUND,
        Code.CONSUMER_HELD,
        Code.INVALID_CURSOR,
        Code.FOREIGN_CURSOR,
        Code.COMPACTED,
    ),
    "consumers.delete": (Code.NOT_FOUND, Code.CONSUMER_HELD),
    "jobs.submit": (Code.NOT_FOUND, Code.UNSUPPORTED, Code.INVALID_FILTER, Code.DISK_FULL),
    "jobs.list": (Code.UNSUPPORTED,),
    "jobs.show": (Code.NOT_FOUND,),
    "jobs.wait": (Code.NOT_FOUND,),
    "jobs.logs": (Code.NOT_FOUND,),
    "jobs.cancel": (Code.NOT_FOUND,),
    "jobs.retry": (Code.NOT_FOUND, Code.EXISTS, Code.DISK_FULL),
    "jobs.drop": (Code.NOT_FOUND,),
    "schedule.add": (Code.EXISTS, Code.NOT_FOUND, Code.UNSUPPORTED, Code.INVALID_FILTER, Code.DISK_FULL),
    "schedule.run": (Code.NOT_FOUND, Code.UNSUPPORTED, Code.INVALID_FILTER, Code.DISK_FULL),
    "schedule.remove": (Code.NOT_FOUND,),
    "relay.add": (
        Code.EXISTS,
        Code.NOT_FOUND,
        Code.UNSUPPORTED,
        Code.INVALID_FILTER,
        Code.INVALID_CURSOR,
        Code.COMPACTED,
        Code.FOREIGN_CURSOR,
        Code.DISK_FULL,
    ),
    **{f"relay.{what}": (Code.NOT_FOUND,) for what in ("show", "pause", "resume", "remove", "dead", "retry", "drop")},
    "relay.reset": (Code.NOT_FOUND, Code.INVALID_CURSOR, Code.COMPACTED, Code.FOREIGN_CURSOR),
    "source.add": (Code.EXISTS, Code.NOT_FOUND, Code.UNSUPPORTED, Code.DISK_FULL),
    **{
        f"source.{what}": (Code.NOT_FOUND,)
        for what in ("show", "pause", "resume", "reset", "remove", "dead", "retry", "drop")
    },
}

#: What any request can meet that goes to the daemon, or needs a key.
_COMMON: Final = (
    Code.INVALID_REQUEST,
    Code.UNAUTHORIZED,
    Code.FORBIDDEN,
    Code.BUSY,
    Code.NO_DAEMON,
    Code.SHUTTING_DOWN,
    Code.CONNECTION_LOST,
    Code.STALLED,
)
#: What a request with a body can meet.
_WITH_BODY: Final = (Code.TOO_LARGE,)


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document of these endpoints, without the pages for people."""
    paths: dict[str, dict[str, Any]] = {}
    tags: set[str] = set()
    for endpoint in endpoints:
        if endpoint.tag == PAGES:
            continue
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
        tags.add(endpoint.tag)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vec",
            "version": __version__,
            "summary": "Real-time vector search",
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items() if name in tags],
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of `vec keys create`."},
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "A short-lived ticket of `POST /v1/tickets`, for where no header can be set.",
                },
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    handler = endpoint.handler
    noun = handler.__module__.rpartition(".")[2]
    if noun == "connectors":  # what relays and sources share
        noun = endpoint.tag
    made: dict[str, Any] = {
        "operationId": f"{noun}_{getattr(handler, '__name__', endpoint.method).strip('_')}",
        "tags": [endpoint.tag],
        "summary": endpoint.summary.rstrip("."),
        "description": _about(endpoint),
        # Without keys, on a loopback address, nobody needs one: hence the empty requirement.
        "security": [] if endpoint.scope == "open" else [{}, {"bearer": []}, {"ticket": []}],
        "x-scope": endpoint.scope,
    }
    if endpoint.parameters:
        made["parameters"] = [_parameter(each) for each in endpoint.parameters]
    if endpoint.body is not None:
        made["requestBody"] = _body(endpoint.body)
    made["responses"] = {
        **{str(status): _answer(answer) for status, answer in endpoint.answers.items()},
        **_errors(endpoint),
    }
    return made


def _about(endpoint: Endpoint) -> str:
    needs = "Needs no key." if endpoint.scope == "open" else f"Needs the scope `{endpoint.scope}`, if there are keys."
    return f"{needs} It is the operation `{endpoint.op}` of vec-protocol(7)." if endpoint.op else needs


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required or parameter.where == "path",
        "description": parameter.description,
        "schema": not_null(dict(parameter.schema)),
    }


def _body(body: Body) -> dict[str, Any]:
    made: dict[str, Any] = {
        "required": body.required,
        "content": {media_type: {"schema": _sent(body.schema, media_type)} for media_type in body.media_types},
    }
    if body.description:
        made["description"] = body.description
    return made


def _answer(answer: Answer) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.description}
    if answer.schema is not None:
        made["content"] = {answer.media_type: {"schema": _content(answer.schema, answer.media_type)}}
    return made


def _sent(schema: Schema, media_type: str) -> Schema:
    """The schema of a request's body. Any lines are accepted; each gets an outcome of its own."""
    if media_type != NDJSON:
        return _content(schema, media_type)
    return {"description": "One JSON object per line.", "x-item-schema": dict(schema)}


def _content(schema: Schema, media_type: str) -> Schema:
    """The schema of a body. That of a stream is a string to OpenAPI 3.1; `x-item-schema` is of a line or an event."""
    if media_type == JSON or media_type.endswith("+json"):
        return dict(schema)
    what = {NDJSON: "One JSON object per line.", EVENTS: "Server-sent events; their data is JSON."}.get(media_type)
    return {**STRING, "description": what, "x-item-schema": dict(schema)} if what else dict(schema)


def _errors(endpoint: Endpoint) -> dict[str, Any]:
    """The answers with problems, by status, each with its codes."""
    codes: list[str] = []
    if endpoint.scope != "open" or endpoint.op is not None:
        codes += _COMMON
    if endpoint.body is not None:
        codes += _WITH_BODY
    codes += OP_ERRORS.get(endpoint.op or "", ())
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(status_of(code), []).append(code)
    return {
        str(status): _problem(", ".join(f"`{code}`" for code in by_status[status]))
        for status in sorted(by_status)
        if status not in endpoint.answers
    } | {"default": _problem("Any other error.")}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM: {"schema": ref("Problem")}}}
