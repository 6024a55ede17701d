"""Computes when a schedule is due: cron expressions, time zones, missed times. Pure: the time is an argument.

The syntax and semantics are those of Debian's cron. cronsim parses expressions and iterates over local times; this
module maps local times to UTC. An expression with fixed minutes and hours follows the wall clock: a time that a DST
change skips is due right after the change, and a time that occurs twice is due the first time. An expression with `*`
for minutes or hours follows elapsed time: it is due at every matching minute.

A time is missed if it was due more than LATE_S ago: the daemon was not running, or the clock was set forward. `skip`
drops missed times, `once` submits one job for all of them, `all` one job for each. If the clock is set back by less
than BACK_S, no time is due again, but expressions that follow elapsed time continue; if by more, due times are counted
from the new time.
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
    """The number of jobs that a schedule must submit now, and up to when (inclusive) its times are then handled."""

    count: int
    last_us: int


def check(cron: str, zone: str, missed: str) -> None:
    """Validates a schedule. Raises VecError `invalid_request`."""
    if missed not in MISSED:
        raise VecError(
            Code.INVALID_REQUEST, f"missed times are treated as {', '.join(MISSED)}, not {missed!r:.40}", field="missed"
        )
    try:
        next(_times(cron, zone, 0))
    except StopIteration:
        raise VecError(Code.INVALID_REQUEST, f"{cron!r:.80} is never due", field="cron") from None


def clock_set_back(schedule: Schedule, now_us: int) -> bool:
    """Whether the clock was set back so far that the schedule's times must be counted from `now_us`."""
    ahead_us = schedule.last_us - now_us
    return ahead_us > (LATE_S if by_elapsed_time(schedule.cron) else BACK_S) * 1_000_000


def by_elapsed_time(cron: str) -> bool:
    """Whether an expression has `*` for minutes or hours, as `*/10 * * * *`."""
    return any(field.startswith("*") for field in _fields(cron).split()[:2])


def due(schedule: Schedule, now_us: int) -> Due:
    """What has become due since the last handled time."""
    last_us = schedule.last_us
    if clock_set_back(schedule, now_us):
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
    """The first due time after `after_us` (exclusive); None if there is none."""
    return next(_times(schedule.cron, schedule.zone, after_us), None)


def _until(schedule: Schedule, after_us: int, stop_us: int, count: int) -> Iterator[int]:
    """Up to `count` due times after `after_us` (exclusive), up to `stop_us` (inclusive)."""
    for number, moment_us in enumerate(_times(schedule.cron, schedule.zone, after_us)):
        if moment_us > stop_us or number == count:
            return
        yield moment_us


def _times(cron: str, zone: str, after_us: int) -> Iterator[int]:
    """The due times after `after_us` (exclusive). Raises VecError `invalid_request` for an invalid expression or
    zone."""
    tz = timezones.named(zone) if zone else timezones.local()
    times = _elapsed_times if by_elapsed_time(cron) else _wall_clock_times
    try:
        for moment in times(_fields(cron), datetime.fromtimestamp(after_us // 1_000_000, UTC), tz):
            yield int(moment.timestamp()) * 1_000_000
    except (CronSimError, ValueError) as error:  # ValueError: too many digits
        raise VecError(
            Code.INVALID_REQUEST,
            f"{cron!r:.80} is not a cron expression: {error!s:.80}",
            "five fields: minute hour day-of-month month day-of-week, as in '0 3 * * *'; or @daily and the like",
            field="cron",
        ) from error


def _fields(cron: str) -> str:
    """The five fields of an expression, for cronsim. Raises VecError `invalid_request`."""
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
    # cronsim reads a range of one value with a step, 12-12/3, as 12/3, which means 12-31/3.
    return " ".join(",".join(_ONE_VALUE.sub(r"\1", term) for term in field.split(",")) for field in fields)


def _wall_clock_times(fields: str, after: datetime, tz: tzinfo) -> Iterator[datetime]:
    """The due times after `after` (exclusive, UTC) of an expression with fixed minutes and hours. In UTC, ascending."""
    last = after
    for local in CronSim(fields, after.astimezone(tz).replace(tzinfo=None)):
        moment = _moment(local, tz)
        if moment > last:  # several skipped times are due at the same moment
            yield moment
            last = moment


def _moment(local: datetime, tz: tzinfo) -> datetime:
    """The first moment of a local time, or the moment of the change that skips it. In UTC."""
    moment = local.replace(tzinfo=tz).astimezone(UTC)
    if moment.astimezone(tz).replace(tzinfo=None) == local:
        return moment
    earlier = local.replace(tzinfo=tz, fold=1).astimezone(UTC)  # with the offset after the change: before the change
    return _change(earlier, moment, tz) or moment


def _elapsed_times(fields: str, after: datetime, tz: tzinfo) -> Iterator[datetime]:
    """The same for an expression with `*` for minutes or hours: from change to change of the zone's offset."""
    last, start = after, after
    while True:
        offset = last.astimezone(tz).utcoffset() or timedelta()
        for local in CronSim(fields, (start + offset).replace(tzinfo=None)):
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
    """The first moment after `low` (exclusive), up to `high` (inclusive), with another offset than `low`; None if there
    is none. To the second. (No zone changes its offset twice within a stride.)"""
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
