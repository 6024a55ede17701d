"""Relays: the log, carried to message brokers."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, filters, json_answer
from ..endpoint import Answer, Body, Endpoint
from ..schemas import ref
from . import connectors

_NAME = connectors.name_in_path("relay")


async def add(call: Call) -> Response:
    call.check("admin", None)
    body = await call.json_body()
    return json_answer(await call.daemon("relay.add", **{**body, "where": filters(body.get("where"))}), 201)


async def reset(call: Call) -> Response:
    call.check("admin", None)
    body = await call.json_body()
    return json_answer(await call.daemon("relay.reset", name=call.path["relay"], to=body["to"]))


ENDPOINTS = (
    *connectors.endpoints("relay", ref("Relay"), ref("Relays")),
    Endpoint(
        "POST", "/v1/relays", add, "admin", "Add a relay of the log to a broker.", "relays",
        {201: Answer("The relay.", ref("Relay"))}, (), Body(ref("NewRelay")), op="relay.add",
    ),
    Endpoint(
        "POST", "/v1/relays/{relay}/reset", reset, "admin", "Move a relay to a position.", "relays",
        {200: Answer("The relay.", ref("Relay"))}, (_NAME,), Body(ref("Reset")), op="relay.reset",
    ),
)  # fmt: skip
