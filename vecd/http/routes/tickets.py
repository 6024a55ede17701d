"""Tickets, with which a browser opens streams and WebSockets (vecd/http/tickets.py)."""

from __future__ import annotations

import time

from starlette.responses import Response

from ... import limits
from ...units import format_time
from ..call import Call, json_answer
from ..endpoint import Answer, Endpoint
from ..schemas import ref


async def create(call: Call) -> Response:
    ticket = call.gateway.access.tickets.issue(call.principal)
    body = {
        "ticket": ticket,
        "expires_at": format_time(int((time.time() + limits.TICKET_S) * 1e6)),
        "expires_in_s": limits.TICKET_S,
    }
    return json_answer(body, 201, {"cache-control": "no-store"})


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/tickets", create, "read",
        "Request a ticket, with which a browser opens one stream or WebSocket: ?ticket=.", "tickets",
        {201: Answer("The ticket, which works once.", ref("Ticket"))},
    ),
)  # fmt: skip
