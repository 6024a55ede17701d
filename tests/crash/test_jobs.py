"""kill -9 of the daemon while jobs run: each step is applied once, no two copies overlap, nothing is lost or loops."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from tests import history
from tests.cli.running import until
from tests.instance import Instance
from vecd.client import Client
from vecd.errors import VecError

_MODULE = "tests.jobs.vecd"


def kill_after(daemon: subprocess.Popen[bytes], seconds: float) -> None:
    """Kills the daemon after so long, and waits until it is gone."""
    killer = threading.Timer(seconds, os.kill, (daemon.pid, signal.SIGKILL))
    killer.start()
    assert daemon.wait(60) == -signal.SIGKILL
    killer.join()


def overlaps(client: Client, job_id: int) -> list[str]:
    """What is wrong with the history of a job: attempts that overlap, by their times and by the log."""
    attempts = client.job(job_id)["attempts"]
    wrong = [
        f"attempt {after['attempt']} began before {before['attempt']} ended"
        for before, after in itertools.pairwise(attempts)
        if before["ended_at"] is None or after["started_at"] < before["ended_at"]
    ]
    running = False
    for event in history.log_of(client):
        if event["type"].startswith("job.") and event["data"]["job_id"] == job_id:
            starts = event["type"] == "job.started"
            if starts and running:
                wrong.append(f"seq {event['seq']} starts a copy")
            running = starts or (running and event["type"] == "job.submitted")
    return wrong


def test_every_step_is_applied_once_and_no_two_copies_overlap_whenever_the_daemon_is_killed() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Instance() as instance:
        daemon = instance.start(module=_MODULE)
        with instance.connect() as client:
            client.request("library.create", library="ledger", embedder="none", dimension=4)
            steps = {}
            for _ in range(30):
                count = chance.randrange(1, 60)
                params = {"steps": count, "seconds": 0.002}
                steps[client.submit_job("ledger", params, library="ledger")["job_id"]] = count
        for _ in range(12):
            kill_after(daemon, chance.uniform(0.02, 0.4))
            daemon = instance.start(module=_MODULE)
            with instance.connect() as client:  # what was cut off by its killers is given another chance
                if dead := [job["job_id"] for job in client.jobs(states=["dead"])]:
                    client.retry_jobs(dead)
        with instance.connect() as client:
            ended = client.wait_for_jobs(list(steps), timeout_s=60)
            assert {job["job_id"]: job["state"] for job in ended} == dict.fromkeys(steps, "completed")
            documents = history.check(client)["ledger"]
            assert documents.keys() == {f"{job}-{n}" for job, count in steps.items() for n in range(1, count + 1)}
            kinds = Counter(event["type"] for event in history.log_of(client) if event["library"] == "ledger")
            assert kinds["document.added"] == sum(steps.values())
            assert not kinds["document.updated"]
            for job_id in steps:
                assert overlaps(client, job_id) == []


def test_an_ingest_job_that_is_killed_again_and_again_applies_every_line_once(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    # The same ids again and again with other texts: a line that is applied twice, or out of order, shows in the log.
    lines = [{"id": f"d{n % 500}", "text": f"text {n}", "metadata": {"n": n}} for n in range(40_000)]
    path = tmp_path / "lines.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            job_id = client.submit_job("ingest", {"files": [str(path)]})["job_id"]
        for _ in range(100):
            kill_after(daemon, chance.uniform(0.0, 0.05))
            daemon = instance.start()
            with instance.connect() as client:
                job = client.job(job_id)
                if job["state"] == "completed":
                    break
                if job["state"] == "dead":
                    client.retry_jobs([job_id])
        with instance.connect() as client:
            (job,) = client.wait_for_jobs([job_id], timeout_s=60)
            assert job["state"] == "completed"
            assert job["attempt"] > 3, "it was never killed while it ran"
            counts = {"added": 500, "updated": len(lines) - 500, "unchanged": 0, "deleted": 0, "failed": 0}
            assert {key: job["result"][key] for key in counts} == counts
            applied = [event["data"]["id"] for event in history.log_of(client) if event["type"].startswith("document.")]
            assert applied == [line["id"] for line in lines]
            history.check(client)
            last = {line["id"]: line["metadata"] for line in lines}
            listed = client.items("list", "documents")
            assert {document["id"]: document["metadata"] for document in listed} == last


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
            job_id = client.submit_job("killer")["job_id"]
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
