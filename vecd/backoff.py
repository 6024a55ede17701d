"""Exponential back-off with full jitter, so that clients that failed together do not retry together.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import random


def pause_s(failures: int, first_s: float, max_s: float) -> float:
    """Seconds to wait after `failures` in a row (from 1): a random part of a bound that begins with `first_s`,
    doubles with each failure, and is `max_s` at most."""
    return random.uniform(0.0, min(max_s, first_s * 2.0 ** min(failures - 1, 64)))
