"""Parses durations and sizes (`90s`, `7d`; `64KB`, `1.5GiB`), and formats times."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache

from .errors import Code, VecError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_DURATION_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def duration_s(text: str) -> float:
    """Parses a duration; returns seconds. Raises VecError `invalid_request`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise VecError(
            Code.INVALID_REQUEST, f"{text!r:.40} is not a duration", "use a number and s, m, h, d or w, as 7d"
        )
    return min(float(match[1]), 1e9) * _DURATION_S[match[2]]


def size_bytes(text: str) -> int:
    """Parses a size; returns bytes. KB, MB … are powers of 1,000, KiB, MiB … of 1,024. Raises VecError
    `invalid_request`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{text!r:.40} is not a size",
            "use a number of bytes, or a number and a unit, as 500MB or 2GiB",
        )
    base = 1_024 if match[3] else 1_000
    return int(min(float(match[1]), 1e15) * base ** (_POWERS[match[2].lower()] if match[2] else 0))


def size_text(count: int) -> str:
    """A number of bytes with a binary unit, as "1.5 MiB"."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


@lru_cache(1_024)  # the events of one transaction have the same time
def format_time(time_us: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-23T19:10:31.123456Z`."""
    at = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"
