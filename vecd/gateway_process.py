"""Keeps the HTTP gateway running as a child of the daemon, if the configuration has `listen` in the table [http].

Rules: the gateway is a process of its own, and a client of the daemon's socket. When it ends, it is started again,
after a pause that grows while it fails. It ends with the daemon, also with one that is killed: it holds the read end of
a pipe whose write end only the daemon has. At a stop of the daemon it is stopped first, so that it can answer what it
has been asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from . import limits
from .backoff import pause_s
from .process import environment_for_daemon
from .settings import Settings

log = logging.getLogger("vecd.gateway")

#: The pause after a first failure, and the longest; a gateway that ran for STEADY_S has not failed before.
_FIRST_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 30.0
_STEADY_S: Final = 60.0
_READY_BYTES_MAX: Final = 64 * 1024


class GatewayProcess:
    """The gateway of one daemon. All of it runs on the event loop."""

    def __init__(self, settings: Settings, log_file: Path | None) -> None:
        """`log_file`: where the daemon logs, and the gateway too; None: stderr."""
        self._settings = settings
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None
        self._listen: list[str] = []  # the URLs, while it is ready
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    def status(self) -> dict[str, Any]:
        """`{"pid", "listen"}`: the process, null if it does not run, and the URLs, none before it is ready."""
        return {"pid": self._process.pid if self._process is not None else None, "listen": list(self._listen)}

    def reopen_log(self) -> None:
        self._signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Stops it with SIGTERM, and after its bound with SIGKILL."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._keeping is None:
            return
        bound_s = self._settings.drain_s + 2 * limits.HTTP_CLOSE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await asyncio.shield(self._keeping)
        if not self._keeping.done():
            log.warning("the gateway did not stop", extra={"bound_s": bound_s})
            self._signal(signal.SIGKILL)
            await self._keeping

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                status: int | str = await self._run()
            except OSError as error:  # no memory, no process
                status = str(error)
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - began > _STEADY_S else failures + 1
            # At least half of the bound: the reason why it ended seldom goes away at once.
            rest_s = pause_s(failures, _FIRST_PAUSE_S, _PAUSE_S_MAX) / 2 + _FIRST_PAUSE_S / 2
            log.warning("the gateway ended", extra={"status": status, "restart_s": round(rest_s, 3)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._stopping.wait()

    async def _run(self) -> int:
        """Runs it to its end; returns its exit status."""
        lifeline, ours = os.pipe()
        ready, said = os.pipe()
        try:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(lifeline, said),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(lifeline, said),
                    env=environment_for_daemon(os.environ),
                    start_new_session=True,  # a Ctrl-C at a terminal reaches the daemon only, which stops the gateway
                )
            finally:
                os.close(lifeline)
                os.close(said)
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            loop = asyncio.get_running_loop()
            loop.add_reader(ready, self._take_urls, ready, bytearray())
            try:
                return await self._process.wait()
            finally:
                loop.remove_reader(ready)
        finally:
            self._process, self._listen = None, []
            os.close(ours)
            os.close(ready)

    def _take_urls(self, ready: int, said: bytearray) -> None:
        """Reads the URLs, a line each; the pipe ends when the gateway is ready."""
        piece = os.read(ready, 4_096)
        said += piece
        if not piece or len(said) > _READY_BYTES_MAX:
            asyncio.get_running_loop().remove_reader(ready)
            self._listen = said.decode("utf-8", "replace").split("\n")[:-1]

    def _command(self, lifeline: int, ready: int) -> list[str]:
        command = [sys.executable, "-P", "-m", "vecd.http", "--no-spawn"]
        command += ["--socket", str(self._settings.socket)]
        command += ["--lifeline-fd", str(lifeline), "--ready-fd", str(ready)]
        return [*command, "--log-file", str(self._log_file)] if self._log_file is not None else command
