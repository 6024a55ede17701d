"""Whether the gateway and its daemon are at work."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, json_answer
from ..endpoint import Answer, Endpoint
from ..schemas import ref


async def healthz(call: Call) -> Response:
    return json_answer({"status": "ok"})


ENDPOINTS = (
    Endpoint(
        "GET", "/healthz", healthz, "open", "Whether the gateway runs.", "health",
        {200: Answer("It does.", ref("Health"))},
    ),
)  # fmt: skip
