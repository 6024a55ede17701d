"""status and ping."""

from __future__ import annotations

from typing import Any

from ...engine import status as operations
from ...jobs import operations as jobs
from ..call import Call


def ping(call: Call) -> dict[str, Any]:
    return {}


def status(call: Call) -> dict[str, Any]:
    return {
        **operations.status(call.engine),
        "http": call.service.gateway_status(),
        "connections": call.service.connections,
        "jobs": jobs.overview(call.jobs),
        **call.service.connectors.overview(),
    }
