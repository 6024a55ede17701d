"""One row of the table of endpoints (table.py): what the routes, the OpenAPI document, the check of scopes and the
labels of the metrics are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .schemas import Schema

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.websockets import WebSocket

Scope = Literal["open", "read", "write", "admin"]

JSON = "application/json"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path, the query or a header. The schema's `type` says how its text is parsed: `string`,
    `integer`, `number`, `boolean`, or `array` of strings, which is repeated: `?where=a&where=b`."""

    name: str
    where: Literal["path", "query", "header"]
    schema: Schema
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries."""

    schema: Schema
    description: str = ""
    media_types: tuple[str, ...] = (JSON,)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an endpoint. `schema` is of the body, or of each line or event of a stream; None: no body."""

    description: str
    schema: Schema | None = None
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP endpoint. Errors are not listed in `answers`: every endpoint may answer with a problem (problems.py)."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str  # with names in braces: /v1/libraries/{library}
    handler: Callable[[Any], Awaitable[Response]]  # of a Call (call.py)
    scope: Scope
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    op: str | None = None  # the daemon's op that does the work, if there is one

    @property
    def library(self) -> bool:
        """Whether the path names a library, so that a key for some libraries is checked against it."""
        return "{library}" in self.path


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """A WebSocket endpoint. The handler accepts the connection, and checks what each message may do."""

    path: str
    handler: Callable[[WebSocket, Any], Awaitable[None]]  # and a Gateway (gateway.py)
    summary: str
