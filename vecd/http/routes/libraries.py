"""Libraries: create, list, show, set, rename, rebuild, delete, count."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint
from ..op_access import check_op
from ..parameters import LIBRARY, WHERE
from ..schemas import ref


async def list_(call: Call) -> Response:
    answer = await call.collect_unchecked("library.list", "libraries")
    answer["libraries"] = [each for each in answer["libraries"] if call.sees(each["name"])]
    return json_answer(answer)


async def create(call: Call) -> Response:
    body = await call.json_body()
    name = body.pop("name")
    created = await call.daemon("library.create", library=name, **body)
    return json_answer(created, 201, {"location": f"/v1/libraries/{name}"})


async def show(call: Call) -> Response:
    return json_answer(await call.daemon("library.show", library=call.path["library"]))


async def delete(call: Call) -> Response:
    return json_answer(await call.daemon("library.delete", library=call.path["library"]))


async def set_(call: Call) -> Response:
    return json_answer(await call.daemon("library.set", library=call.path["library"], **await call.json_body()))


async def rename(call: Call) -> Response:
    fields = {"library": call.path["library"], **await call.json_body()}
    check_op(call.principal, "library.rename", fields)
    answer = await call.daemon("library.rename", **fields)
    return json_answer(answer, 200, {"location": f"/v1/libraries/{answer['name']}"})


async def rebuild(call: Call) -> Response:
    return json_answer(await call.daemon("library.rebuild", library=call.path["library"], **await call.json_body()))


async def count(call: Call) -> Response:
    return json_answer(await call.daemon("count", library=call.path["library"], where=call.query.get("where")))


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries", list_, "read", "List all libraries.", "libraries",
        {200: Answer("The libraries, by name.", ref("Libraries"))}, op="library.list",
    ),
    Endpoint(
        "POST", "/v1/libraries", create, "write", "Create a library.", "libraries",
        {201: Answer("The library.", ref("Library"))}, body=Body(ref("NewLibrary")), op="library.create",
    ),
    Endpoint(
        "GET", "/v1/libraries/{library}", show, "read", "Show a library, its index and its measured recall.",
        "libraries", {200: Answer("The library.", ref("Library"))}, (LIBRARY,), op="library.show",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/settings", set_, "write", "Change what a library does with its input.",
        "libraries", {200: Answer("The library.", ref("Library"))}, (LIBRARY,), Body(ref("LibrarySettings")),
        op="library.set",
    ),
    Endpoint(
        "DELETE", "/v1/libraries/{library}", delete, "write", "Delete a library and its documents.", "libraries",
        {200: Answer("What was deleted.", ref("DeletedLibrary"))}, (LIBRARY,), op="library.delete",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/rename", rename, "write",
        "Rename a library, also in its relays, sources, schedules and jobs.", "libraries",
        {200: Answer("The library.", ref("Renamed"))}, (LIBRARY,), Body(ref("Rename")), op="library.rename",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/rebuild", rebuild, "write", "Rebuild the index of a library.", "libraries",
        {200: Answer("The library, when its new index is in use.", ref("Rebuilt"))}, (LIBRARY,),
        Body(ref("Rebuild"), required=False), op="library.rebuild",
    ),
    Endpoint(
        "GET", "/v1/libraries/{library}/count", count, "read", "Count documents and chunks.", "libraries",
        {200: Answer("The counts.", ref("Count"))}, (LIBRARY, WHERE), op="count",
    ),
)  # fmt: skip
