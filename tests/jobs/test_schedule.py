"""Schedules under a clock of the test's own: across downtime, summer time, and clocks that are moved."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.instance import Instance
from vecd.engine.engine import Engine
from vecd.errors import Code, VecError
from vecd.jobs import due_times, operations
from vecd.jobs.jobs import Jobs
from vecd.jobs.scheduler import Scheduler
from vecd.settings import load
from vecd.store.schedules import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60


def us(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000


def of(cron: str, last: str, zone: str = "UTC", missed: str = "once") -> Schedule:
    return Schedule("s", cron, zone, missed, {"kind": "noop"}, 0, us(last, zone))


def local(moments: list[int]) -> list[str]:
    return [datetime.fromtimestamp(each / 1e6, BERLIN).strftime("%m-%d %H:%M%z") for each in moments]


def times(cron: str, start: str, count: int) -> list[int]:
    found, at = [], us(start, "Europe/Berlin")
    for _ in range(count):
        following = due_times.following_us(of(cron, start, "Europe/Berlin"), at)
        assert following is not None
        found.append(following)
        at = following
    return found


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_time_that_summer_time_leaves_out_is_due_when_the_clock_has_been_put_forward() -> None:
    found = local(times("30 2 * * *", "2026-03-28T12:00", 2))
    assert found == ["03-29 03:00+0200", "03-30 02:30+0200"]


def test_a_time_that_comes_twice_in_autumn_is_due_once() -> None:
    found = local(times("30 2 * * *", "2026-10-24T12:00", 2))
    assert found == ["10-25 02:30+0200", "10-26 02:30+0100"]


def test_what_is_due_every_hour_goes_by_elapsed_time_through_both_changes() -> None:
    for start in ("2026-03-28T22:30", "2026-10-24T22:30"):
        found = times("0 * * * *", start, 8)
        assert {(after - before) / 1e6 for before, after in itertools.pairwise(found)} == {HOUR_S}


def test_a_schedule_is_in_its_own_time_zone() -> None:
    assert due_times.following_us(of("0 3 * * *", "2026-07-01T00:00"), us("2026-07-01T00:00")) == us("2026-07-01T03:00")
    tokyo = of("0 3 * * *", "2026-07-01T00:00", "Asia/Tokyo")
    assert due_times.following_us(tokyo, us("2026-07-01T00:00")) == us("2026-07-02T03:00", "Asia/Tokyo")


@pytest.mark.parametrize("short", ["@hourly", "@daily", "@weekly", "@monthly", "@yearly"])
def test_short_names_are_cron_lines(short: str) -> None:
    due_times.check(short, "", "once")


@pytest.mark.parametrize(
    ("cron", "zone", "missed", "field"),
    [
        ("0 3 * *", "", "once", "cron"),
        ("61 3 * * *", "", "once", "cron"),
        ("often", "", "once", "cron"),
        ("0 3 31 2 *", "", "once", "cron"),
        ("0 3 * * *", "Europe/Atlantis", "once", "zone"),
        ("0 3 * * *", "../etc/passwd", "once", "zone"),
        ("0 3 * * *", "", "never", "missed"),
    ],
)
def test_what_is_no_schedule_is_refused_naming_the_field(cron: str, zone: str, missed: str, field: str) -> None:
    with pytest.raises(VecError) as refusal:
        due_times.check(cron, zone, missed)
    assert refusal.value.code == "invalid_request"
    assert refusal.value.details["field"] == field


# --- missed times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missed", "wanted"), [("skip", 0), ("once", 1), ("all", 5)])
def test_after_days_of_downtime_what_was_missed_is_made_up_for_as_the_schedule_says(missed: str, wanted: int) -> None:
    down = of("0 3 * * *", "2026-05-01T04:00", missed=missed)
    found = due_times.due(down, us("2026-05-06T12:00"))
    assert found == due_times.Due(wanted, us("2026-05-06T12:00"))


@pytest.mark.parametrize("missed", due_times.MISSED)
def test_what_is_due_now_is_due_once_whatever_was_missed_before(missed: str) -> None:
    found = due_times.due(of("0 3 * * *", "2026-05-05T04:00", missed=missed), us("2026-05-06T03:00"))
    assert found.count == 1


def test_what_is_made_up_for_is_bounded() -> None:
    down = of("* * * * *", "2020-01-01T00:00", missed="all")
    assert due_times.due(down, us("2026-01-01T00:00")).count == 100


def test_a_clock_put_back_a_little_makes_nothing_due_twice() -> None:
    at = of("0 11 * * *", "2026-05-06T12:00")
    found = due_times.due(at, us("2026-05-06T10:59"))
    assert found == due_times.Due(0, us("2026-05-06T12:00"))
    often = of("*/10 * * * *", "2026-05-06T12:00")
    assert due_times.due(often, us("2026-05-06T11:59:30")) == due_times.Due(0, us("2026-05-06T12:00"))


def test_what_goes_by_elapsed_time_goes_on_when_the_clock_is_put_back_an_hour() -> None:
    found = due_times.due(of("*/10 * * * *", "2026-05-06T12:00"), us("2026-05-06T11:05"))
    assert found == due_times.Due(0, us("2026-05-06T11:05"))


def test_a_clock_put_back_a_lot_is_believed() -> None:
    at = of("*/10 * * * *", "2036-05-06T12:00")
    found = due_times.due(at, us("2026-05-06T12:00"))
    assert found == due_times.Due(0, us("2026-05-06T12:00"))


@pytest.mark.parametrize("missed", due_times.MISSED)
def test_however_the_daemon_is_up_and_down_each_time_is_made_up_for_as_the_schedule_says(missed: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(30):
        cron = chance.choice(("*/7 * * * *", "30 2 * * *", "0 * * * *", "15 4 * * 1-5"))
        # Across both changes of the year.
        now = us(chance.choice(("2026-03-27T00:00", "2026-10-23T00:00")), "Europe/Berlin")
        each = Schedule("s", cron, "Europe/Berlin", missed, {"kind": "noop"}, 0, now)
        start, made, missed_spans = now, 0, 0
        for _ in range(chance.randrange(5, 60)):
            before = now
            down = chance.random() < 0.2
            now += int((chance.uniform(2 * MINUTE_S, 8 * HOUR_S) if down else chance.uniform(1, 50)) * 1e6)
            found = due_times.due(each, now)
            inside = _count(each, before, now)
            recent = _count(each, max(before, now - due_times.LATE_S * 1_000_000), now)
            wanted = {"skip": min(1, recent), "once": min(1, inside), "all": min(100, inside)}[missed]
            assert found.count == wanted, (cron, before, now)
            assert found.last_us == now
            made += found.count
            missed_spans += inside > 0
            each = Schedule(each.name, cron, each.zone, missed, each.job, 0, found.last_us)
        if missed == "all":
            assert made == _count(each, start, now)


def _count(each: Schedule, after: int, stop: int) -> int:
    """Times in (after, stop], by looking at each minute's wall clock and nothing else but cronsim's next one."""
    count, at = 0, due_times.following_us(each, after)
    while at is not None and at <= stop:
        count, at = count + 1, due_times.following_us(each, at)
    return count


# --- the clock ------------------------------------------------------------------------------------------------------


class World:
    """An engine with jobs that nobody works on, and a clock that the test moves."""

    def __init__(self, jobs: Jobs) -> None:
        self.now = datetime(2026, 5, 6, 12, 0, tzinfo=ZoneInfo("UTC"))
        self.jobs = jobs
        self.clock = Scheduler(jobs, lambda: int(self.now.timestamp() * 1e6))

    async def add(self, name: str, cron: str, missed: str = "once") -> None:
        wanted = Schedule(name, cron, "UTC", missed, {"kind": "noop", "params": {}}, 0, 0)
        await self.clock.add(wanted, replace_it=False)

    async def pass_on(self, **time: float) -> None:
        self.now += timedelta(**time)
        await self.clock.tick()

    def submitted(self, name: str) -> int:
        listing = operations.JobFilter(kinds=["noop"])
        return sum(job.schedule == name for job in operations.page(self.jobs, listing, None, 1_000))


def world(tmp_path: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = load({"VEC_HOME": str(tmp_path)})
        settings.data.mkdir(exist_ok=True)
        engine = Engine(settings)
        engine.open(asyncio.get_running_loop(), lambda failure: None)
        jobs = Jobs(engine, 1)
        jobs.open(asyncio.get_running_loop())
        try:
            await test(World(jobs))
        finally:
            await asyncio.to_thread(engine.close)

    asyncio.run(run())


def test_the_clock_submits_what_is_due_and_looks_again_in_time(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.add("often", "*/10 * * * *")
        await world.pass_on(minutes=9, seconds=50)
        assert world.submitted("often") == 0
        assert await world.clock.tick() == pytest.approx(10, abs=0.1)
        await world.pass_on(seconds=10)
        assert world.submitted("often") == 1
        await world.clock.tick()
        assert world.submitted("often") == 1

    world(tmp_path, test)


@pytest.mark.parametrize(("missed", "wanted"), [("skip", 1), ("once", 1), ("all", 6)])
def test_a_schedule_whose_job_still_waits_does_not_pile_up(tmp_path: Path, missed: str, wanted: int) -> None:
    async def test(world: World) -> None:
        await world.add("often", "*/10 * * * *", missed)
        for _ in range(6):
            await world.pass_on(minutes=10)
        assert world.submitted("often") == wanted

    world(tmp_path, test)


def test_schedules_outlast_the_daemon_and_what_was_missed_is_made_up_for(tmp_path: Path) -> None:
    async def before(world: World) -> None:
        await world.add("daily", "0 3 * * *", "all")
        await world.add("skipped", "0 3 * * *", "skip")

    async def after(world: World) -> None:
        await world.pass_on(days=4)
        assert world.submitted("daily") == 4
        assert world.submitted("skipped") == 0

    world(tmp_path, before)
    world(tmp_path, after)


def test_a_clock_that_is_put_back_years_goes_on_from_there(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.now += timedelta(days=3_650)
        await world.add("often", "*/10 * * * *")
        await world.pass_on(days=-3_650)
        assert world.submitted("often") == 0
        await world.pass_on(minutes=10)
        assert world.submitted("often") == 1

    world(tmp_path, test)


def test_the_upkeep_is_there_from_the_start_can_be_changed_and_stays_away_when_removed(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        names = {each["name"] for each in await world.clock.listed()}
        assert {"upkeep.prune", "upkeep.snapshot"} <= names
        await world.clock.tick()
        await world.clock.remove("upkeep.snapshot")
        wanted = Schedule("upkeep.prune", "@daily", "UTC", "skip", {"kind": "prune", "params": {"keep": 5}}, 0, 0)
        await world.clock.add(wanted, replace_it=True)

    async def second(world: World) -> None:
        found = {each["name"]: each for each in await world.clock.listed()}
        assert "upkeep.snapshot" not in found
        assert (found["upkeep.prune"]["cron"], found["upkeep.prune"]["params"]) == ("@daily", {"keep": 5})

    world(tmp_path, first)
    world(tmp_path, second)


def test_a_schedule_whose_library_is_gone_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.add("fine", "*/10 * * * *")
        wanted = Schedule("broken", "*/10 * * * *", "UTC", "once", {"kind": "noop", "params": {}}, 0, 0)
        await world.clock.add(wanted, replace_it=False)
        gone = Schedule("broken", "*/10 * * * *", "UTC", "once", {"kind": "noop", "library": "gone"}, 0, 0)
        with pytest.raises(VecError):  # it is refused when it is added …
            await world.clock.add(gone, replace_it=True)
        world.jobs.engine.database.submit(
            lambda tx: tx.db.execute(
                """UPDATE schedules SET job = '{"kind":"noop","library":"x"}' WHERE name = 'broken'"""
            )
        ).result()  # … but a library may go later
        await world.pass_on(minutes=10)
        assert world.submitted("fine") == 1
        assert world.submitted("broken") == 0
        found = {each["name"]: each for each in await world.clock.listed()}
        assert "library 'x' does not exist" in found["broken"]["error"]

    world(tmp_path, test)


def test_on_a_full_disk_a_schedule_that_frees_nothing_does_not_hold_up_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        await world.add("backup", "0 3 * * *")
        await world.clock.tick()
        database = world.jobs.engine.database
        submit = database.submit

        def full(run: Any, rows: int = 1, frees: bool = False) -> Future[Any]:
            if frees:
                return submit(run, rows, frees)
            refused: Future[Any] = Future()
            refused.set_exception(VecError(Code.DISK_FULL, "no space left"))
            return refused

        with monkeypatch.context() as disk:
            disk.setattr(database, "submit", full)
            await world.pass_on(days=1)
        assert world.submitted("backup") == 0
        vacuums = operations.page(world.jobs, operations.JobFilter(kinds=["vacuum"]), None, 10)
        assert [job.schedule for job in vacuums] == ["upkeep.vacuum"]
        await world.clock.tick()
        assert world.submitted("backup") == 1

    world(tmp_path, test)


def test_run_now_submits_beside_the_times_and_waits_for_its_own_like(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.add("rare", "0 3 1 1 *", "skip")
        first, second = await world.clock.run_now("rare"), await world.clock.run_now("rare")
        assert first["job_id"] != second["job_id"]
        shown = operations.show(world.jobs, second["job_id"])
        assert (shown["schedule"], shown["lock"]) == ("rare", "schedule rare")
        with pytest.raises(VecError) as refusal:
            await world.clock.run_now("rarely")
        assert refusal.value.code == "not_found"

    world(tmp_path, test)


def test_an_instance_of_the_tests_is_far_from_the_times_of_its_upkeep() -> None:
    with Instance() as instance:
        instance.start()
        with instance.connect() as client:
            due = [datetime.fromisoformat(each["next_at"]) for each in client.schedules()]
    assert min(due) - datetime.now(UTC) > timedelta(minutes=50)
