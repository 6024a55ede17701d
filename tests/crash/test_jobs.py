"""The daemon dies while jobs run: no job is retried forever, an acknowledged cancel holds, a clean stop is not a crash.

The crash loop (loop.py) checks that each step is applied once, and that a job never runs twice at a time."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.errors import VecError

_MODULE = "tests.jobs.vecd"


def _survivor(instance: Instance, daemon: subprocess.Popen[bytes], job_id: int) -> tuple[dict[str, Any], int]:
    """Starts the daemon whenever it has died, until the job has ended; the job, and how many deaths that took."""
    deaths = 0
    while True:
        try:
            with instance.connect() as client:
                client.wait_for_jobs([job_id])
                return client.job(job_id), deaths
        except (VecError, AssertionError) as error:  # it may die before it is connected to
            assert not isinstance(error, VecError) or error.code == "connection_lost", error
        assert daemon.wait(60) == -signal.SIGKILL
        deaths += 1
        daemon = instance.start(module=_MODULE)


def test_a_job_that_kills_the_daemon_before_it_gets_anywhere_is_dead_after_three() -> None:
    with Instance() as instance:
        daemon = instance.start(module=_MODULE)
        with instance.connect() as client:
            innocent = client.submit_job("noop", {"steps": 1, "seconds": 0.5})["job_id"]
            job_id = client.submit_job("killer", delay_s=0.2)["job_id"]  # the answer comes before its deed
        job, deaths = _survivor(instance, daemon, job_id)
        assert deaths == 3
        assert (job["state"], job["crashes"], job["failures"]) == ("dead", 3, 0)
        assert job["error"]["code"] == "crashed"
        assert [attempt["outcome"] for attempt in job["attempts"]] == ["crashed"] * 3
        with instance.connect() as client:
            assert [each["job_id"] for each in client.jobs(states=["dead"])] == [job_id]
            (other,) = client.wait_for_jobs([innocent])
            assert other["state"] == "completed"
            client.drop_jobs([job_id])
            assert list(client.jobs(states=["dead"])) == []


def test_a_job_that_kills_the_daemon_but_moves_on_each_time_completes() -> None:
    with Instance() as instance:
        daemon = instance.start(module=_MODULE)
        with instance.connect() as client:
            job_id = client.submit_job("mover", {"steps": 6})["job_id"]
        job, deaths = _survivor(instance, daemon, job_id)
        assert deaths == 6
        assert (job["state"], job["result"]) == ("completed", {"steps": 6})


def test_a_cancel_that_was_answered_holds_though_the_daemon_is_killed() -> None:
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            job_id = client.submit_job("noop", {"steps": 1_000, "seconds": 0.01})["job_id"]
            until(lambda: client.job(job_id)["state"] == "running", "its start")
            client.cancel_jobs([job_id])
        daemon.kill()
        daemon.wait()
        instance.start()
        with instance.connect() as client:
            assert client.job(job_id)["state"] == "cancelled"


def test_a_clean_stop_is_no_crash_and_the_job_goes_on_from_its_checkpoint() -> None:
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            job_id = client.submit_job("noop", {"steps": 60, "seconds": 0.02})["job_id"]
            until(lambda: (client.job(job_id)["progress"] or {}).get("done"), "its first step")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
        instance.start()
        with instance.connect() as client:
            client.wait_for_jobs([job_id])
            job = client.job(job_id)
            assert (job["state"], job["crashes"], job["failures"]) == ("completed", 0, 0)
            assert [attempt["outcome"] for attempt in job["attempts"]] == ["stopped", "completed"]
