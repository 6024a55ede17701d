"""What all requests of the gateway share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..settings import Settings
from .access import Access
from .endpoint import Endpoint
from .metrics import Metrics
from .settings import HttpSettings

if TYPE_CHECKING:
    from .daemon_pool import DaemonPool
    from .fan_out import FanOut

T = TypeVar("T")


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

    async def until_stopping(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work; None if the gateway begins to stop first, which cancels the work."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            stopping.cancel()
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
