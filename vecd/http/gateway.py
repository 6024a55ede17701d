"""What all requests of the gateway share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..settings import Settings
from .access import Access
from .endpoint import Endpoint
from .metrics import Metrics
from .settings import HttpSettings

if TYPE_CHECKING:
    from .daemon_pool import DaemonPool
    from .fan_out import FanOut


@dataclass(slots=True)
class Gateway:
    """One process of `vec serve`."""

    settings: Settings  # of the instance: where the daemon is
    http: HttpSettings
    pool: DaemonPool
    fan_out: FanOut
    access: Access
    endpoints: tuple[Endpoint, ...] = ()  # all of them, for an endpoint that describes the others
    metrics: Metrics = field(default_factory=Metrics)
    #: Set when the gateway begins to stop: streams send their last event and end.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
