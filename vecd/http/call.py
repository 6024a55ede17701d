"""One request to an endpoint: its parameters, checked against the endpoint's row, its body, and the way to the daemon.

A parameter or a key of a JSON body that the endpoint does not have is refused: a typing error must not be ignored. What
a value means, the daemon checks.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.responses import Response

from .. import limits
from ..errors import Code, VecError, nearest
from ..wire import strict_json
from ..wire.vectors import pack_vector
from .endpoint import JSON, Body, Endpoint, Parameter
from .json_bytes import dumps
from .op_access import check_op
from .problems import Refusal
from .schemas import resolved

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from .gateway import Gateway
    from .principal import Principal

_TRUTHS = {"true": True, "1": True, "": True, "false": False, "0": False}


@dataclass(slots=True)
class Call:
    """A request that has been let in. `path` and `query` have the parameters that were given, as their schemas say."""

    request: Request
    gateway: Gateway
    endpoint: Endpoint
    principal: Principal
    path: dict[str, str]
    query: dict[str, Any]

    async def daemon(self, op: str, **fields: Any) -> dict[str, Any]:
        """The daemon's answer. Fields that are None are left out. Raises VecError, also if the principal may not send
        this request (op_access.py)."""
        check_op(self.principal, op, fields)
        return await self.unchecked(op, **fields)

    async def unchecked(self, op: str, **fields: Any) -> dict[str, Any]:
        """As `daemon`, for a handler that checks by itself what the principal may see or change. A key for some
        libraries may send no request that concerns all, but may see its own part of the answer."""
        return await self.gateway.pool.request(op, **fields)

    @property
    def restricted(self) -> bool:
        """Whether the principal may use some libraries only."""
        return self.principal.libraries is not None

    def check(self, scope: str, library: Any) -> None:
        """Raises VecError `forbidden` if the principal lacks the scope, or may not use this library, which is not in
        the path. None: the request concerns all libraries."""
        named = library if isinstance(library, str) else None
        self.principal.check(scope, named)
        if named is None and self.restricted:
            raise VecError(
                Code.FORBIDDEN,
                f"the key {self.principal.name!r} is for some libraries only, and this request concerns all",
                "name a library, or use a key that was made without --library",
            )

    def sees(self, library: str | None) -> bool:
        """Whether the principal may know of something that belongs to this library (None: to all)."""
        allowed = self.principal.libraries
        return allowed is None or library in allowed

    async def collect(self, op: str, key: str, **fields: Any) -> dict[str, Any]:
        """As `daemon`: the answer with a list `key`, also if it comes in parts."""
        check_op(self.principal, op, fields)
        return await self.collect_unchecked(op, key, **fields)

    async def collect_unchecked(self, op: str, key: str, **fields: Any) -> dict[str, Any]:
        """As `collect`, for a handler that checks by itself what the principal may see."""
        found: list[Any] = []
        async with (
            self.gateway.pool.connection() as client,
            aclosing(client.submit(op, **fields).parts()) as replies,
        ):
            async for reply in replies:
                if reply.kind == "result":
                    return dict(reply.body)
                if reply.kind == "items":
                    found += reply.body
                else:
                    return {key: found, **reply.body}
        raise VecError(Code.PROTOCOL_ERROR, "the daemon's answer has no end")

    async def json_body(self, *, exact: bool = False) -> dict[str, Any]:
        """The body, a JSON object with keys of the endpoint's schema; `{}` if there is none and none is required. With
        `exact`, a value that parsing would change (an integer beyond 64 bits, a duplicate key) is refused.

        Raises VecError `invalid_request`, or `too_large` above HTTP_BODY_BYTES_MAX.
        """
        body = self.endpoint.body
        assert body is not None
        data = await self.body_bytes(limits.HTTP_BODY_BYTES_MAX)
        if not data.strip():
            if body.required:
                raise VecError(Code.INVALID_REQUEST, "the request has no body", "send a JSON object")
            return {}
        found = _object(data, strict_json.loads if exact else orjson.loads)
        _check_body(body, found)
        return found

    async def json_documents(self) -> tuple[dict[str, Any], dict[int, VecError]]:
        """The body, a JSON object with a list `documents`, and the errors, by position, of documents that parsing would
        change. Raises VecError as `json_body`."""
        body = self.endpoint.body
        assert body is not None
        data = await self.body_bytes(limits.HTTP_BODY_BYTES_MAX)
        refused: dict[int, VecError] = {}

        def parse(data: bytes) -> Any:
            nonlocal refused
            value, refused = strict_json.loads_items(data, "documents")
            return value

        found = _object(data, parse)
        _check_body(body, found)
        return found, refused

    async def body_bytes(self, bytes_max: int) -> bytes:
        """The whole body. Raises VecError: `too_large` above `bytes_max`, `busy` if others hold too much, `stalled` if
        it does not arrive in time."""
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > bytes_max:
            raise _too_large(bytes_max)
        pieces: list[bytes] = []
        size = 0
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limits.BODY_S) as timeout:
                async for piece in self.request.stream():
                    size += len(piece)
                    if size > bytes_max:
                        raise _too_large(bytes_max)
                    self.gateway.access.hold(self.request.scope["state"]["open"], len(piece))
                    pieces.append(piece)
                    timeout.reschedule(began + limits.BODY_S + size / limits.FRAME_BYTES_S_MIN)
        except TimeoutError:
            raise Refusal(
                408,
                Code.STALLED,
                f"the body arrived too slowly: {size:,} bytes",
                "send it at once, or stream documents",
            ) from None
        return b"".join(pieces)


def _too_large(bytes_max: int) -> VecError:
    return VecError(
        Code.TOO_LARGE,
        f"the body exceeds {bytes_max:,} bytes",
        "stream documents as NDJSON to /v1/libraries/{library}/documents/stream",
    )


def _object(data: bytes, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """The bytes as a JSON object. Raises VecError `invalid_request` or `too_large`, and what `parse` raises."""
    strict_json.check_size(data)
    try:
        found = parse(data)
    except orjson.JSONDecodeError as error:
        raise VecError(Code.INVALID_REQUEST, f"the body is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise VecError(Code.INVALID_REQUEST, "the body must be a JSON object")
    return found


def _check_body(body: Body, found: Mapping[str, Any]) -> None:
    """Checks the keys of a parsed body against its schema. Raises VecError `invalid_request`."""
    schema = resolved(body.schema)
    check_keys(found, schema["properties"], schema.get("required", ()))


def check_keys(found: Mapping[str, Any], known: Mapping[str, Any], required: Any = ()) -> None:
    """Raises VecError `invalid_request` for a key that is not known, or a required one that is missing."""
    for key in found:
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close!r}?" if close else f"known keys: {', '.join(known)}"
            raise VecError(Code.INVALID_REQUEST, f"unknown key {key!r:.80}", hint, field=key[:80])
    for key in required:
        if found.get(key) is None:
            raise VecError(Code.INVALID_REQUEST, f"{key!r} is missing", field=key)
    for key, value in found.items():
        if value is not None:
            check_value(repr(key), key, value, known[key])


#: JSON Schema's types, as Python has them and as an error names them.
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "string": ((str,), "a string"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "array": ((list,), "a list"),
    "object": ((dict,), "an object"),
}


def check_value(what: str, name: str, value: Any, schema: Mapping[str, Any]) -> None:
    """Checks a value against its schema's type, choices and bounds. Lists and objects are the daemon's to check.

    Raises VecError `invalid_request`."""
    kinds = schema.get("type", ())
    known = [_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    # A bool is an int to Python, and not a number to JSON.
    if known and not any(isinstance(value, types) and (type(value) is not bool or bool in types) for types, _ in known):
        raise VecError(Code.INVALID_REQUEST, f"{what} must be {known[0][1]}, not {reprlib.repr(value):.80}", field=name)
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(map(str, schema["enum"]))
        raise VecError(
            Code.INVALID_REQUEST, f"{what} cannot be {reprlib.repr(value):.80}", f"it is one of: {choices}", field=name
        )
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"from {low} to {high}" if low is not None and high is not None else f"at least {low}"
        raise VecError(Code.INVALID_REQUEST, f"{what} must be {bounds}, not {value}", field=name)


def read_query(parameters: tuple[Parameter, ...], given: QueryParams) -> dict[str, Any]:
    """The query's parameters, parsed. Raises VecError `invalid_request`, naming the parameter."""
    known = {each.name: each for each in parameters if each.where == "query"}
    found: dict[str, Any] = {}
    for name, text in given.multi_items():
        parameter = known.get(name)
        if parameter is None:
            close = nearest(name, known)
            hint = f"did you mean {close!r}?" if close else f"known parameters: {', '.join(known) or 'none'}"
            raise VecError(Code.INVALID_REQUEST, f"unknown parameter {name!r:.80}", hint, field=name[:80])
        kinds = parameter.schema.get("type")
        kind = next((each for each in kinds if each != "null"), None) if isinstance(kinds, list) else kinds
        if kind == "array":
            found.setdefault(name, []).append(text)
            continue
        if name in found:
            raise VecError(Code.INVALID_REQUEST, f"the parameter {name!r} is given twice", field=name)
        found[name] = _parsed(name, text, kind)
        check_value(f"the parameter {name!r}", name, found[name], parameter.schema)
    for name, parameter in known.items():
        if parameter.required and name not in found:
            raise VecError(Code.INVALID_REQUEST, f"the parameter {name!r} is missing", field=name)
    return found


def _parsed(name: str, text: str, kind: Any) -> Any:
    try:
        if kind == "integer":
            return int(text) if text.lstrip("-").isdecimal() and len(text) < 25 else int("")
        if kind == "number":
            return float(text)
        if kind == "boolean":
            return _TRUTHS[text.lower()]
    except (ValueError, KeyError):
        wanted = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}[str(kind)]
        raise VecError(
            Code.INVALID_REQUEST, f"the parameter {name!r} must be {wanted}, not {text!r:.80}", field=name
        ) from None
    return text


def packed(vector: Any) -> bytes | None:
    """A vector of a JSON body in wire format. Raises VecError `invalid_request`."""
    if vector is None:
        return None
    try:
        return pack_vector(vector)
    except VecError as error:
        raise VecError(Code.INVALID_REQUEST, error.message, error.hint, field="vector") from error


def filters(where: Any) -> Any:
    """The filters of a JSON body: a string, or a list of strings, all of which must match."""
    return [where] if isinstance(where, str) else where


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(dumps(body), status, dict(headers or {}), JSON)
