"""A periodic task: a coroutine that the daemon calls repeatedly, for work that is not a job.

The scheduler, the retention of the log and the expiry of leases use it. A schedule (scheduler.py) is for users: its
jobs are in the log and in `vec jobs list`, which tasks that run every few seconds would fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from ..errors import Code, VecError

log = logging.getLogger("vecd.periodic")


class Periodic:
    """Lives on the event loop. `work` returns the seconds until the next call; None: until it is woken.

    An error of `work` is logged, and it is called again after `error_pause_s`. The task ends when the store has failed
    or is closed."""

    def __init__(self, name: str, work: Callable[[], Awaitable[float | None]], error_pause_s: float) -> None:
        self._name = name
        self._work = work
        self._error_pause_s = error_pause_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """Calls the work soon."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()  # before the work reads state
            pause_s: float | None = self._error_pause_s
            try:
                pause_s = await self._work()
            except VecError as error:
                if error.code in (Code.STORAGE_FAILED, Code.SHUTTING_DOWN):
                    return
                log.error("periodic task failed", extra={"task": self._name, "error": str(error)})
            except Exception:
                log.error("periodic task failed", exc_info=True, extra={"task": self._name})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause_s)
