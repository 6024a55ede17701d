"""The wall clock and the steady clock of jobs, in microseconds.

- `wall_us` is the time of day. Users and the store use it; it may be set forward or back at any time.
- `steady_us` is monotonic, and includes the time that the machine sleeps, where the system supports it. Delays and
  retry pauses are measured with it.

The store has due times by the wall clock, because only this clock survives a restart. Memory has them by the steady
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
    """Microseconds since an arbitrary fixed moment."""
    return time.clock_gettime_ns(_STEADY) // 1000
