"""An event loop on a thread of its own: for clients that are asyncio, called from a connector's thread, which blocks.

The loop runs between the calls too, so heartbeats are answered and a lost connection is noticed at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ..delivery import AttemptFailed, Stop

T = TypeVar("T")

#: How often a call looks whether it is to stop, in seconds.
_LOOK_S: Final = 0.25
#: How long the tasks of a loop may take to end, in seconds.
_END_S: Final = 2.0


class LoopThread:
    """Runs coroutines, one call at a time, until it is closed."""

    def __init__(self, name: str, stop: Stop) -> None:
        """`name` is the thread's; `stop` ends the waits."""
        self._stop = stop
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None, what: str) -> T:
        """The coroutine's result. `what` says what it does, for messages: "publishing".

        Raises what the coroutine raises, and AttemptFailed if it takes longer than `timeout_s` (None: the coroutine has
        bounds of its own) or the connector is to stop: the coroutine is cancelled then.
        """
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        while True:
            left_s = deadline - time.monotonic()
            try:
                return future.result(max(0.0, min(left_s, _LOOK_S)))
            except concurrent.futures.TimeoutError:
                if future.done():  # it has ended just now, or the error is the coroutine's own
                    return future.result()
            except concurrent.futures.CancelledError as error:
                raise AttemptFailed(f"{what} was interrupted", unreachable=True) from error
            if self._stop.is_set() or left_s <= 0:
                future.cancel()
                why = "was interrupted: the connector stops" if left_s > 0 else f"took longer than {timeout_s:g} s"
                raise AttemptFailed(f"{what} {why}", unreachable=True)

    def close(self) -> None:
        """Cancels what still runs, and ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2 * _END_S)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
