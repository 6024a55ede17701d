"""Workers outside the daemon: leases under kills, stops and restarts, and what a late worker is refused."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.instance import ROOT, Instance
from tests.support.waiting import until
from vecd.client import Client, Pending
from vecd.errors import VecError
from vecd.jobs.leases import Attempt, WorkingTime
from vecd.jobs.queue import QueuedJob

LEASE_S = 1.0


class Worker:
    """A worker process, and what it has said."""

    def __init__(self, instance: Instance, name: str, lease_s: float = LEASE_S) -> None:
        self.said: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lease_worker", name, str(lease_s)],
            env=instance.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def has_said(self, what: str, **about: Any) -> bool:
        return any(each["what"] == what and about.items() <= each.items() for each in list(self.said))

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)  # does nothing if the process has ended
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def workers(instance: Instance) -> Iterator[list[Worker]]:
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.end()


@pytest.fixture
def library(client: Client, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("[", "-").replace("]", "")[:60]
    client.request("library.create", library=name, embedder="none", index="flat", dimension=4)
    return str(name)


def submit(client: Client, library: str, steps: int, seconds: float = 0.0) -> int:
    return int(client.submit_job("elsewhere", {"steps": steps, "seconds": seconds}, library=library)["job_id"])


def written_once(client: Client, library: str, job_id: int, steps: int) -> bool:
    """Whether each step of a job was applied exactly once: each document was added, and none was written again."""
    events = client.watch("beginning", libraries=[library], follow=False)
    documents = sorted((each["type"], each["data"]["id"]) for each in events if each["type"].startswith("document."))
    return documents == sorted(("document.added", f"{job_id}-{number}") for number in range(1, steps + 1))


def error_of(call: Any, *arguments: Any, **fields: Any) -> str:
    with pytest.raises(VecError) as refusal:
        call(*arguments, **fields)
    return refusal.value.code


def test_a_job_of_a_killed_worker_goes_on_from_its_last_step_with_another_worker(
    instance: Instance, client: Client, workers: list[Worker], library: str
) -> None:
    job_id = submit(client, library, 6, 0.1)
    workers.append(Worker(instance, "first"))
    until(lambda: workers[0].has_said("step", job_id=job_id, number=2))
    workers[0].process.kill()
    workers.append(Worker(instance, "second"))
    (job,) = client.wait_for_jobs([job_id], timeout_s=60)
    assert (job["state"], job["attempt"]) == ("completed", 2)
    assert written_once(client, library, job_id, 6)
    assert [(each["worker"], each["outcome"]) for each in client.job(job_id)["attempts"]] == [
        ("first", "expired"),
        ("second", "completed"),
    ]


def test_a_worker_that_was_stopped_past_its_lease_is_refused_when_it_comes_back(
    instance: Instance, client: Client, workers: list[Worker], library: str
) -> None:
    job_id = submit(client, library, 4, 0.3)
    workers.append(Worker(instance, "sleeper"))
    until(lambda: workers[0].has_said("step", job_id=job_id, number=1))
    workers[0].process.send_signal(signal.SIGSTOP)
    workers.append(Worker(instance, "other"))
    until(lambda: workers[1].has_said("claimed", job_id=job_id, attempt=2))
    workers[0].process.send_signal(signal.SIGCONT)
    until(lambda: workers[0].has_said("refused", job_id=job_id, attempt=1, code="lease_lost"))
    (job,) = client.wait_for_jobs([job_id], timeout_s=60)
    assert job["state"] == "completed"
    assert written_once(client, library, job_id, 4)


def test_the_late_heartbeat_step_and_end_of_a_lost_attempt_are_refused_and_write_nothing(
    client: Client, library: str
) -> None:
    job_id = submit(client, library, 1)
    first = client.claim_job("late", ["elsewhere"], lease_s=0.5, wait_s=10)
    assert first is not None
    assert first["job_id"] == job_id
    second = client.claim_job("prompt", ["elsewhere"], lease_s=30, wait_s=10)
    assert second is not None
    assert (second["job_id"], second["attempt"]) == (job_id, 2)
    effect = {"type": "documents", "documents": [{"id": "late", "vector": [1.0, 0.0, 0.0, 0.0]}]}
    assert error_of(client.heartbeat_job, job_id, 1) == "lease_lost"
    assert error_of(client.checkpoint_job, job_id, 1, 0, {"number": 1}, effect=effect) == "lease_lost"
    assert error_of(client.finish_job, job_id, 1, result={}) == "lease_lost"
    assert client.get(["late"], library) == [None]
    assert client.finish_job(job_id, 2, result={"steps": 0})["state"] == "completed"


def test_two_workers_that_claim_at_once_never_get_the_same_job(
    instance: Instance, client: Client, library: str
) -> None:
    wanted = {submit(client, library, 1) for _ in range(20)}
    claimed: list[int] = []

    def claim(name: str) -> None:
        with instance.connect() as own:
            while (job := own.claim_job(name, ["elsewhere"])) is not None:
                claimed.append(job["job_id"])
                own.finish_job(job["job_id"], job["attempt"], result={})

    threads = [threading.Thread(target=claim, args=(f"worker {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(wanted)


def test_a_step_and_an_end_that_are_sent_again_are_answered_and_applied_once(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    job = client.claim_job("repeater", ["elsewhere"])
    assert job is not None
    effect = {"type": "documents", "documents": [{"id": f"{job_id}-1", "vector": [1.0, 0.0, 0.0, 0.0]}]}
    first = client.checkpoint_job(job_id, 1, 0, {"number": 1}, effect=effect)
    again = client.checkpoint_job(job_id, 1, 0, {"number": 1}, effect=effect)
    assert (first["repeated"], first["counts"]["added"], again["repeated"]) == (False, 1, True)
    assert client.job(job_id)["checkpoint"]["counts"]["added"] == 1
    ends = [client.finish_job(job_id, 1, result={"steps": 1}) for _ in range(2)]
    assert [(end["state"], end["repeated"]) for end in ends] == [("completed", False), ("completed", True)]
    assert written_once(client, library, job_id, 1)


def test_a_step_whose_documents_cannot_be_written_moves_no_checkpoint(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    assert client.claim_job("careless", ["elsewhere"]) is not None
    wrong = {"type": "documents", "documents": [{"id": "x", "vector": [1.0]}]}
    answer = client.checkpoint_job(job_id, 1, 0, {"number": 1}, effect=wrong)  # refused, and said so
    assert [(each["index"], each["error"]["code"]) for each in answer["refused"]] == [(0, "dimension_mismatch")]
    assert client.job(job_id)["checkpoint"]["counts"]["failed"] == 1
    assert error_of(client.checkpoint_job, job_id, 1, 1, {}, effect={"type": "sql"}) == "invalid_request"
    assert error_of(client.checkpoint_job, job_id, 1, 7, {"number": 8}) == "invalid_request"  # not the next step
    assert client.job(job_id)["checkpoint"]["number"] == 1
    client.finish_job(job_id, 1, error={"code": "invalid_document", "message": "one was refused", "retryable": False})
    assert client.job(job_id)["state"] == "failed"


def test_an_error_that_may_pass_is_followed_by_another_attempt(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    assert client.claim_job("unlucky", ["elsewhere"]) is not None
    client.finish_job(job_id, 1, error={"code": "model_away", "message": "the model is away", "retryable": True})
    job = client.claim_job("unlucky", ["elsewhere"], wait_s=30)
    assert job is not None
    assert (job["job_id"], job["attempt"]) == (job_id, 2)
    client.finish_job(job_id, 2, result={})


def test_a_cancel_reaches_a_worker_by_its_heartbeat(
    instance: Instance, client: Client, workers: list[Worker], library: str
) -> None:
    job_id = submit(client, library, 100, 0.2)
    workers.append(Worker(instance, "cancelled"))
    until(lambda: workers[0].has_said("step", job_id=job_id))
    (job,) = client.cancel_jobs([job_id])
    assert job["state"] == "cancelled"
    until(lambda: workers[0].has_said("stopped", job_id=job_id, why="cancelled", state="cancelled"))


def test_a_worker_that_ignores_a_cancel_loses_its_job_with_its_lease(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    assert client.claim_job("deaf", ["elsewhere"], lease_s=0.5) is not None
    pending = client.submit("jobs.cancel", job_ids=[job_id])
    until(lambda: client.heartbeat_job(job_id, 1)["stop"] == "cancelled")
    until(lambda: _is_lost(client, job_id))  # its heartbeats do not keep the lease alive
    assert pending.result()["jobs"][0]["state"] == "cancelled"


def _is_lost(client: Client, job_id: int) -> bool:
    try:
        client.heartbeat_job(job_id, 1)
    except VecError as error:
        return error.code == "lease_lost"
    return False


def test_a_pause_gives_the_job_back_and_a_time_limit_fails_it(client: Client, library: str) -> None:
    paused = submit(client, library, 1)
    assert client.claim_job("w", ["elsewhere"]) is not None
    client.request("jobs.pause", kinds=["elsewhere"])
    try:
        assert client.heartbeat_job(paused, 1)["stop"] == "paused"
        assert client.finish_job(paused, 1)["state"] == "pending"
        assert client.claim_job("w", ["elsewhere"]) is None
    finally:
        client.request("jobs.resume", kinds=["elsewhere"])
    client.cancel_jobs([paused])
    limited = client.submit_job("elsewhere", {"steps": 1}, library=library, timeout_s=0.2)["job_id"]
    assert client.claim_job("w", ["elsewhere"]) is not None
    until(lambda: client.heartbeat_job(limited, 1)["stop"] == "timeout")
    job = client.finish_job(limited, 1)
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")


def test_an_effect_or_an_error_that_says_nothing_is_refused(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    assert client.claim_job("vague", ["elsewhere"]) is not None
    vague: list[dict[str, Any]] = [{}, {"type": None}, {"type": []}, {"type": {}}]
    for effect in vague:
        assert error_of(client.checkpoint_job, job_id, 1, 0, {"number": 1}, effect=effect) == "invalid_request"
    assert error_of(client.finish_job, job_id, 1, error={}) == "invalid_request"
    assert client.job(job_id)["checkpoint"] is None
    assert client.finish_job(job_id, 1, result={})["state"] == "completed"


def test_the_counts_of_effects_stay_in_the_checkpoint_whatever_a_worker_sends(client: Client, library: str) -> None:
    job_id = submit(client, library, 3)
    assert client.claim_job("counter", ["elsewhere"]) is not None
    counts: list[Any] = ["x", [1], {"added": "x"}, {"added": -1}]
    for wrong in (*({"counts": each} for each in counts), {"seq": []}):
        assert error_of(client.checkpoint_job, job_id, 1, 0, wrong) == "invalid_request"
    added = [
        {"type": "documents", "documents": [{"id": name, "vector": [1.0, 0.0, 0.0, 0.0]}]} for name in ("one", "two")
    ]
    client.checkpoint_job(job_id, 1, 0, {"number": 1}, effect=added[0], done=1, total=3)
    first = client.job(job_id)["checkpoint"]
    client.checkpoint_job(job_id, 1, 1, {"number": 2})  # without an effect
    assert client.job(job_id)["checkpoint"] == {**first, "number": 2}
    client.checkpoint_job(job_id, 1, 2, None, effect=added[1])
    assert client.job(job_id)["checkpoint"]["counts"]["added"] == 2
    client.checkpoint_job(job_id, 1, 3, [3])  # no map: the counts end here
    assert error_of(client.checkpoint_job, job_id, 1, 4, None, effect=added[0]) == "invalid_request"
    client.finish_job(job_id, 1)
    client.cancel_jobs([job_id])
    assert (client.job(job_id)["progress"]["done"], client.job(job_id)["progress"]["total"]) == (1, 3)


def test_a_pause_reaches_a_worker_outside_also_after_a_restart_of_the_daemon() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            client.request("library.create", library="notes", embedder="none", index="flat", dimension=4)
            job_id = submit(client, "notes", 1)
            assert client.claim_job("w", ["elsewhere"]) is not None
            client.request("jobs.pause", kinds=["elsewhere"])
        daemon.kill()
        daemon.wait()
        own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            assert client.heartbeat_job(job_id, 1)["stop"] == "paused"
            assert client.finish_job(job_id, 1)["state"] == "pending"


def test_a_worker_goes_on_after_the_daemon_was_killed_and_started_again(workers: list[Worker]) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            client.request("library.create", library="notes", embedder="none", index="flat", dimension=4)
            job_id = submit(client, "notes", 8, 0.1)
            worker = Worker(own, "patient", lease_s=10)
            workers.append(worker)
            until(lambda: worker.has_said("step", job_id=job_id, number=2))
            daemon.kill()
            daemon.wait()
        own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            (job,) = client.wait_for_jobs([job_id], timeout_s=60)
            assert (job["state"], job["attempt"]) == ("completed", 1)
            assert written_once(client, "notes", job_id, 8)
            worker.end()


def test_jobs_that_lose_every_worker_without_a_step_are_dead_after_three(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    for attempt in (1, 2, 3):
        job = client.claim_job("mortal", ["elsewhere"], lease_s=0.5, wait_s=10)
        assert job is not None
        assert job["attempt"] == attempt
    (job,) = client.wait_for_jobs([job_id], timeout_s=30)
    assert (job["state"], job["error"]["code"]) == ("dead", "crashed")


def test_kinds_that_run_inside_the_daemon_cannot_be_claimed(client: Client) -> None:
    assert error_of(client.claim_job, "w", ["vacuum"]) == "unsupported"
    assert error_of(client.claim_job, "w", ["no such"]) == "unsupported"
    assert error_of(client.claim_job, "w", []) == "invalid_request"


def test_workers_are_listed_with_their_job_and_what_is_left_of_their_lease(client: Client, library: str) -> None:
    job_id = submit(client, library, 1)
    assert client.claim_job("listed", ["elsewhere"], lease_s=20) is not None
    (found,) = [each for each in client.workers() if each["worker"] == "listed"]
    assert (found["job_id"], found["kind"], found["attempt"], found["stop"]) == (job_id, "elsewhere", 1, None)
    assert 0 < found["lease_left_s"] <= 20
    client.finish_job(job_id, 1, result={})
    assert not [each for each in client.workers() if each["worker"] == "listed"]


def test_a_job_goes_to_the_worker_that_has_waited_longest_for_its_kind(
    instance: Instance, client: Client, library: str
) -> None:
    other_client = instance.connect()

    def waiting(name: str, *kinds: str) -> Pending:
        connection = other_client if name == "gone" else client
        pending = connection.submit("jobs.claim", worker=name, kinds=list(kinds), wait_s=30.0)
        until(lambda: name in [each["worker"] for each in client.workers() if each["job_id"] is None])
        return pending

    noop, first = waiting("noop", "noop"), waiting("first", "elsewhere")
    waiting("gone", "elsewhere")
    second, both = waiting("second", "elsewhere"), waiting("both", "elsewhere", "noop")
    other_client.close()
    until(lambda: "gone" not in [each["worker"] for each in client.workers()])
    jobs = [submit(client, library, 1) for _ in range(3)]
    assert [each.result()["job"]["job_id"] for each in (first, second, both)] == jobs
    assert [each["worker"] for each in client.workers() if each["job_id"] is None] == ["noop"]
    other = client.submit_job("noop")["job_id"]
    assert noop.result()["job"]["job_id"] == other
    for job_id in (*jobs, other):
        client.finish_job(job_id, 1, result={})


def test_a_worker_that_waits_gets_a_delayed_job_when_it_is_due(client: Client, library: str) -> None:
    waiting = client.submit("jobs.claim", worker="w", kinds=["elsewhere"], wait_s=30.0)
    job_id = client.submit_job("elsewhere", {"steps": 1}, library=library, delay_s=0.3)["job_id"]
    assert waiting.result()["job"]["job_id"] == job_id
    client.finish_job(job_id, 1, result={})


def test_workers_that_wait_are_answered_when_the_daemon_stops() -> None:
    with Instance() as own:
        daemon = own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            pending = [
                client.submit("jobs.claim", worker=str(each), kinds=["elsewhere"], wait_s=60.0) for each in range(20)
            ]
            until(lambda: len([each for each in client.workers() if each["job_id"] is None]) == 20)
            daemon.terminate()
            assert [each.result()["job"] for each in pending] == [None] * 20
        assert daemon.wait(30) == 0


def test_the_time_limit_of_an_attempt_outside_goes_on_when_the_daemon_starts_again() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            client.request("library.create", library="notes", embedder="none", index="flat", dimension=4)
            job_id = client.submit_job("elsewhere", {"steps": 1}, library="notes", timeout_s=3_600)["job_id"]
            assert client.claim_job("w", ["elsewhere"], lease_s=30) is not None
        daemon.kill()
        daemon.wait()
        store = sqlite3.connect(own.settings.store)  # as if it had begun an hour ago
        with store:
            store.execute("UPDATE jobs SET started_us = started_us - 3600000000 WHERE job_id = ?", (job_id,))
        store.close()
        own.start(module="tests.jobs.vecd")
        with own.connect() as client:
            assert client.heartbeat_job(job_id, 1)["stop"] == "timeout"


def test_a_wrong_step_is_refused_with_the_right_one(client: Client, library: str) -> None:
    job_id = submit(client, library, 3)
    assert client.claim_job("w", ["elsewhere"]) is not None
    client.checkpoint_job(job_id, 1, 0, {"number": 1})
    client.checkpoint_job(job_id, 1, 1, {"number": 2})
    for wrong in (0, 3, 7):
        with pytest.raises(VecError, match=f"next 'step' is 2, not {wrong}") as refused:
            client.checkpoint_job(job_id, 1, wrong, {"number": 9})
        assert (refused.value.code, refused.value.details["steps"]) == ("invalid_request", 2)
    assert client.request("jobs.show", job_id=job_id)["checkpoint"] == {"number": 2}
    client.finish_job(job_id, 1, result={})


def test_the_log_has_the_end_of_a_job_that_was_waited_for(client: Client) -> None:
    heads = {}
    for _ in range(200):
        job_id = client.submit_job("noop")["job_id"]
        client.wait_for_jobs([job_id])
        heads[job_id] = client.status()["seq"]
    events = client.watch("beginning", types=["job.completed"], follow=False)
    ends = {each["data"]["job_id"]: each["seq"] for each in events if each["data"]["job_id"] in heads}
    assert ends.keys() == heads.keys()
    assert [job_id for job_id, end in ends.items() if end > heads[job_id]] == []


def test_a_short_lease_lasts_as_long_as_it_says_also_after_a_time_without_leases() -> None:
    clock = [0.0]
    time = WorkingTime(lambda: clock[0])
    clock[0] += 3_600  # no leases, so nobody has measured the time
    attempt = Attempt(QueuedJob(1, "elsewhere"), "worker", time, 0.5)
    job: Any = SimpleNamespace(timeout_s=None, done=None, total=None)
    attempt.begin(job)
    time.tick()
    assert attempt.lease_left_s == 0.5
    clock[0] += 0.4
    time.tick()
    assert not attempt.expired
    clock[0] += 0.2
    time.tick()
    assert attempt.expired
