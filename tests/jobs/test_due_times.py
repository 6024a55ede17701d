"""Cron lines in odd time zones, against an oracle that looks at every minute and knows no library of cron."""

from __future__ import annotations

import calendar
import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vecd.errors import VecError
from vecd.jobs import due_times
from vecd.store.schedules import Schedule

#: A zone, and the day before a change of its clock (at 00:00 UTC); DAYS days are looked at.
CHANGES = [
    ("Australia/Lord_Howe", date(2027, 4, 2)),  # back by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 2)),  # forward by half an hour
    ("Pacific/Chatham", date(2026, 4, 3)),  # 12:45 and 13:45 ahead of UTC
    ("Pacific/Chatham", date(2026, 9, 25)),
    ("Antarctica/Troll", date(2026, 3, 28)),  # by two hours
    ("Antarctica/Troll", date(2026, 10, 24)),
    ("Europe/Dublin", date(2026, 3, 28)),  # winter time is the exception
    ("Europe/Dublin", date(2026, 10, 24)),
    ("Africa/Casablanca", date(2026, 2, 14)),  # back for Ramadan
    ("Africa/Casablanca", date(2026, 3, 21)),
    ("Pacific/Apia", date(2011, 12, 29)),  # had no 30 December 2011
    ("Pacific/Kwajalein", date(1993, 8, 20)),  # nor had this one 21 August 1993
    ("Asia/Gaza", date(2026, 3, 27)),
    ("Asia/Gaza", date(2026, 10, 23)),
    ("America/St_Johns", date(2010, 3, 13)),  # at one minute past midnight
    ("America/St_Johns", date(2010, 11, 6)),
    ("America/Sao_Paulo", date(2018, 11, 3)),  # at midnight
    ("America/Sao_Paulo", date(2018, 2, 17)),
    ("UTC", date(2026, 3, 28)),
]
DAYS = 2


class Minute(NamedTuple):
    moment: datetime  # UTC
    local: datetime  # what the clock shows, naive


@cache
def minutes(zone: str, start: date) -> list[Minute]:
    """Every minute that is lived through, and a day before it."""
    tz, first = ZoneInfo(zone), datetime.combine(start, datetime.min.time(), UTC) - timedelta(days=1)
    lived = (first + timedelta(minutes=number) for number in range((DAYS + 1) * 1_440))
    return [Minute(each, each.astimezone(tz).replace(tzinfo=None)) for each in lived]


class Line(NamedTuple):
    """A cron line, and which values it has in each field."""

    text: str
    values: tuple[frozenset[int], ...]  # minutes, hours, days, months, days of the week (0 to 6)

    def matches(self, local: datetime) -> bool:
        minute, hour, day, month, weekday = self.values
        fields = self.text.split()
        days = (local.day in day, local.isoweekday() % 7 in weekday)
        right_day = all(days) if fields[2].startswith("*") or fields[4].startswith("*") else any(days)
        return local.minute in minute and local.hour in hour and local.month in month and right_day


def expected(line: Line, zone: str, start: date) -> list[datetime]:
    """The moments at which a line is due, by looking at each minute and at what it shows."""
    lived = minutes(zone, start)
    if any(field.startswith("*") for field in line.text.split()[:2]):
        found = [minute.moment for minute in lived if line.matches(minute.local)]
    else:
        shown = lived[0].local
        found = []
        for before, after in itertools.pairwise(lived):
            # What the clock shows for the first time now, or has been put forward past.
            passed = [shown + timedelta(minutes=number) for number in range(1, _minutes(shown, after.local) + 1)]
            shown = max(shown, after.local)
            if any(map(line.matches, passed)):
                found.append(after.moment)
            assert after.moment > before.moment
    since = datetime.combine(start, datetime.min.time(), UTC)
    return [each for each in found if each > since]


def _minutes(low: datetime, high: datetime) -> int:
    return int((high - low).total_seconds()) // 60


def actual(line: Line, zone: str, start: date) -> Iterator[datetime]:
    at = datetime.combine(start, datetime.min.time(), UTC)
    stop = at + timedelta(days=DAYS)
    each = Schedule("s", line.text, zone, "all", {"kind": "noop"}, 0, 0)
    while (us := due_times.following_us(each, int(at.timestamp()) * 1_000_000)) is not None:
        at = datetime.fromtimestamp(us / 1e6, UTC)
        if at >= stop:
            return
        yield at


def _field(low: int, high: int, names: list[str]) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field as text, and the values that it has."""
    number = st.integers(low, high)

    def named(value: int) -> str:
        return names[value - low].lower() if names else str(value)

    single = number.map(lambda value: (str(value), {value}))
    by_name = number.map(lambda value: (named(value), {value}))
    span = (
        st.tuples(number, number)
        .map(sorted)
        .map(lambda ends: (f"{ends[0]}-{ends[1]}", set(range(ends[0], ends[1] + 1))))
    )
    step = st.tuples(number, number, st.integers(1, 20)).map(
        lambda each: (
            f"{min(each[:2])}-{max(each[:2])}/{each[2]}",
            set(range(min(each[:2]), max(each[:2]) + 1, each[2])),
        )
    )
    one = st.tuples(number, st.integers(1, 20)).map(lambda each: (f"{each[0]}-{each[0]}/{each[1]}", {each[0]}))
    every = st.integers(1, 20).map(lambda n: (f"*/{n}", set(range(low, high + 1, n))))
    terms = st.lists(st.one_of(single, by_name, span, step, one), min_size=1, max_size=3).map(
        lambda found: (",".join(text for text, _ in found), set().union(*(values for _, values in found)))
    )
    return st.one_of(st.just(("*", set(range(low, high + 1)))), every, terms).map(lambda e: (e[0], frozenset(e[1])))


MONTHS = list(calendar.month_abbr)[1:]
WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
ALL = st.just(("*", frozenset(range(100))))
#: Days and months are mostly all: a line that is never due in the three days tells nothing.
LINES = st.tuples(
    _field(0, 59, []),
    _field(0, 23, []),
    st.one_of(ALL, ALL, _field(1, 31, [])),
    st.one_of(ALL, ALL, ALL, _field(1, 12, MONTHS)),
    st.one_of(ALL, ALL, _field(0, 6, WEEKDAYS)),
).map(lambda fields: Line(" ".join(text for text, _ in fields), tuple(values for _, values in fields)))


def line(text: str, minute: set[int], hour: set[int]) -> Line:
    every = frozenset(range(100))
    return Line(text, (frozenset(minute), frozenset(hour), every, every, every))


@pytest.mark.parametrize(("zone", "start"), CHANGES)
@settings(max_examples=6, deadline=None)
@example(cron=line("10 2 * * *", {10}, {2}))
@example(cron=line("45 1 * * *", {45}, {1}))
@example(cron=line("10,30 0-3 * * *", {10, 30}, {0, 1, 2, 3}))
@example(cron=line("0 * * * *", {0}, set(range(24))))
@example(cron=line("*/10 2 * * *", set(range(0, 60, 10)), {2}))
@example(cron=line("1 0 * * *", {1}, {0}))
@given(cron=LINES)
def test_a_line_is_due_at_the_minutes_that_the_clock_shows(zone: str, start: date, cron: Line) -> None:
    stop = datetime.combine(start, datetime.min.time(), UTC) + timedelta(days=DAYS)
    wanted = list(itertools.islice((each for each in expected(cron, zone, start) if each < stop), 150))
    found = list(itertools.islice(actual(cron, zone, start), 150))
    assert found == wanted


def test_lord_howes_half_hour_leaves_out_no_time_that_is_shown_once() -> None:
    howe = ZoneInfo("Australia/Lord_Howe")
    each = Schedule("s", "10 2 * * *", "Australia/Lord_Howe", "once", {"kind": "noop"}, 0, 0)
    before = datetime(2027, 4, 3, 12, tzinfo=howe)
    following = due_times.following_us(each, int(before.timestamp()) * 1_000_000)
    assert following is not None
    assert datetime.fromtimestamp(following / 1e6, howe).isoformat() == "2027-04-04T02:10:00+10:30"


def test_a_range_of_one_value_with_a_step_is_that_value() -> None:
    each = Schedule("s", "0 12-12/3 * * MON-MON/2", "UTC", "once", {"kind": "noop"}, 0, 0)
    first = due_times.following_us(each, int(datetime(2026, 5, 1, tzinfo=UTC).timestamp()) * 1_000_000)
    assert first is not None
    second = due_times.following_us(each, first)
    assert [datetime.fromtimestamp((us or 0) / 1e6, UTC).isoformat() for us in (first, second)] == [
        "2026-05-04T12:00:00+00:00", "2026-05-11T12:00:00+00:00",
    ]  # fmt: skip


@pytest.mark.parametrize("cron", ["0 0 3 * * *", "*/5 * * * * *", "0 0 12 * * ? 2027", "0 3 * * * 2027 1"])
def test_a_line_with_seconds_or_years_is_refused_with_a_hint(cron: str) -> None:
    with pytest.raises(VecError) as refusal:
        due_times.check(cron, "", "once")
    assert (refusal.value.code, refusal.value.details["field"]) == ("invalid_request", "cron")
    assert "five" in refusal.value.message
    assert refusal.value.hint is not None
    assert "seconds" in refusal.value.hint


def test_a_line_with_thousands_of_digits_is_refused() -> None:
    with pytest.raises(VecError) as refusal:
        due_times.check(f"{'9' * 5_000} 3 * * *", "", "once")
    assert refusal.value.details["field"] == "cron"
