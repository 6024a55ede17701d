"""All endpoints of the gateway, by path."""

from __future__ import annotations

from typing import Final

from .endpoint import Endpoint, SocketEndpoint
from .routes import events, health, libraries, search, tickets

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *health.ENDPOINTS,
    *libraries.ENDPOINTS,
    *search.ENDPOINTS,
    *events.ENDPOINTS,
    *tickets.ENDPOINTS,
)

SOCKETS: Final[tuple[SocketEndpoint, ...]] = ()
