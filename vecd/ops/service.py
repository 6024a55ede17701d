"""Service: what all requests share: engine, jobs, scheduler, budget, and the daemon's shutdown. daemon.py makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..engine.engine import Engine
from ..jobs.jobs import Jobs
from ..jobs.scheduler import Scheduler
from .budget import Budget
from .connectors import Connectors
from .syncs import Syncs


class Service:
    """One daemon, as requests of all transports see it."""

    def __init__(
        self, jobs: Jobs, scheduler: Scheduler, stop: Callable[[], None], about: Mapping[str, str] | None = None
    ) -> None:
        """`stop` begins the daemon's shutdown. `about` is added to the answer of each hello."""
        self.engine: Engine = jobs.engine
        self.jobs = jobs
        self.scheduler = scheduler
        self.stop = stop
        self.about = dict(about or {})
        #: The status of the gateway that the daemon runs; None if it runs none.
        self.gateway_status: Callable[[], dict[str, Any] | None] = lambda: None
        self.connectors = Connectors(self.engine)
        self.syncs = Syncs(self.engine, self.connectors)
        self.budget = Budget()
        self.connections = 0  # open, over all transports, which count them here
