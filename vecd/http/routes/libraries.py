"""Libraries: create, list, show, rebuild, delete, count."""

from __future__ import annotations

from starlette.responses import Response

from ... import limits
from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint
from ..schemas import (
    COUNT,
    INTEGER,
    LIBRARY,
    LIBRARY_NAME,
    MAP,
    NUMBER,
    STRING,
    WHERE_PARAMETER,
    listed,
    nullable,
    obj,
)

SHOWN = obj(
    {
        "name": LIBRARY_NAME, "dimension": nullable("integer"), "metric": STRING, "index": STRING, "parameters": MAP,
        "embedder": STRING, "chunk_chars": INTEGER, "language": STRING, "documents": COUNT, "chunks": COUNT,
        "created_at": STRING, "recall": MAP, "memory": MAP,
    },
    ("name", "metric", "index", "documents", "chunks"),
)  # fmt: skip
_INDEX = {"index": STRING, "params": MAP, "parameters": MAP, "recall": NUMBER}
_CREATED = {
    "name": LIBRARY_NAME,
    "dimension": {"type": "integer", "minimum": 1, "maximum": limits.DIMENSION_MAX},
    "metric": {"enum": ["cosine", "dot", "l2"]},
    **_INDEX,
    "embedder": STRING,
    "chunk_chars": {"type": "integer", "minimum": 50, "maximum": limits.CHUNK_CHARS_MAX},
    "language": STRING,
}


async def list_(call: Call) -> Response:
    answer = await call.daemon("library.list")
    answer["libraries"] = [each for each in answer["libraries"] if call.sees(each["name"])]
    return json_answer(answer)


async def create(call: Call) -> Response:
    body = await call.json_body()
    name = body.pop("name")
    call.check_library(name)
    created = await call.daemon("library.create", library=name, **body)
    return json_answer(created, 201, {"location": f"/v1/libraries/{name}"} if isinstance(name, str) else None)


async def show(call: Call) -> Response:
    return json_answer(await call.daemon("library.show", library=call.path["library"]))


async def delete(call: Call) -> Response:
    return json_answer(await call.daemon("library.delete", library=call.path["library"]))


async def rebuild(call: Call) -> Response:
    return json_answer(await call.daemon("library.rebuild", library=call.path["library"], **await call.json_body()))


async def count(call: Call) -> Response:
    return json_answer(await call.daemon("count", library=call.path["library"], where=call.query.get("where")))


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries", list_, "read", "All libraries.", "libraries",
        {200: Answer("The libraries, by name.", obj({"libraries": listed(SHOWN)}))},
        op="library.list",
    ),
    Endpoint(
        "POST", "/v1/libraries", create, "write", "Create a library.", "libraries",
        {201: Answer("The library.", SHOWN)},
        body=Body(obj(_CREATED, ("name",), closed=True)), op="library.create",
    ),
    Endpoint(
        "GET", "/v1/libraries/{library}", show, "read", "A library, its index and its measured recall.", "libraries",
        {200: Answer("The library.", SHOWN)},
        (LIBRARY,), op="library.show",
    ),
    Endpoint(
        "DELETE", "/v1/libraries/{library}", delete, "admin", "Delete a library and its documents.", "libraries",
        {200: Answer("What was deleted.", obj({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}))},
        (LIBRARY,), op="library.delete",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/rebuild", rebuild, "write", "Rebuild the index of a library.", "libraries",
        {200: Answer("The library, when its new index is in use.", SHOWN)},
        (LIBRARY,), Body(obj(_INDEX, closed=True), required=False), op="library.rebuild",
    ),
    Endpoint(
        "GET", "/v1/libraries/{library}/count", count, "read", "Count documents and chunks.", "libraries",
        {200: Answer("The counts.", obj({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}))},
        (LIBRARY, WHERE_PARAMETER), op="count",
    ),
)  # fmt: skip
