"""The real vecd under a clock that is set while it runs, or while it does not (clock.c, preloaded)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs LD_PRELOAD and a C compiler"
)

HOUR_S = 3_600
YEAR_S = 365 * 86_400


class Clock:
    """The time of day of one vecd."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ahead_s = 0

    def set(self, ahead_s: int) -> None:
        """From now on it is ahead of the machine's by so many seconds."""
        new = self._path.with_suffix(".new")
        new.write_text(str(ahead_s))
        os.replace(new, self._path)
        self.ahead_s = ahead_s

    def now(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    return built


@pytest.fixture(scope="module")
def world(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Clock]]:
    path = tmp_path_factory.mktemp("time") / "ahead"
    with Instance({"LD_PRELOAD": str(shim), "VEC_CLOCK": str(path), "VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        yield instance, Clock(path)


@pytest.fixture
def clock(world: tuple[Instance, Clock]) -> Clock:
    world[1].set(0)
    return world[1]


@pytest.fixture
def client(world: tuple[Instance, Clock], clock: Clock) -> Iterator[Client]:
    with world[0].connect() as connected:
        yield connected


def look(client: Client) -> None:
    """Lets the daemon look at its clock, which it does every 20 seconds anyway."""
    client.request("schedule.add", name="poke", cron="0 0 1 1 *", kind="noop", replace=True)


def due_in_s(client: Client, clock: Clock, job_id: int) -> float:
    """How long until a job is due, by its `ready_at` and the daemon's time of day."""
    ready_at = datetime.fromisoformat(client.job(job_id)["ready_at"])
    return ready_at.astimezone(UTC).timestamp() - clock.now()


def state(client: Client, job_id: int) -> str:
    return str(client.job(job_id)["state"])


def test_a_delay_does_not_wait_for_a_clock_that_was_set_back(client: Client, clock: Clock) -> None:
    soon, later = (client.submit_job("noop", delay_s=delay_s)["job_id"] for delay_s in (1.0, 2 * HOUR_S))
    clock.set(-HOUR_S)
    client.wait_for_jobs([soon], timeout_s=30)
    look(client)
    until(lambda: due_in_s(client, clock, later) < 2 * HOUR_S + 5, "the new due time")
    assert due_in_s(client, clock, later) > 2 * HOUR_S - 60


def test_a_pause_between_attempts_does_not_wait_for_a_clock_that_was_set_back(client: Client, clock: Clock) -> None:
    job_id = client.submit_job("noop", {"fail": "always"})["job_id"]
    until(lambda: client.job(job_id)["failures"] == 1, "a failure")
    clock.set(-HOUR_S)
    until(lambda: client.job(job_id)["failures"] >= 2, "the next attempt")
    client.cancel_jobs([job_id])


def test_a_delay_is_not_over_because_the_clock_was_set_forward(client: Client, clock: Clock) -> None:
    later = client.submit_job("noop", delay_s=HOUR_S)["job_id"]
    clock.set(2 * HOUR_S)
    client.wait_for_jobs([client.submit_job("noop", delay_s=0.2)["job_id"]], timeout_s=30)
    look(client)
    until(lambda: due_in_s(client, clock, later) > HOUR_S - 60, "the new due time")
    assert state(client, later) == "pending"
    clock.set(0)
    look(client)
    until(lambda: due_in_s(client, clock, later) < HOUR_S + 5, "its return")
    assert due_in_s(client, clock, later) > HOUR_S - 60
    assert state(client, later) == "pending"


def test_a_delayed_job_that_waits_for_another_keeps_its_delay(client: Client, clock: Clock) -> None:
    parent = client.submit_job("noop", delay_s=4 * HOUR_S)["job_id"]
    child = client.submit_job("noop", delay_s=HOUR_S, after=[parent])["job_id"]
    clock.set(-10 * HOUR_S)
    look(client)
    until(lambda: due_in_s(client, clock, child) < HOUR_S + 5, "the new due time")
    assert due_in_s(client, clock, child) > HOUR_S - 60
    client.cancel_jobs([parent])


def test_a_schedule_of_every_minute_goes_on_when_the_clock_is_set_back(client: Client, clock: Clock) -> None:
    name = "minutely"
    client.request("schedule.add", name=name, cron="* * * * *", zone="UTC", kind="noop", replace=True)

    def shown() -> dict[str, Any]:
        return next(each for each in client.request("schedule.list")["schedules"] if each["name"] == name)

    def soon() -> bool:
        return datetime.fromisoformat(shown()["next_at"]).timestamp() - clock.now() < 61

    clock.set(60)
    look(client)
    first = until(lambda: shown()["last_job"], "its first job")
    clock.set(60 - HOUR_S)
    look(client)
    until(soon, "its looking at the clock")
    clock.set(120 - HOUR_S)
    look(client)
    until(lambda: shown()["last_job"] != first, "a job within the hour")
    client.request("schedule.remove", name=name)


@pytest.mark.parametrize("ahead_s", [HOUR_S, 10 * YEAR_S])
def test_a_delay_that_was_noted_under_a_wrong_clock_is_no_longer_than_it_was(shim: Path, ahead_s: int) -> None:
    with Instance({"LD_PRELOAD": str(shim), "VEC_EMBEDDER": "hash"}) as instance:
        clock = Clock(instance.home / "ahead")
        instance.environment["VEC_CLOCK"] = str(clock._path)
        clock.set(ahead_s)
        daemon = instance.start()
        with instance.connect() as client:
            soon, later = (client.submit_job("noop", delay_s=each)["job_id"] for each in (2.0, HOUR_S))
        daemon.terminate()
        assert daemon.wait(30) == 0
        clock.set(0)  # a time server was reached meanwhile
        instance.start()
        with instance.connect() as client:
            client.wait_for_jobs([soon], timeout_s=30)
            until(lambda: due_in_s(client, clock, later) < HOUR_S + 5, "the new due time")
            assert due_in_s(client, clock, later) > HOUR_S - 60
            assert state(client, later) == "pending"
