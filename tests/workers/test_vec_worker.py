"""`vec worker`: processes that share the texts of a reembed, and run jobs; killed, stopped, cut off, told to end."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import history
from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.waiting import until
from tests.workers.leased import Worker
from tests.workers.slow_embedder import WORKER_FAILURE, WORKER_POISON, environment
from vecd.client import Client
from vecd.errors import VecError
from vecd.text.embedders.hash import Hash

#: A task of 256 texts takes half a second.
SLOW = environment(0.002)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance(SLOW) as made:
        made.start()
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


@pytest.fixture
def library(client: Client, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("[", "-").replace("]", "")[:60]
    filled(client, name)
    return str(name)


def filled(client: Client, library: str, count: int = 1_200) -> None:
    client.request("library.create", library=library, embedder="wordllama", index="flat")
    client.ingest([{"id": f"d{n:04}", "text": f"a cat, number {n}"} for n in range(count)], library)


def reembed(client: Client, library: str) -> int:
    return int(client.submit_job("reembed", {"embedder": "slow", "first_embedder": "none"}, library=library)["job_id"])


def completed(client: Client, job_id: int, documents: int = 1_200) -> None:
    (job,) = client.wait_for_jobs([job_id], timeout_s=60)
    assert (job["state"], job["result"]["documents"]) == ("completed", documents), job["error"]


def right(client: Client, library: str) -> None:
    """Every document has the vector of its own text, by the new embedder, and was updated once."""
    ids = [each["id"] for each in client.documents(library)]
    found = [document for document in client.get(ids, library, vectors=True) if document is not None]
    wanted = Hash().embed([each["chunks"][0]["text"] for each in found])
    got = np.array([np.frombuffer(each["chunks"][0]["vector"], "<f4") for each in found])
    assert np.array_equal(got, wanted)
    updates = [each["data"]["id"] for each in client.watch("beginning", libraries=[library], follow=False)
               if each["type"] == "document.updated"]  # fmt: skip
    assert sorted(updates) == ids


def holds_tasks(client: Client, *workers: Worker) -> bool:
    """Whether each of these workers holds a task."""
    busy = {each["worker"].partition("/")[0] for each in client.workers() if each["kind"] == "reembed"}
    return {worker.name for worker in workers} <= busy


def present(client: Client, worker: Worker) -> bool:
    return any(each["worker"].partition("/")[0] == worker.name for each in client.workers())


def test_workers_share_the_texts_of_one_reembed_and_each_document_gets_its_own_vector(
    instance: Instance, client: Client, library: str
) -> None:
    with Worker(instance) as first, Worker(instance, "--concurrency", "2") as second:
        until(lambda: present(client, first) and present(client, second))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, first, second), "both hold tasks")
        assert {each["job_id"] for each in client.workers() if each["kind"]} == {job_id}
        completed(client, job_id)
        done = [first.stop(), second.stop()]
    assert sum(each["texts"] for each in done) == 1_200
    assert all(each["tasks"] for each in done)
    assert [(each["failed"], each["lost"]) for each in done] == [(0, 0), (0, 0)]
    right(client, library)
    history.check(client)


def test_without_workers_the_daemon_embeds_itself(client: Client, library: str) -> None:
    completed(client, reembed(client, library))
    right(client, library)


def test_a_killed_worker_loses_its_task_and_nothing_else(instance: Instance, client: Client, library: str) -> None:
    with Worker(instance, "--lease", "1") as killed, Worker(instance, "--lease", "1") as other:
        until(lambda: present(client, killed) and present(client, other))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, killed))
        killed.process.kill()
        completed(client, job_id)
        assert other.stop()["texts"] >= 1_200 - 256
    right(client, library)
    assert client.job(job_id)["attempt"] == 1


def test_if_the_only_worker_is_killed_the_daemon_goes_on_itself(
    instance: Instance, client: Client, library: str
) -> None:
    with Worker(instance, "--lease", "1") as killed:
        until(lambda: present(client, killed))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, killed))
        killed.process.kill()
        completed(client, job_id)
    right(client, library)
    assert "the daemon embeds texts itself" in instance.log()


def test_a_worker_that_was_stopped_past_its_lease_is_refused_when_it_answers(
    instance: Instance, client: Client, library: str
) -> None:
    with Worker(instance, "--lease", "1") as late, Worker(instance, "--lease", "5"):
        until(lambda: present(client, late))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, late))
        late.process.send_signal(signal.SIGSTOP)
        completed(client, job_id)
        late.process.send_signal(signal.SIGCONT)
        until(lambda: any("was lost" in line for line in late.said), "the worker notices")
        assert late.stop()["lost"] == 1, late.said
    right(client, library)


def test_a_worker_that_is_told_to_end_finishes_its_task_first(instance: Instance, client: Client, library: str) -> None:
    with Worker(instance, "--lease", "100", VEC_TEST_EMBED_S="0.008") as ended:
        until(lambda: present(client, ended))
        job_id = reembed(client, library)
        until(lambda: any(98 < (each["lease_left_s"] or 0) < 99.5 for each in client.workers()), "it works on a task")
        done = ended.stop()
    assert done["tasks"] >= 1
    assert (done["failed"], done["lost"], done["returned"]) == (0, 0, 0)
    completed(client, job_id)
    right(client, library)


def test_a_worker_without_time_to_finish_returns_its_task(instance: Instance, client: Client, library: str) -> None:
    with Worker(instance, "--grace", "0", "--lease", "600", VEC_TEST_EMBED_S="1") as ended:
        until(lambda: present(client, ended))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, ended))
        assert ended.stop()["returned"] == 1
    completed(client, job_id)  # long before the lease would have expired
    right(client, library)


def test_a_worker_that_waits_for_work_ends_at_once(instance: Instance, client: Client) -> None:
    with Worker(instance, "--grace", "60") as idle:
        until(lambda: present(client, idle))
        assert idle.stop() == {
            "worker": idle.name, "tasks": 0, "texts": 0, "jobs": 0, "failed": 0, "lost": 0, "returned": 0,
        }  # fmt: skip
        until(lambda: not present(client, idle), "it is gone from the list")


@pytest.mark.parametrize("word", [WORKER_POISON, WORKER_FAILURE])
def test_a_text_that_no_worker_can_embed_is_embedded_by_the_daemon(
    instance: Instance, client: Client, word: str
) -> None:
    library = f"hard-{word}"
    filled(client, library, 300)
    client.ingest([{"id": "hard", "text": f"a text with {word}"}], library)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(instance, "--lease", "1")) for _ in range(4)]
        until(lambda: all(present(client, each) for each in workers))
        completed(client, reembed(client, library), 301)
    right(client, library)


def test_a_cancelled_reembed_takes_its_tasks_from_the_workers(instance: Instance, client: Client, library: str) -> None:
    with Worker(instance) as worker:
        until(lambda: present(client, worker))
        job_id = reembed(client, library)
        until(lambda: holds_tasks(client, worker))
        client.cancel_jobs([job_id])
        until(lambda: client.job(job_id)["state"] == "cancelled")
        until(lambda: not holds_tasks(client, worker))
        assert client.library(library)["embedder"] == "wordllama"
        assert worker.stop()["failed"] == 0


def test_a_reembed_survives_a_killed_daemon_and_its_workers_come_back() -> None:
    with Instance(SLOW) as instance:
        daemon = instance.start()
        with Worker(instance) as first, Worker(instance) as second:
            with instance.connect() as client:
                filled(client, "killed")
                until(lambda: present(client, first) and present(client, second))
                job_id = reembed(client, "killed")
                until(lambda: client.job(job_id)["checkpoint"], "a step")
                daemon.kill()
                daemon.wait()
            instance.start()
            with instance.connect() as client:
                completed(client, job_id)
                right(client, "killed")
                until(lambda: present(client, first) and present(client, second), "they are back")
                until(lambda: any("connected again" in line for line in first.said), "it says so")
            assert any("trying again" in line for line in first.said)
            assert sum(each.stop()["texts"] for each in (first, second)) >= 256


def test_workers_work_through_a_gateway_with_a_key_and_survive_its_restart(tmp_path: Path) -> None:
    with Instance(SLOW) as instance:
        instance.start()
        key = instance.vec("keys", "create", "worker", "--scope", "read", "--scope", "write").stdout
        key = json.loads(key)["key"] if key.startswith("{") else key.strip()
        with Gateway(instance) as gateway, instance.connect() as client:
            filled(client, "remote")
            elsewhere = {"VEC_HOME": str(tmp_path), "VEC_CONNECT": gateway.websocket_url, "VEC_KEY": key}
            address = gateway.url.removeprefix("http://")
            with Worker(instance, **elsewhere) as first, Worker(instance, **elsewhere) as second:
                until(lambda: present(client, first) and present(client, second))
                job_id = reembed(client, "remote")
                until(lambda: holds_tasks(client, first, second))
                gateway.process.kill()
                gateway.process.wait()
                with Gateway(instance, "--listen", address):
                    completed(client, job_id)
                    right(client, "remote")
                    until(lambda: present(client, first) and present(client, second), "they are back")
                    done = [each.stop() for each in (first, second)]
            assert sum(each["texts"] for each in done) >= 256
            assert not any(tmp_path.iterdir())


def test_a_key_that_may_not_write_cannot_claim(tmp_path: Path) -> None:
    with Instance() as instance:
        instance.start()
        said = instance.vec("keys", "create", "reader", "--scope", "read").stdout
        key = json.loads(said)["key"] if said.startswith("{") else said.strip()
        with Gateway(instance) as gateway:
            elsewhere = {"VEC_HOME": str(tmp_path), "VEC_CONNECT": gateway.websocket_url, "VEC_KEY": key}
            with Worker(instance, **elsewhere) as denied:
                until(lambda: denied.process.poll() is not None, "it ends")
            assert denied.process.returncode == 1
            assert any("forbidden" in line for line in denied.said)


def test_workers_embed_the_texts_of_an_ingest(instance: Instance, client: Client) -> None:
    client.request("library.create", library="ingested", embedder="slow", first_embedder="none", index="flat")
    with Worker(instance, "--kinds", "embed", "-c", "2") as worker:
        until(lambda: present(client, worker))
        documents = [{"id": f"d{n:04}", "text": f"a cat, number {n}"} for n in range(600)]
        assert client.ingest(documents, "ingested")["added"] == 600
        assert worker.stop()["texts"] >= 512
    found = client.get([each["id"] for each in documents], "ingested", vectors=True)
    got = [np.frombuffer(each["chunks"][0]["vector"], "<f4") for each in found if each is not None]
    assert np.array_equal(got, Hash().embed([each["text"] for each in documents]))


# --- what the daemon accepts from a worker ----------------------------------------------------------------------------


def claim(client: Client, name: str, **fields: Any) -> dict[str, Any] | None:
    return client.claim_job(name, ["reembed"], embedders=["slow"], **fields)


def refused(call: Any, *arguments: Any, **fields: Any) -> str:
    with pytest.raises(VecError) as refusal:
        call(*arguments, **fields)
    return refusal.value.code


def test_an_answer_counts_once_and_only_from_the_worker_that_holds_the_task(instance: Instance, client: Client) -> None:
    filled(client, "fenced", 100)
    with instance.connect() as own:
        pending = own.submit(
            "jobs.claim", worker="first", kinds=["reembed"], embedders=["slow"], lease_s=0.5, wait_s=30
        )
        until(lambda: any(each["worker"] == "first" for each in client.workers()))
        job_id = reembed(client, "fenced")
        late = pending.result()["task"]
    second = claim(client, "second", lease_s=30, wait_s=30)
    assert second is not None
    assert (second["texts"], second["job_id"]) == (late["texts"], job_id)
    assert second["task_id"] != late["task_id"]
    wrong = np.full((100, 256), 7, "<f4").tobytes()
    assert refused(client.heartbeat_task, late["task_id"]) == "lease_lost"
    assert refused(client.finish_task, late["task_id"], vectors=wrong) == "lease_lost"
    assert refused(client.finish_task, "no such task", vectors=wrong) == "lease_lost"
    assert client.heartbeat_task(second["task_id"])["lease_s"] == 30
    vectors = Hash().embed(second["texts"]).astype("<f4").tobytes()
    client.finish_task(second["task_id"], vectors=vectors)
    assert refused(client.finish_task, second["task_id"], vectors=wrong) == "lease_lost"
    completed(client, job_id, 100)
    right(client, "fenced")


def test_bytes_that_are_not_the_vectors_of_the_task_are_refused_and_the_task_goes_on(
    instance: Instance, client: Client
) -> None:
    filled(client, "wrong", 10)
    with instance.connect() as own:
        pending = own.submit("jobs.claim", worker="bad", kinds=["reembed"], embedders=["slow"], wait_s=30)
        until(lambda: any(each["worker"] == "bad" for each in client.workers()))
        job_id = reembed(client, "wrong")
        task = pending.result()["task"]
        nan, huge = np.zeros((10, 256), "<f4"), np.zeros((10, 256), "<f4")
        nan[3, 5], huge[9, 0] = np.nan, 3e38
        for vectors in (b"", b"abc", np.zeros((10, 255), "<f4").tobytes(), nan.tobytes()):
            if task is None:
                break
            assert refused(own.finish_task, task["task_id"], vectors=vectors) == "invalid_request"
            task = claim(own, "bad")
        assert task is None  # three failures: the daemon does it
    completed(client, job_id, 10)
    right(client, "wrong")


def test_a_task_goes_only_to_a_worker_that_has_its_embedder(instance: Instance, client: Client) -> None:
    filled(client, "foreign", 10)
    with instance.connect() as own:
        pending = own.submit("jobs.claim", worker="other", kinds=["reembed"], embedders=["wordllama"], wait_s=30)
        until(lambda: any(each["worker"] == "other" for each in client.workers()))
        completed(client, reembed(client, "foreign"), 10)
        assert not pending.ready


# --- jobs -------------------------------------------------------------------------------------------------------------


def exported(path: Path) -> list[Any]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda each: str(each["id"]))


def test_a_worker_exports_what_the_daemon_exports(
    instance: Instance, client: Client, library: str, tmp_path: Path
) -> None:
    client.ingest([{"id": "t", "title": "A title", "texts": ["one", "two"], "metadata": {"n": 1}}], library)
    paths = [tmp_path / "inside.ndjson", tmp_path / "outside.ndjson"]
    params = {"vectors": True}
    job_id = client.submit_job("export", {"path": str(paths[0]), **params}, library=library)["job_id"]
    (job,) = client.wait_for_jobs([job_id])
    assert job["state"] == "completed"
    with Worker(instance, "--kinds", "export") as worker:
        until(lambda: present(client, worker))
        job_id = client.submit_job("export", {"path": str(paths[1]), **params}, library=library)["job_id"]
        (job,) = client.wait_for_jobs([job_id])
        assert worker.stop()["jobs"] == 1
    assert job["state"] == "completed", job["error"]
    assert job["result"]["documents"] == 1_201
    assert job["result"]["bytes"] == paths[1].stat().st_size
    assert client.job(job_id)["attempts"][0]["worker"].startswith(worker.name)
    assert exported(paths[0]) == exported(paths[1])


@pytest.mark.parametrize("how", ["killed", "stopped past its lease"])
def test_an_export_that_a_worker_began_is_completed_and_no_other_file_is_left(
    instance: Instance, client: Client, tmp_path: Path, how: str
) -> None:
    library, path = f"exported-{how[:6]}", tmp_path / "out.ndjson"
    client.request("library.create", library=library, embedder="hash", index="flat")
    for start in range(0, 16_000, 2_000):
        client.ingest([{"id": f"d{n:05}", "text": f"cat {n}"} for n in range(start, start + 2_000)], library)
    with Worker(instance, "--kinds", "export", "--lease", "1") as worker:
        until(lambda: present(client, worker))
        job_id = client.submit_job("export", {"path": str(path)}, library=library)["job_id"]
        until(lambda: client.job(job_id)["progress"], "it writes")
        worker.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        (job,) = client.wait_for_jobs([job_id])
        assert job["state"] == "completed", job["error"]
        whole = path.read_bytes()
        if how != "killed":
            worker.process.send_signal(signal.SIGCONT)
            worker.stop()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == whole
    assert {each["id"] for each in exported(path)} == {f"d{n:05}" for n in range(16_000)}


def test_a_cancel_and_a_stop_reach_a_job_of_a_worker(instance: Instance, client: Client) -> None:
    client.pause_jobs(["noop"])
    jobs = [client.submit_job("noop", {"steps": 1_000, "seconds": 0.05})["job_id"] for _ in range(2)]
    with Worker(instance, "--kinds", "noop", "-c", "2", "--lease", "1") as worker:
        until(lambda: present(client, worker))
        client.resume_jobs(["noop"])
        until(lambda: [client.job(each)["checkpoint"] for each in jobs].count(None) == 0, "both have begun")
        held = [each for each in jobs if client.job(each)["attempts"][0]["worker"]]
        assert len(held) == 2
        client.cancel_jobs([jobs[0]])
        until(lambda: client.job(jobs[0])["state"] == "cancelled")
        before = client.job(jobs[1])["checkpoint"]
        done = worker.stop()
        assert done["returned"] == 2
    found = client.job(jobs[1])
    assert found["checkpoint"] >= before
    assert found["attempts"][0]["outcome"] == "stopped"
    client.cancel_jobs([jobs[1]])


def test_what_a_worker_cannot_run_is_an_error(instance: Instance, tmp_path: Path) -> None:
    done = instance.vec("worker", "--kinds", "reembd", status=2)
    assert "did you mean 'reembed'?" in done.stderr
    done = instance.vec("--connect", "ws://127.0.0.1:1", "worker", "--kinds", "export", status=2)
    assert "--output" in done.stderr
    done = instance.vec("--connect", "ws://127.0.0.1:1", "worker", status=69)
    assert "127.0.0.1:1" in done.stderr
    done = instance.vec("worker", "--output", str(tmp_path / "missing"), status=2)
    assert "missing is not a folder" in done.stderr
