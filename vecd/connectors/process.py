"""A process of connectors: follows the definitions, runs a thread for each connector, reports their states.

The main thread follows `connectors.watch`. A connector whose definition has changed is stopped, and started again when
its thread has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import backoff, limits
from ..client import Client, connect
from ..errors import VecError
from ..settings import Settings
from . import definition as definitions
from .definition import Definition
from .runner import Connect, Runner
from .status import Status
from .stopping import Stopping

log = logging.getLogger("vecd.connectors")

#: Pauses between attempts to reach the daemon.
_PAUSE_S, _PAUSE_S_MAX = 0.1, 2.0

#: Makes the runner of a definition.
MakeRunner = Callable[[Any, Connect, Status, Stopping], Runner]


class _Running:
    """A connector's thread."""

    def __init__(self, definition: Definition, connect: Connect, make: MakeRunner) -> None:
        self.definition = definition
        self.status = Status({definition.direction: definition.name})
        self.stop = Stopping()
        self.runner = make(definition, connect, self.status, self.stop)
        name = f"{definition.direction}-{definition.name}"
        self.thread = threading.Thread(target=self.runner.run, name=name, daemon=True)
        self.thread.start()

    def report(self) -> dict[str, Any]:
        about = self.definition
        return {
            "direction": about.direction, "name": about.name, "generation": about.generation, **self.status.report()
        }  # fmt: skip


class ConnectorsProcess:
    """All connectors of an instance that have these directions. `run` it on the main thread."""

    def __init__(self, settings: Settings, stop: Stopping, runners: Mapping[str, MakeRunner]) -> None:
        self._runners = runners
        self._settings = settings
        self._stop = stop
        self._running: dict[tuple[str, str], _Running] = {}
        self._wanted: dict[tuple[str, str], tuple[Definition, int]] = {}

    def run(self) -> None:
        """Returns when `stop` is set, and the connectors have stopped."""
        failures = 0
        while not self._stop.is_set():
            try:
                with self._connect() as client:
                    failures = 0
                    self._follow(client)
            except VecError as error:
                failures += 1
                log.warning("cannot follow the definitions", extra={"error": str(error)})
                self._stop.wait(backoff.pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
        self._wanted = {}
        self._end(self._running.values(), limits.CONNECTORS_STOP_S - 1)

    def _connect(self) -> Client:
        return connect(str(self._settings.socket), spawn=False, timeout_s=limits.STALL_S)

    def _follow(self, client: Client) -> None:
        pending = client.watch_connectors(list(self._runners))
        reported_at = 0.0
        while not self._stop.is_set():
            while pending.ready:
                reply = pending.next()
                if reply is None or reply.kind != "items":
                    return
                self._wanted = {}
                for each in reply.body:
                    wanted = definitions.from_wire(each)
                    if not wanted.paused and wanted.runs:
                        self._wanted[wanted.direction, wanted.name] = wanted, int(each.get("retrying", 0))
                self._reconcile()
            if any(not each.thread.is_alive() for each in self._running.values()):
                self._reconcile()
            now = time.monotonic()
            if now - reported_at >= limits.CONNECTORS_REPORT_S:
                client.report_connectors([each.report() for each in self._running.values()])
                reported_at = now
            if not pending.ready:
                self._stop.wait_with(client, limits.CONNECTORS_REPORT_S / 2)

    def _reconcile(self) -> None:
        """Stops what is no longer wanted, and starts what is wanted and does not run yet."""
        for key, running in list(self._running.items()):
            if self._wanted.get(key, (None, 0))[0] != running.definition:
                running.stop.set()
            if not running.thread.is_alive():
                running.stop.close()
                del self._running[key]
        for key, (wanted, retrying) in self._wanted.items():
            if key in self._running:
                if retrying:
                    self._running[key].runner.retry()
            else:
                log.info("connector started", extra={wanted.direction: wanted.name, "url": wanted.url})
                self._running[key] = _Running(wanted, self._connect, self._runners[wanted.direction])

    def _end(self, running: Any, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        for each in running:
            each.stop.set()
        for each in running:
            each.thread.join(max(0.0, until - time.monotonic()))
            if each.thread.is_alive():
                log.warning("a connector did not stop", extra={each.definition.direction: each.definition.name})
