"""Jobs through a real daemon: what is submitted runs once, in its order, and can be waited for, stopped and retried."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

LONG = {"steps": 2_000, "seconds": 0.02}


def state(client: Client, job_id: int) -> str:
    return str(client.job(job_id)["state"])


def submitted(client: Client, kind: str = "noop", params: dict[str, Any] | None = None, **fields: Any) -> int:
    return int(client.submit_job(kind, params, **fields)["job_id"])


def running(client: Client, **fields: Any) -> int:
    """A job that runs until it is cancelled."""
    job_id = submitted(client, "noop", LONG, **fields)
    until(lambda: state(client, job_id) == "running", "its start")
    return job_id


def begun(client: Client) -> list[int]:
    """The jobs in the order in which they have begun, by the log."""
    return [event["data"]["job_id"] for event in history.log_of(client) if event["type"] == "job.started"]


def refused(client: Client, kind: str, params: dict[str, Any] | None = None, **fields: Any) -> VecError:
    with pytest.raises(VecError) as refusal:
        client.submit_job(kind, params, **fields)
    return refusal.value


def test_a_job_completes_with_its_result_and_its_history(client: Client) -> None:
    job_id = submitted(client, "noop", {"steps": 3})
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["attempt"], job["result"], job["error"]) == ("completed", 1, {"steps": 3}, None)
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    shown = client.job(job_id)
    assert shown["params"] == {"steps": 3}
    assert shown["progress"] == {"done": 3, "total": 3, "unit": "steps", "rate": None, "left_s": None}
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["completed"]


def test_the_life_of_a_job_is_in_the_feed(client: Client) -> None:
    job_id = submitted(client)
    client.wait_for_jobs([job_id])
    told = [e for e in history.log_of(client) if e["type"].startswith("job.") and e["data"]["job_id"] == job_id]
    assert [event["type"] for event in told] == ["job.submitted", "job.started", "job.completed"]
    assert told[-1]["data"] == {
        "job_id": job_id, "kind": "noop", "attempt": 1, "state": "completed", "result": {"steps": 0},
    }  # fmt: skip


def test_a_job_on_a_library_is_among_its_events(client: Client) -> None:
    client.request("library.create", library="told", embedder="none", dimension=4)
    client.wait_for_jobs([submitted(client, "ledger", {"steps": 1}, library="told")])
    watched = client.watch("beginning", follow=False, libraries=["told"], types=["job.*"])
    assert [event["type"] for event in watched] == ["job.submitted", "job.started", "job.completed"]


def test_a_job_takes_effect_behind_the_earlier_writes_of_its_connection(client: Client) -> None:
    for turn in range(10):
        name = f"pipelined-{turn}"
        made = client.submit("library.create", library=name, embedder="hash")
        documents = [{"id": f"d{n}", "text": f"text {n}", "metadata": {"n": n}} for n in range(200)]
        written = client.submit("ingest", library=name, documents=documents)
        thinned = client.submit("jobs.submit", kind="delete", library=name, params={"where": ["n >= 50"]})
        made.result()
        written.result()
        (job,) = client.wait_for_jobs([thinned.result()["job_id"]])
        assert job["result"] == {"deleted": 150}


# --- order ----------------------------------------------------------------------------------------------------------


def test_jobs_begin_by_priority_and_then_by_age(client: Client) -> None:
    client.request("jobs.pause", kinds=["noop"])
    jobs = [submitted(client, lock="one by one", priority=priority) for priority in (0, 5, -5, 5, 0)]
    client.request("jobs.resume", kinds=["noop"])
    client.wait_for_jobs(jobs)
    order = [job_id for job_id in begun(client) if job_id in jobs]
    assert order == [jobs[1], jobs[3], jobs[0], jobs[4], jobs[2]]


def test_a_delayed_job_does_not_begin_before_its_time(client: Client) -> None:
    job_id = submitted(client, delay_s=0.3)
    ready_at = client.job(job_id)["ready_at"]
    (job,) = client.wait_for_jobs([job_id])
    assert job["created_at"] < ready_at <= job["started_at"]


def test_a_job_after_others_begins_when_all_of_them_have_completed(client: Client) -> None:
    parents = [submitted(client, "noop", {"steps": 2, "seconds": 0.1}), submitted(client, delay_s=0.2)]
    child = submitted(client, after=parents)
    assert client.job(child)["after"] == parents
    jobs = {job["job_id"]: job for job in client.wait_for_jobs([*parents, child])}
    assert all(jobs[child]["started_at"] >= jobs[parent]["completed_at"] for parent in parents)


def test_a_job_after_one_that_does_not_complete_is_cancelled_and_says_why(client: Client) -> None:
    parent = running(client)
    child = submitted(client, after=[parent])
    grandchild = submitted(client, after=[child])
    client.cancel_jobs([parent])
    jobs = client.wait_for_jobs([child, grandchild])
    assert [job["state"] for job in jobs] == ["cancelled", "cancelled"]
    assert jobs[0]["error"]["code"] == "cancelled"
    assert str(parent) in jobs[0]["error"]["message"]
    assert refused(client, "noop", after=[parent]).code == "invalid_request"
    assert refused(client, "noop", after=[10**9]).code == "not_found"


def test_a_retried_job_waits_again_for_the_jobs_it_was_submitted_after(client: Client) -> None:
    parent = running(client)
    child = submitted(client, after=[parent])
    grandchild = submitted(client, after=[child])
    client.cancel_jobs([parent])
    client.wait_for_jobs([child, grandchild])
    retried = client.retry_jobs([grandchild, parent, child])  # in whatever order
    assert [job["job_id"] for job in retried] == [grandchild, parent, child]
    assert [client.job(each)["after"] for each in (child, grandchild)] == [[parent], [child]]
    until(lambda: state(client, parent) == "running", "its start")
    assert [state(client, each) for each in (child, grandchild)] == ["pending", "pending"]
    client.cancel_jobs([parent])
    assert [job["state"] for job in client.wait_for_jobs([child, grandchild])] == ["cancelled", "cancelled"]


def test_jobs_that_are_retried_one_by_one_begin_in_the_order_of_their_relation(client: Client) -> None:
    done, parent = submitted(client), submitted(client, "noop", {"steps": 20, "seconds": 0.02}, lock="chain")
    child = submitted(client, after=[done, parent])
    grandchild = submitted(client, after=[child])
    client.cancel_jobs([parent])
    client.wait_for_jobs([done, child, grandchild])
    for each in (parent, child, grandchild):
        client.retry_jobs([each])
    jobs = {job["job_id"]: job for job in client.wait_for_jobs([parent, child, grandchild])}
    assert {job["state"] for job in jobs.values()} == {"completed"}
    assert jobs[child]["started_at"] >= jobs[parent]["completed_at"]
    assert jobs[grandchild]["started_at"] >= jobs[child]["completed_at"]
    assert client.job(child)["after"] == [done, parent]


def test_a_job_is_not_retried_alone_after_one_that_will_not_complete(client: Client) -> None:
    parent = running(client)
    child = submitted(client, after=[parent])
    client.cancel_jobs([parent])
    client.wait_for_jobs([child])
    with pytest.raises(VecError) as refusal:
        client.retry_jobs([child])
    assert refusal.value.code == "invalid_request"
    assert refusal.value.message == f"job {child} runs after job {parent}, which is cancelled"
    assert refusal.value.hint == f"retry both: vec jobs retry {parent} {child}"
    client.drop_jobs([parent])
    with pytest.raises(VecError) as refusal:
        client.retry_jobs([child])
    assert f"job {parent}, which was dropped" in refusal.value.message


def test_a_retried_job_keeps_its_priority_lock_timeout_and_the_delay_of_one_that_never_began(client: Client) -> None:
    fields: dict[str, Any] = {"priority": 7, "lock": "kept", "timeout_s": 30.0, "unique": "kept"}
    job_id = submitted(client, delay_s=3_600, **fields)
    before = client.job(job_id)
    client.cancel_jobs([job_id])
    client.retry_jobs([job_id])
    after = client.job(job_id)
    kept = ("state", "priority", "lock", "timeout_s", "unique", "ready_at")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    client.cancel_jobs([job_id])


def test_a_unique_job_is_not_one_that_is_being_cancelled(instance: Instance, client: Client) -> None:
    """The old one is in a long step, and its end is waited for."""
    old = submitted(client, "noop", {"steps": 1, "seconds": 2.0}, unique="again")
    until(lambda: state(client, old) == "running", "its start")
    with instance.connect() as other:
        cancelling = other.submit("jobs.cancel", job_ids=[old])
        until(lambda: client.job(old)["cancelling"], "the cancellation")
        with pytest.raises(VecError) as refusal:
            client.retry_jobs([old])
        assert refusal.value.code == "busy"
        new = client.submit_job("noop", unique="again")
        cancelling.result()
    assert (new["existing"], new["job_id"] == old, state(client, old)) == (False, False, "cancelled")
    client.wait_for_jobs([new["job_id"]])


def test_a_hundred_submits_at_once_with_one_key_make_one_job(instance: Instance) -> None:
    found: list[tuple[int, bool]] = []
    together = threading.Barrier(100)

    def submit() -> None:
        with instance.connect() as client:
            together.wait()
            job = client.submit_job("noop", LONG, unique="one")
            found.append((job["job_id"], job["existing"]))

    threads = [threading.Thread(target=submit) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100
    assert len({job_id for job_id, _ in found}) == 1
    assert sorted(existing for _, existing in found) == [False] + [True] * 99
    with instance.connect() as client:
        client.cancel_jobs([found[0][0]])
        after = client.submit_job("noop", unique="one")
        assert not after["existing"], "the key of a job that has ended is free"
        client.wait_for_jobs([after["job_id"]])


def test_jobs_with_one_lock_never_run_beside_each_other(client: Client) -> None:
    jobs = [submitted(client, "noop", {"steps": 2, "seconds": 0.01}, lock="alone") for _ in range(8)]
    ended = sorted(client.wait_for_jobs(jobs), key=lambda job: str(job["started_at"]))
    for before, after in itertools.pairwise(ended):
        assert before["completed_at"] <= after["started_at"]


def test_one_library_has_one_rebuild_at_a_time_and_others_have_theirs(client: Client) -> None:
    for name in ("alpha", "beta"):
        client.request("library.create", library=name, embedder="none", dimension=4)
        client.ingest([{"id": f"d{n}", "vector": [n, 1, 2, 3]} for n in range(200)], name)
    jobs = [submitted(client, "rebuild", library=name) for name in ("alpha", "alpha", "alpha", "beta")]
    ended = client.wait_for_jobs(jobs)
    assert {job["state"] for job in ended} == {"completed"}
    alphas = sorted((job for job in ended if job["library"] == "alpha"), key=lambda job: str(job["started_at"]))
    for before, after in itertools.pairwise(alphas):
        assert before["completed_at"] <= after["started_at"]


def test_a_hundred_jobs_run_in_parallel_and_each_completes_once() -> None:
    with Instance() as instance:
        instance.start("--workers", "100", module="tests.jobs.vecd")
        with instance.connect() as client:
            client.request("library.create", library="ledger", embedder="none", dimension=4)
            client.request("jobs.pause", kinds=["ledger"])
            jobs = [submitted(client, "ledger", {"steps": 10, "seconds": 0.3}, library="ledger") for _ in range(100)]
            client.request("jobs.resume", kinds=["ledger"])
            until(lambda: client.request("jobs.status")["running"] == 100, "all of them running")
            ended = client.wait_for_jobs(jobs)
            assert {job["state"] for job in ended} == {"completed"}
            assert {job["attempt"] for job in ended} == {1}
            assert len(history.check(client)["ledger"]) == 1_000
            kinds = [event["type"] for event in history.log_of(client)]
            assert kinds.count("job.started") == kinds.count("job.completed") == 100


# --- pauses ---------------------------------------------------------------------------------------------------------


def test_a_pause_stops_jobs_between_steps_and_they_go_on_where_they_were(client: Client) -> None:
    job_id = submitted(client, "noop", {"steps": 60, "seconds": 0.01})
    until(lambda: (client.job(job_id)["progress"] or {}).get("done"), "a step")
    assert client.request("jobs.pause", kinds=["noop"])["paused"] == ["noop"]
    until(lambda: state(client, job_id) == "pending", "its pause")
    other = submitted(client)
    client.wait_for_jobs([submitted(client, "failer", {"times": 0})])  # another kind goes on
    assert state(client, other) == "pending"
    done = client.job(job_id)["checkpoint"]
    assert 0 < done < 60
    client.request("jobs.resume")
    client.wait_for_jobs([job_id, other])
    job = client.job(job_id)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["paused", "completed"]
    assert (job["attempt"], job["failures"]) == (2, 0)


def test_a_pause_outlasts_the_daemon() -> None:
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            client.request("jobs.pause")
            job_id = submitted(client)
        daemon.kill()
        daemon.wait()
        instance.start()
        with instance.connect() as client:
            assert client.request("jobs.status")["paused"] == [""]
            assert state(client, job_id) == "pending"
            client.request("jobs.resume")
            client.wait_for_jobs([job_id])


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_job_that_fails_is_tried_again_and_each_attempt_is_kept_with_its_error(client: Client) -> None:
    job_id = submitted(client, "failer", {"times": 2})
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["attempt"], job["result"]) == ("completed", 3, {"attempts": 3})
    attempts = client.job(job_id)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["failed", "failed", "completed"]
    assert "attempt 1" in attempts[0]["error"]["message"]
    told = [e for e in history.log_of(client) if e["type"] == "job.failed" and e["data"]["job_id"] == job_id]
    assert [event["data"]["state"] for event in told] == ["pending", "pending"]


def test_a_job_whose_attempts_are_used_up_is_dead_and_goes_on_when_somebody_retries_it(client: Client) -> None:
    job_id = submitted(client, "failer", {"times": 6})
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["attempt"]) == ("dead", 5)
    assert [each["job_id"] for each in client.jobs(states=["dead"])] == [job_id]
    client.retry_jobs([job_id])
    (job,) = client.wait_for_jobs([job_id])
    assert job["state"] == "dead", "its failures are counted anew"
    assert len(client.job(job_id)["attempts"]) == 10
    client.drop_jobs([job_id])
    with pytest.raises(VecError) as gone:
        client.job(job_id)
    assert gone.value.code == "not_found"


def test_an_error_that_another_attempt_cannot_mend_ends_the_job_at_once(client: Client) -> None:
    client.request("library.create", library="short-lived", embedder="none", dimension=4)
    client.request("jobs.pause")
    job_id = submitted(client, "rebuild", library="short-lived")
    client.request("library.delete", library="short-lived")
    client.request("jobs.resume")
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("failed", 1, "not_found")


def test_a_job_that_takes_longer_than_its_timeout_fails_after_whole_steps(client: Client) -> None:
    job_id = submitted(client, "noop", LONG, timeout_s=0.2)
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["error"]["code"]) == ("failed", "timeout")
    shown = client.job(job_id)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["timeout"]
    assert shown["checkpoint"] == shown["progress"]["done"] > 0


# --- cancelling -----------------------------------------------------------------------------------------------------


def test_a_cancel_ends_a_job_in_any_state_but_those_it_does_not_leave(client: Client) -> None:
    client.request("jobs.pause", kinds=["failer"])
    pending, delayed = submitted(client, "failer", {"times": 0}), submitted(client, delay_s=3_600)
    waiting, active = submitted(client, after=[delayed]), running(client)
    until(lambda: client.job(active)["checkpoint"], "a step")
    completed = submitted(client)
    client.wait_for_jobs([completed])
    found = client.cancel_jobs([pending, waiting, delayed, active, completed])
    client.request("jobs.resume")
    by_id = {job["job_id"]: job["state"] for job in found}
    assert by_id == {**dict.fromkeys((pending, waiting, delayed, active), "cancelled"), completed: "completed"}
    assert client.job(active)["checkpoint"] == client.job(active)["progress"]["done"]
    client.cancel_jobs([active])  # again: nothing happens


def test_a_job_that_waits_for_its_next_attempt_can_be_cancelled(client: Client) -> None:
    job_id = submitted(client, "noop", {"fail": "always"})
    until(lambda: client.job(job_id)["failures"], "a failure")
    client.cancel_jobs([job_id])
    assert state(client, job_id) in ("cancelled", "dead")


def test_of_many_jobs_none_is_cancelled_if_one_is_not_there(client: Client) -> None:
    job_id = running(client)
    with pytest.raises(VecError) as refusal:
        client.cancel_jobs([job_id, 10**9])
    assert refusal.value.code == "not_found"
    assert state(client, job_id) == "running"
    client.cancel_jobs([job_id])


def test_what_is_not_over_is_neither_dropped_nor_retried(client: Client) -> None:
    active, completed = running(client), submitted(client)
    client.wait_for_jobs([completed])
    for verb, job_id in ((client.drop_jobs, active), (client.retry_jobs, active), (client.retry_jobs, completed)):
        with pytest.raises(VecError) as refusal:
            verb([job_id])
        assert refusal.value.code == "invalid_request"
    client.cancel_jobs([active])
    client.retry_jobs([active])
    client.cancel_jobs([active])
    client.drop_jobs([active, completed])


# --- looking --------------------------------------------------------------------------------------------------------


def test_a_list_is_filtered_by_state_kind_library_age_and_number_the_newest_first(client: Client) -> None:
    client.request("library.create", library="listed", embedder="none", dimension=4)
    jobs = [submitted(client, "ledger", {"steps": 0}, library="listed") for _ in range(3)]
    jobs.append(submitted(client, "noop", library="listed"))
    client.wait_for_jobs(jobs)

    def listed(**fields: Any) -> list[int]:
        return [job["job_id"] for job in client.jobs(library="listed", **fields)]

    assert listed() == jobs[::-1]
    assert listed(kinds=["ledger"]) == jobs[2::-1]
    assert listed(states=["completed"], limit=2) == jobs[:1:-1]
    assert listed(states=["running", "dead"]) == []
    assert listed(since_s=3_600) == jobs[::-1]
    assert listed(since_s=0) == []
    for wrong in ({"states": ["done"]}, {"kinds": ["leger"]}):
        with pytest.raises(VecError) as refusal:
            list(client.jobs(**wrong))
        assert refusal.value.hint


def test_a_list_of_more_jobs_than_a_page_is_whole(client: Client) -> None:
    jobs = [client.submit("jobs.submit", kind="noop", priority=1) for _ in range(1_100)]
    ids = [pending.result()["job_id"] for pending in jobs]
    client.wait_for_jobs(ids[-500:])
    assert [job["job_id"] for job in client.jobs() if job["priority"] == 1] == sorted(ids, reverse=True)


def test_the_overview_counts_what_is_there_also_after_a_restart() -> None:
    with Instance() as instance:
        daemon = instance.start(module="tests.jobs.vecd")
        with instance.connect() as client:
            client.wait_for_jobs([submitted(client) for _ in range(20)])
            client.wait_for_jobs([submitted(client, "noop", {"fail": "x"}) for _ in range(2)])
            client.cancel_jobs([running(client), submitted(client, delay_s=900)])
            waiting = [submitted(client, delay_s=900) for _ in range(3)]
            client.drop_jobs([next(client.jobs(states=["dead"]))["job_id"]])
            counts = client.request("jobs.status")
            wanted = {"pending": 3, "running": 0, "completed": 20, "failed": 0, "cancelled": 2, "dead": 1}
            assert {key: counts[key] for key in wanted} == wanted
            assert client.status()["jobs"] == {key: value for key, value in counts.items() if key != "jobs"}
        daemon.terminate()
        assert daemon.wait(30) == 0
        instance.start()
        with instance.connect() as client:
            assert client.request("jobs.status") == counts
            assert [job["job_id"] for job in client.jobs(states=["pending"])] == waiting[::-1]


def test_who_waits_is_told_of_each_move_and_of_a_job_that_is_not_there(client: Client) -> None:
    job_id = submitted(client, "noop", {"steps": 2, "seconds": 0.05}, delay_s=0.1)
    states = [reply.body[0]["state"] for reply in client.pages("jobs.wait", job_ids=[job_id]) if reply.kind == "items"]
    assert list(dict.fromkeys(states)) == ["pending", "running", "completed"]
    with pytest.raises(VecError) as missing:
        client.wait_for_jobs([job_id, 10**9])
    assert missing.value.code == "not_found"
    with pytest.raises(VecError) as late:
        client.wait_for_jobs([submitted(client, delay_s=0.5)], timeout_s=0.05)
    assert late.value.code == "timeout"


def test_waiting_for_any_ends_with_the_first(client: Client) -> None:
    slow, quick = running(client), submitted(client)
    found = {job["job_id"]: job["state"] for job in client.wait_for_jobs([slow, quick], any=True)}
    assert found == {slow: "running", quick: "completed"}
    client.cancel_jobs([slow])


def test_what_cannot_be_is_refused_when_it_is_submitted(client: Client) -> None:
    assert refused(client, "nop").hint == "did you mean 'noop'?"
    assert refused(client, "noop", {"stepz": 1}).hint == "did you mean 'steps'?"
    assert refused(client, "noop", {"steps": "many"}).details["field"] == "steps"
    assert refused(client, "noop", {"steps": -1}).code == "invalid_request"
    assert refused(client, "rebuild").code == "invalid_request"
    assert refused(client, "rebuild", library="nowhere").code == "not_found"
    assert refused(client, "verify", library="default").code == "invalid_request"
    assert refused(client, "ingest", {"files": ["/nowhere/at/all"]}).code == "invalid_request"
    assert refused(client, "ingest", {"files": ["here.ndjson"]}).code == "invalid_request"
    assert refused(client, "export", {"path": "/nowhere/x"}, library="default").code == "not_found"
    assert refused(client, "noop", priority=101).details["field"] == "priority"
    assert refused(client, "noop", {"fail": "x" * 70_000}).code == "invalid_request"


def test_old_jobs_are_pruned_by_age_and_by_count_but_not_those_that_failed() -> None:
    with Instance() as instance:
        instance.start(module="tests.jobs.vecd")
        with instance.connect() as client:
            dead = submitted(client, "noop", {"fail": "x"})
            jobs = [submitted(client) for _ in range(30)]
            client.wait_for_jobs([dead, *jobs])
            (pruned,) = client.wait_for_jobs([submitted(client, "prune", {"keep": 10})])
            assert pruned["result"] == {"pruned": 20}
            assert [job["job_id"] for job in client.jobs()][-11:] == [*jobs[:-11:-1], dead]
            client.wait_for_jobs([submitted(client, "prune", {"keep_s": 0})])
            assert {job["job_id"] for job in client.jobs(kinds=["noop"])} == {dead}
            counts = client.request("jobs.status")
            assert (counts["dead"], counts["completed"]) == (1, len(list(client.jobs(states=["completed"]))))
