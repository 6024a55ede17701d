"""Sources: messages of brokers, written to libraries."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint
from ..schemas import ref
from . import connectors

_NAME = connectors.name_in_path("source")


async def add(call: Call) -> Response:
    call.check("admin", None)
    return json_answer(await call.daemon("source.add", **await call.json_body()), 201)


async def reset(call: Call) -> Response:
    call.check("admin", None)
    return json_answer(await call.daemon("source.reset", name=call.path["source"], **await call.json_body()))


ENDPOINTS = (
    *connectors.endpoints("source", ref("Source"), ref("Sources")),
    Endpoint(
        "POST", "/v1/sources", add, "admin", "Add a source, which writes a broker's messages to a library.", "sources",
        {201: Answer("The source.", ref("Source"))}, (), Body(ref("NewSource")), op="source.add",
    ),
    Endpoint(
        "POST", "/v1/sources/{source}/reset", reset, "admin", "Let a source begin again, or at other offsets.",
        "sources", {200: Answer("The source.", ref("Source"))}, (_NAME,), Body(ref("ResetSource"), required=False),
        op="source.reset",
    ),
)  # fmt: skip
