"""What a connector says of itself: its state, its last error, how much it moves. Written by its thread, read by the
process, which reports it to the daemon."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Final, Literal

from ..errors import VecError
from ..units import format_time

#: starting: connecting for the first time; running; retrying: the broker is away; failing: an error that a person has
#: to remove, and a slow retry.
State = Literal["starting", "running", "retrying", "failing"]

#: The time over which the rate is measured.
_RATE_S: Final = 5.0


class Status:
    """Of one generation of a connector."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._error: dict[str, Any] | None = None
        self._error_at: str | None = None
        self._delivered = 0
        self._moves: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self.lag: int | None = None  # of a source, as its broker says

    def moved(self, count: int) -> None:
        """So many messages were confirmed, or applied."""
        with self._lock:
            self._state = "running"
            self._delivered += count
            now = time.monotonic()
            if now - self._moves[-1][0] > 0.1:
                self._moves.append((now, self._delivered))

    def connected(self) -> None:
        """It works, and has nothing to do."""
        with self._lock:
            self._state = "running"

    def failed(self, state: State, error: VecError) -> None:
        with self._lock:
            self._state, self._error = state, error.to_wire()
            self._error_at = format_time(time.time_ns() // 1000)

    def report(self) -> dict[str, Any]:
        with self._lock:
            now = time.monotonic()
            while len(self._moves) > 1 and now - self._moves[1][0] > _RATE_S:
                self._moves.popleft()
            since, before = self._moves[0]
            return {
                "state": self._state,
                "error": self._error,
                "error_at": self._error_at,
                "delivered": self._delivered,
                "rate": round((self._delivered - before) / max(now - since, 1.0), 1),
                "lag": self.lag,
            }
