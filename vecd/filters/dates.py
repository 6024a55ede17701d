"""Dates in filters: dates and times of RFC 3339, compared as points in time, whatever their form and offset.

`2026-11-28` in a filter is the whole day: `> 2026-11-28` is after its end, and `<= 2026-11-28` includes it. A time
without an offset is UTC, and a stored date is its first moment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?P<time>[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000

#: The instant of a string that is no date.
NO_DATE: Final = -(2**63)


class Period(NamedTuple):
    """From `start_us` (inclusive) to `end_us` (exclusive), in microseconds since 1970."""

    start_us: int
    end_us: int


def period(text: str) -> Period | None:
    """The day, or the microsecond, that a text names; None if it is no date."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:  # such as the 30th of February
        return None
    start_us = (found.replace(tzinfo=found.tzinfo or UTC) - _EPOCH) // _MICROSECOND
    return Period(start_us, start_us + (1 if match["time"] else _DAY_US))


def instant_us(text: str) -> int:
    """The point in time that a stored string is, in microseconds since 1970; NO_DATE if it is none."""
    found = period(text)
    return NO_DATE if found is None else found.start_us
