"""When a schedule's jobs are due: cron lines, time zones, missed times. Pure: the time is told to it.

The lines and their meaning are Debian cron's, read by cronsim. A time that a change to summer time leaves out is due
when the clock has been put forward; one that comes twice in autumn is due once. (Lines with `*` for minutes or hours go
by elapsed time.)

What was due longer ago than LATE_S has been missed: the daemon did not run, or the clock was put forward. `skip` leaves
it, `once` makes one of all that was missed, `all` makes every one of them. When the clock is put back by less than
BACK_S, what was due already is not due again; by more, the clock is believed, and counting begins anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .. import limits
from ..errors import Code, VecError
from ..store.schedules import Schedule

MISSED: Final = ("skip", "once", "all")

LATE_S: Final = 60
BACK_S: Final = 3 * 3_600

_SHORT: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Due:
    """How many jobs a schedule is to submit now, and up to when (inclusive) its times have then been dealt with."""

    count: int
    last_us: int


def check(cron: str, zone: str, missed: str) -> None:
    """Raises VecError `invalid_request`, saying what cannot be read."""
    if missed not in MISSED:
        raise VecError(
            Code.INVALID_REQUEST, f"missed times are treated as {', '.join(MISSED)}, not {missed!r:.40}", field="missed"
        )
    try:
        if zone:
            ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise VecError(
            Code.INVALID_REQUEST,
            f"there is no time zone {zone!r:.60}",
            "zones are named as Europe/Berlin; the system's tzdata has them",
            field="zone",
        ) from error
    try:
        next(iter(_times(cron, zone, 0)))
    except CronSimError as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{cron!r:.80} is no cron line: {error}",
            "five fields: minute hour day-of-month month day-of-week, as in '0 3 * * *'; or @daily and the like",
            field="cron",
        ) from error
    except StopIteration:
        raise VecError(Code.INVALID_REQUEST, f"{cron!r:.80} is never due", field="cron") from None


def due(schedule: Schedule, now_us: int) -> Due:
    """What is due since the last time that was dealt with."""
    last_us = schedule.last_us
    if last_us > now_us + BACK_S * 1_000_000:
        return Due(0, now_us)
    recent_us = max(last_us, now_us - LATE_S * 1_000_000)
    recent = sum(1 for _ in _until(schedule, recent_us, now_us, limits.SCHEDULE_MISSED_MAX))
    missed = 0
    if schedule.missed != "skip" and last_us < recent_us:
        bound = 1 if schedule.missed == "once" else limits.SCHEDULE_MISSED_MAX
        missed = sum(1 for _ in _until(schedule, last_us, recent_us, bound))
    count = recent + missed if schedule.missed == "all" else min(1, recent + missed)
    return Due(min(count, limits.SCHEDULE_MISSED_MAX), max(last_us, now_us))


def following_us(schedule: Schedule, after_us: int) -> int | None:
    """The first time behind `after_us` (exclusive) that it is due; None if it never is."""
    return next(_times(schedule.cron, schedule.zone, after_us), None)


def _until(schedule: Schedule, after_us: int, stop_us: int, count: int) -> Iterator[int]:
    """Up to `count` times behind `after_us` (exclusive), not past `stop_us` (inclusive)."""
    for number, moment_us in enumerate(_times(schedule.cron, schedule.zone, after_us)):
        if moment_us > stop_us or number == count:
            return
        yield moment_us


def _times(cron: str, zone: str, after_us: int) -> Iterator[int]:
    """Raises CronSimError."""
    after = datetime.fromtimestamp(after_us // 1_000_000, ZoneInfo(zone) if zone else local_zone())
    for moment in CronSim(_SHORT.get(cron.strip().lower(), cron), after):
        yield int(moment.timestamp()) * 1_000_000


def local_zone() -> tzinfo:
    """The machine's time zone, with its rules for summer time; UTC if it cannot be told."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        try:
            _, _, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
        except OSError:
            name = ""
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):
        return UTC
