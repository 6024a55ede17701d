"""Consumers: named cursors that the daemon keeps."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..schemas import STRING, ref

_NAME = Parameter("consumer", "path", STRING, "The name of a consumer.", required=True)
_CONSUMER = {200: Answer("The consumer.", ref("Consumer"))}


async def list_(call: Call) -> Response:
    return json_answer(await call.collect("consumers.list", "consumers"))


async def ack(call: Call) -> Response:
    body = await call.json_body()
    await call.daemon("ack", consumer=call.path["consumer"], cursor=body["cursor"])
    return json_answer({"consumer": call.path["consumer"], "cursor": body["cursor"]})


async def reset(call: Call) -> Response:
    body = await call.json_body()
    return json_answer(await call.daemon("consumers.reset", consumer=call.path["consumer"], to=body["to"]))


async def delete(call: Call) -> Response:
    return json_answer(await call.daemon("consumers.delete", consumer=call.path["consumer"]))


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/consumers", list_, "read", "List all consumers.", "consumers",
        {200: Answer("The consumers, by name.", ref("Consumers"))}, op="consumers.list",
    ),
    Endpoint(
        "POST", "/v1/consumers/{consumer}/ack", ack, "write", "Acknowledge events up to a cursor.", "consumers",
        {200: Answer("The cursor is on disk.", ref("Acked"))}, (_NAME,), Body(ref("Ack")), op="ack",
    ),
    Endpoint(
        "POST", "/v1/consumers/{consumer}/reset", reset, "write", "Move a consumer to a position.", "consumers",
        _CONSUMER, (_NAME,), Body(ref("Reset")), op="consumers.reset",
    ),
    Endpoint(
        "DELETE", "/v1/consumers/{consumer}", delete, "write", "Delete a consumer.", "consumers",
        _CONSUMER, (_NAME,), op="consumers.delete",
    ),
)  # fmt: skip
