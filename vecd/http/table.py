"""All endpoints of the gateway, by path."""

from __future__ import annotations

from typing import Final

from . import pages
from .endpoint import Endpoint, SocketEndpoint
from .routes import health, libraries, search, tickets

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *health.ENDPOINTS,
    *libraries.ENDPOINTS,
    *search.ENDPOINTS,
    *tickets.ENDPOINTS,
    *pages.ENDPOINTS,
)

SOCKETS: Final[tuple[SocketEndpoint, ...]] = ()
