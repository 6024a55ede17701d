"""What a connector says of itself: its state, its error, how much it moves. Written by its thread, read by the process,
which reports it to the daemon.

An error is shown until the connector has worked for _SETTLED_S without another one. The log has one line when it begins
to fail, one when the kind of error changes, and one when it works again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal

from ..errors import VecError
from ..units import format_time

log = logging.getLogger("vecd.connectors")

#: starting: connecting for the first time; running; retrying: the broker is away; failing: an error that a person has
#: to remove, and a slow retry.
State = Literal["starting", "running", "retrying", "failing"]

#: The time over which the rate is measured.
_RATE_S: Final = 5.0
#: How long a connector works before its error counts as over. Some errors come after the connection, at once.
_SETTLED_S: Final = 1.0


class Status:
    """Of one generation of a connector."""

    def __init__(self, about: Mapping[str, str] | None = None) -> None:
        """`about` names the connector in the log."""
        self._about = dict(about or {})
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._error: dict[str, Any] | None = None
        self._error_at: str | None = None
        self._failures = 0  # since it last worked
        self._failing_since = 0.0
        self._works_since: float | None = None  # None: it has failed since
        self._delivered = 0
        self._moves: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self.lag: int | None = None  # of a source, as its broker says; of a sync, files
        self.warning: str | None = None  # it works, but not as well as it could: what to do

    def moved(self, count: int) -> None:
        """Counts messages that were confirmed, or applied."""
        with self._lock:
            now = time.monotonic()
            self._works(now)
            self._delivered += count
            if now - self._moves[-1][0] > 0.1:
                self._moves.append((now, self._delivered))

    def connected(self) -> None:
        """It works, and has nothing to do."""
        with self._lock:
            self._works(time.monotonic())

    def failed(self, state: State, error: VecError, pause_s: float | None = None) -> None:
        """An attempt failed; the next one follows after `pause_s` seconds, if they are known."""
        with self._lock:
            new = self._error is None or (self._state, self._error["code"]) != (state, error.code)
            if self._error is None:
                self._failures, self._failing_since = 0, time.monotonic()
            self._failures += 1
            self._state, self._error = state, {**error.to_wire(), "attempts": self._failures}
            self._error_at = format_time(time.time_ns() // 1000)
            self._works_since = None
            about = {**self._about, "error": str(error), "attempts": self._failures}
            if pause_s is not None:
                about["pause_s"] = round(pause_s, 3)
        log.log(
            logging.WARNING if new else logging.DEBUG,
            "a connector is failing" if state == "failing" else "a connector is retrying",
            extra=about,
        )

    def _works(self, now: float) -> None:
        """It is running, from the first time on if it has not failed. Call it with the lock."""
        if self._error is None:
            self._state = "running"
            return
        if self._works_since is None:
            self._works_since = now
        if now - self._works_since < _SETTLED_S:
            return
        log.info(
            "a connector works again",
            extra={
                **self._about, "attempts": self._failures, "failed_s": round(self._works_since - self._failing_since, 3)
            },
        )  # fmt: skip
        self._state, self._error, self._error_at, self._works_since = "running", None, None, None

    def report(self) -> dict[str, Any]:
        with self._lock:
            now = time.monotonic()
            if self._works_since is not None:
                self._works(now)
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
                "warning": self.warning,
            }
