"""When a schedule's jobs are due: cron lines, time zones, missed times. Pure: the time is an argument.

The lines and their meaning are Debian cron's. cronsim reads them and walks the calendar; how its local times lie in
time is decided here. A line that names its minutes and hours goes by the wall clock: a time that a change of the clock
leaves out is due when the clock has been put forward, one that comes twice is due the first time. A line with `*` for
minutes or hours goes by elapsed time: every matching minute that is lived through is due.

What was due longer ago than LATE_S has been missed: the daemon did not run, or the clock was put forward. `skip` leaves
it, `once` makes one of all that was missed, `all` makes every one of them. When the clock is put back by less than
BACK_S, what was due already is not due again, but a line that goes by elapsed time goes on; by more, the clock is
believed, and counting begins again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

from .. import limits
from ..errors import Code, VecError
from ..store.schedules import Schedule
from . import timezones

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

#: A range of one value, with a step.
_ONE_VALUE: Final = re.compile(r"0*([0-9]{1,2}|[A-Za-z]{3})-0*\1/0*[1-9][0-9]{0,3}", re.IGNORECASE)
_STRIDE: Final = timedelta(hours=6)


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
        next(_times(cron, zone, 0))
    except StopIteration:
        raise VecError(Code.INVALID_REQUEST, f"{cron!r:.80} is never due", field="cron") from None


def put_back(schedule: Schedule, now_us: int) -> bool:
    """Whether the clock was put back, and the schedule's times are to be counted from `now_us` on."""
    ahead_us = schedule.last_us - now_us
    return ahead_us > (LATE_S if by_elapsed_time(schedule.cron) else BACK_S) * 1_000_000


def by_elapsed_time(cron: str) -> bool:
    """Whether a line has `*` for its minutes or hours, as `*/10 * * * *`."""
    return any(field.startswith("*") for field in _line(cron).split()[:2])


def due(schedule: Schedule, now_us: int) -> Due:
    """What is due since the last time that was dealt with."""
    last_us = schedule.last_us
    if put_back(schedule, now_us):
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
    """Raises VecError `invalid_request` for a line or a zone that cannot be read."""
    tz = timezones.named(zone) if zone else timezones.local()
    walk = _elapsed if by_elapsed_time(cron) else _by_the_clock
    try:
        for moment in walk(_line(cron), datetime.fromtimestamp(after_us // 1_000_000, UTC), tz):
            yield int(moment.timestamp()) * 1_000_000
    except (CronSimError, ValueError) as error:  # ValueError: thousands of digits
        raise VecError(
            Code.INVALID_REQUEST,
            f"{cron!r:.80} is not a cron expression: {error!s:.80}",
            "five fields: minute hour day-of-month month day-of-week, as in '0 3 * * *'; or @daily and the like",
            field="cron",
        ) from error


def _line(cron: str) -> str:
    """Five fields, as cronsim is to read them. Raises VecError `invalid_request`."""
    fields = _SHORT.get(cron.strip().lower(), cron).split()
    if len(fields) in (6, 7):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{cron!r:.80} has {len(fields)} fields; a cron expression has five",
            "remove a first field for seconds, and a seventh field for years",
            field="cron",
        )
    if len(fields) != 5:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{cron!r:.80} is not a cron expression: it has {len(fields)} fields",
            "five fields: minute hour day-of-month month day-of-week, as in '0 3 * * *'; or @daily and the like",
            field="cron",
        )
    # cronsim takes a range of one value with a step, 12-12/3, for 12/3, which means 12-31/3.
    return " ".join(",".join(_ONE_VALUE.sub(r"\1", term) for term in field.split(",")) for field in fields)


def _by_the_clock(line: str, after: datetime, tz: tzinfo) -> Iterator[datetime]:
    """The moments behind `after` (exclusive, UTC) of a line that names its minutes and hours. In UTC, ascending."""
    last = after
    for local in CronSim(line, after.astimezone(tz).replace(tzinfo=None)):
        moment = _moment(local, tz)
        if moment > last:  # several times that the clock leaves out are one moment
            yield moment
            last = moment


def _moment(local: datetime, tz: tzinfo) -> datetime:
    """When the clock shows a local time first, or has been put forward past it. In UTC."""
    moment = local.replace(tzinfo=tz).astimezone(UTC)
    if moment.astimezone(tz).replace(tzinfo=None) == local:
        return moment
    earlier = local.replace(tzinfo=tz, fold=1).astimezone(UTC)  # with the offset behind the change: before the change
    return _change(earlier, moment, tz) or moment


def _elapsed(line: str, after: datetime, tz: tzinfo) -> Iterator[datetime]:
    """The same of a line with `*` for minutes or hours: walks from change to change of the zone's offset."""
    last, start = after, after
    while True:
        offset = last.astimezone(tz).utcoffset() or timedelta()
        for local in CronSim(line, (start + offset).replace(tzinfo=None)):
            moment = (local - offset).replace(tzinfo=UTC)
            change = _change(last, moment, tz)
            if change is not None:
                break
            yield moment
            last = moment
        else:
            return
        last, start = change, change - timedelta(seconds=1)  # the moment of the change may be due


def _change(low: datetime, high: datetime, tz: tzinfo) -> datetime | None:
    """The first moment behind `low` (exclusive), not past `high` (inclusive), with another offset than `low`; None if
    there is none. To the second. (No zone changes its offset twice within the hours of a stride.)"""
    offset = low.astimezone(tz).utcoffset()
    while low < high:
        middle = min(high, low + _STRIDE)
        if middle.astimezone(tz).utcoffset() != offset:
            high = middle
            break
        low = middle
    else:
        return None
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
        if middle.astimezone(tz).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high
