"""Runs a process of connectors while there are any: `python -m vecd.connectors`, or `vecd.sync`; a child of the
daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from . import limits
from .child_process import ChildProcess
from .settings import Settings


class ConnectorProcess:
    """Starts the child when there is a connector, and stops it when there is none. Runs on the event loop."""

    def __init__(self, what: str, module: str, settings: Settings, log_file: Path | None) -> None:
        """`what` is its name in the log; it runs `python -m <module>`."""
        self._what = what
        self._module = module
        self._settings = settings
        self._log_file = log_file
        self._child: ChildProcess | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """None if it does not run."""
        return self._child.pid if self._child is not None else None

    def keep(self, wanted: bool) -> None:
        """Whether it is to run from now on."""
        if wanted and self._child is None and not self._stopped:
            self._child = ChildProcess(
                self._what,
                self._module,
                self._settings,
                self._log_file,
                stop_s=limits.CONNECTORS_STOP_S,
            )
            self._child.start()
        elif not wanted and self._child is not None:
            child, self._child = self._child, None
            task = asyncio.get_running_loop().create_task(child.stop())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def reopen_log(self) -> None:
        if self._child is not None:
            self._child.reopen_log()

    async def stop(self) -> None:
        """Stops it, and starts it no more."""
        self._stopped = True
        self.keep(False)
        await asyncio.gather(*self._ending)
