"""Keeps a child process of the daemon running: the HTTP gateway, and the process of the connectors.

Rules: a child is a process of its own, and a client of the daemon's socket. When it ends, it is started again, after a
pause that grows while it fails. It ends with the daemon, also with one that is killed: it holds the read end of a pipe
whose write end only the daemon has (its lifeline). At a stop of the daemon it is stopped first, so that it can finish
what it is at.
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
from typing import Final

from .backoff import pause_s
from .process import environment_for_daemon
from .settings import Settings

log = logging.getLogger("vecd.child")

#: The pause after a first failure, and the longest; a child that ran for STEADY_S has not failed before.
_FIRST_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 30.0
_STEADY_S: Final = 60.0
_READY_BYTES_MAX: Final = 64 * 1024


class ChildProcess:
    """One child, which runs `python -m <module>`. All of it runs on the event loop."""

    def __init__(self, what: str, module: str, settings: Settings, log_file: Path | None, *, stop_s: float) -> None:
        """`what` is its name in the log; `log_file` where the daemon logs, and the child too (None: stderr); `stop_s`
        how long it may take to stop."""
        self._what = what
        self._module = module
        self._settings = settings
        self._log_file = log_file
        self._stop_s = stop_s
        self._process: asyncio.subprocess.Process | None = None
        self._said: list[str] = []  # the lines that it wrote when it was ready
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    @property
    def pid(self) -> int | None:
        """None if it does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def said(self) -> list[str]:
        """The lines that it wrote when it was ready; none before."""
        return list(self._said)

    def reopen_log(self) -> None:
        self._signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Stops it with SIGTERM, and after its bound with SIGKILL."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._keeping is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stop_s):
                await asyncio.shield(self._keeping)
        if not self._keeping.done():
            log.warning(f"{self._what} did not stop", extra={"bound_s": self._stop_s})
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
            log.warning(f"{self._what} ended", extra={"status": status, "restart_s": round(rest_s, 3)})
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
                    start_new_session=True,  # a Ctrl-C at a terminal reaches the daemon only, which stops the child
                )
            finally:
                os.close(lifeline)
                os.close(said)
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            loop = asyncio.get_running_loop()
            loop.add_reader(ready, self._take_lines, ready, bytearray())
            try:
                return await self._process.wait()
            finally:
                loop.remove_reader(ready)
        finally:
            self._process, self._said = None, []
            os.close(ours)
            os.close(ready)

    def _take_lines(self, ready: int, said: bytearray) -> None:
        """Reads what it says of itself; the pipe ends when it is ready."""
        piece = os.read(ready, 4_096)
        said += piece
        if not piece or len(said) > _READY_BYTES_MAX:
            asyncio.get_running_loop().remove_reader(ready)
            self._said = said.decode("utf-8", "replace").split("\n")[:-1]

    def _command(self, lifeline: int, ready: int) -> list[str]:
        command = [sys.executable, "-P", "-m", self._module]
        command += ["--socket", str(self._settings.socket)]
        command += ["--lifeline-fd", str(lifeline), "--ready-fd", str(ready), "--no-spawn"]
        return [*command, "--log-file", str(self._log_file)] if self._log_file is not None else command
