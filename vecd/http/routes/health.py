"""For supervisors and monitoring: health, metrics, and the OpenAPI document."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from starlette.responses import Response

from ... import limits
from ...client.aio import AsyncClient
from ...errors import Code, VecError
from .. import openapi
from ..call import Call, json_answer
from ..endpoint import PROBLEM, Answer, Endpoint
from ..gateway import Gateway
from ..metrics import MEDIA_TYPE, daemon_families, text
from ..schemas import MAP, STRING, ref


async def healthz(call: Call) -> Response:
    return json_answer({"status": "ok"})


async def readyz(call: Call) -> Response:
    if call.gateway.stopping.is_set():
        raise VecError(Code.SHUTTING_DOWN, "the gateway is stopping")
    try:
        async with asyncio.timeout(limits.READY_S):
            async with call.gateway.pool.connection(spawn=False, new=True) as client:
                await client.request("ping")
    except TimeoutError:
        raise VecError(Code.STALLED, f"the daemon does not answer within {limits.READY_S:g} s") from None
    return json_answer({"status": "ok"})


async def metrics(call: Call) -> Response:
    figures = await call.gateway.metrics.figures(lambda: _figures(call.gateway))
    status = figures.get("status")
    consumers = figures.get("consumers", ()) if call.principal.libraries is None else None
    if status is not None:
        status = {**status, "libraries": [each for each in status["libraries"] if call.sees(each["name"])]}
    shown = [*call.gateway.metrics.families(), *daemon_families(status, consumers, figures.get("disk"))]
    return Response(text(shown), headers={"content-type": MEDIA_TYPE})


async def _figures(gateway: Gateway) -> dict[str, Any]:
    """The daemon's answers, and the disk's; without `status` if the daemon does not answer."""
    disk = await asyncio.to_thread(_disk, gateway.settings.store)
    try:
        async with asyncio.timeout(limits.READY_S):
            async with gateway.pool.connection(spawn=False, new=True) as client:
                status = await _whole(client, "status", "libraries")
                consumers = (await _whole(client, "consumers.list", "consumers"))["consumers"]
    except (VecError, TimeoutError):
        return {"disk": disk}
    return {"status": status, "consumers": consumers, "disk": disk}


async def _whole(client: AsyncClient, op: str, key: str) -> dict[str, Any]:
    """The daemon's answer with a list `key`, also if it comes in parts. Raises VecError."""
    found: list[Any] = []
    pending = client.submit(op)
    while (reply := await pending.next()) is not None and reply.kind == "items":
        found += reply.body
    return {key: found, **(reply.body if reply is not None else {})}


def _disk(store: Path) -> dict[str, int] | None:
    """Bytes of the store and of its file system. Only looks at the files' sizes; None if there are none."""
    try:
        space = os.statvfs(store.parent)
        size = sum(os.stat(path).st_size for path in (store, f"{store}-wal") if os.path.exists(path))
    except OSError:
        return None
    return {"store": size, "free": space.f_bavail * space.f_frsize, "total": space.f_blocks * space.f_frsize}


async def openapi_json(call: Call) -> Response:
    return json_answer(openapi.document(call.gateway.endpoints))


ENDPOINTS = (
    Endpoint(
        "GET", "/healthz", healthz, "open", "Whether the gateway runs.", "health",
        {200: Answer("It does.", ref("Health"))},
    ),
    Endpoint(
        "GET", "/readyz", readyz, "open", "Whether the daemon answers.", "health",
        {200: Answer("It does.", ref("Health")), 503: Answer("It does not.", ref("Problem"), PROBLEM)},
    ),
    Endpoint(
        "GET", "/metrics", metrics, "read", "Metrics in Prometheus's text format.", "health",
        {200: Answer("The metrics.", STRING, "text/plain")},
    ),
    Endpoint(
        "GET", "/openapi.json", openapi_json, "open", "This document.", "health",
        {200: Answer("The OpenAPI document.", MAP)},
    ),
)  # fmt: skip
