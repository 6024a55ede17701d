"""The two clocks of jobs, wall and steady, in microseconds.

- `wall_us` is the time of day. People and the store use it; it may be set forward or back at any moment.
- `steady_us` only ever grows, and counts the time that the machine sleeps where the system can. Delays and pauses
  between attempts are measured with it.

The store keeps due times by the wall clock, because only that one outlasts the daemon. Memory keeps them by the steady
clock; when the wall clock is set, the daemon writes the due times again (scheduler.py).
"""

from __future__ import annotations

import time
from typing import Final

_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_us() -> int:
    """The time of day: microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def steady_us() -> int:
    """Microseconds since some fixed moment."""
    return time.clock_gettime_ns(_STEADY) // 1000
