"""All endpoints of the gateway, by path."""

from __future__ import annotations

from typing import Final

from . import pages, websocket
from .endpoint import Endpoint, SocketEndpoint
from .routes import (
    consumers,
    documents,
    events,
    health,
    ingest,
    instance,
    jobs,
    libraries,
    relays,
    schedules,
    search,
    sources,
    tickets,
)

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *health.ENDPOINTS,
    *libraries.ENDPOINTS,
    *ingest.ENDPOINTS,
    *documents.ENDPOINTS,
    *search.ENDPOINTS,
    *events.ENDPOINTS,
    *consumers.ENDPOINTS,
    *jobs.ENDPOINTS,
    *schedules.ENDPOINTS,
    *relays.ENDPOINTS,
    *sources.ENDPOINTS,
    *instance.ENDPOINTS,
    *tickets.ENDPOINTS,
    *pages.ENDPOINTS,
)

SOCKETS: Final[tuple[SocketEndpoint, ...]] = websocket.ENDPOINTS
