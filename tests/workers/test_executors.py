"""[jobs] executor: workers of Celery, RQ and Dramatiq embed for the daemon, through a real broker. Whatever happens to
them, no document is lost or doubled, and the daemon does the work itself if they do not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pika
import pytest

from tests.cli.terminal import on_a_terminal
from tests.support import history
from tests.support.brokers import RabbitMQ, RedisServer
from tests.support.instance import Instance
from tests.support.proxy import Proxy
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import Code, VecError
from vecd.text import embedders
from vecd.workers import executor_table
from vecd.workers.executor_settings import shown
from vecd.workers.executor_table import FRAMEWORKS

from .frameworks import Worker, workers
from .slow_embedder import BUG, POISON, STUCK, environment

ON_REDIS = [("celery", "redis"), ("rq", "redis"), ("dramatiq", "redis")]
ON_RABBITMQ = [("celery", "rabbitmq"), ("dramatiq", "rabbitmq")]
#: Fast enough not to wait for, and slow enough to be offloaded.
TEXT_S = 0.0005
#: For tests in which workers must not be given up.
PATIENT_S = 120.0


@pytest.fixture
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param[0]
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a broker, whose queue `vecd` is this test's and empty."""
    if request.node.callspec.params["framework"][1] == "redis":
        yield request.getfixturevalue("own_redis").url
        return
    server: RabbitMQ = request.getfixturevalue("rabbitmq_server")
    base = tmp_path_factory.getbasetemp()
    with open((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "queue-of-workers", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(server.url))) as connection:
            connection.channel().queue_delete("vecd")
        yield server.url


def everywhere(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("framework", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


@contextlib.contextmanager
def daemon(
    framework: str, url: str, timeout_s: float = PATIENT_S, text_s: float = TEXT_S, **more: str
) -> Iterator[tuple[Instance, Client]]:
    """A daemon that this framework embeds for, with the library `slow`."""
    settings = {"EXECUTOR": framework, "EXECUTOR_URL": url, "EXECUTOR_TIMEOUT_S": str(timeout_s)}
    variables = {f"VEC_JOBS_{name}": value for name, value in settings.items()}
    with Instance(environment(text_s, **variables, **more)) as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client:
            client.request("library.create", library="slow", embedder="slow", first_embedder="none")
            yield instance, client


def numbered(count: int, word: str = "text") -> list[dict[str, Any]]:
    return [{"id": f"d{number:05}", "text": f"{word} {number}"} for number in range(count)]


def executor(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.jobs_status()["executor"]
    return found


def check_vectors(client: Client, documents: list[dict[str, Any]], library: str = "slow") -> None:
    """Each document has the vectors of its own text."""
    embedder = embedders.make("hash")
    assert embedder is not None
    wanted = embedder.embed([document["text"] for document in documents])
    found = client.get([document["id"] for document in documents], library, vectors=True)
    for document, vector in zip(found, wanted, strict=True):
        assert document is not None
        (chunk,) = document["chunks"]
        assert np.array_equal(np.frombuffer(chunk["vector"], "<f4"), vector), document["id"]


def check_once(client: Client, documents: list[dict[str, Any]]) -> None:
    """Each document was added once, and is as it was sent."""
    added = [event for event in history.log_of(client) if event["type"] == "document.added"]
    assert len(added) == len(documents)
    check_vectors(client, documents)
    history.check(client)


# --- every framework on every broker ---------------------------------------------------------------------------------


@everywhere(*ON_REDIS, *ON_RABBITMQ)
def test_workers_embed_what_is_ingested_and_reembedded(framework: str, url: str) -> None:
    documents = numbered(1_500)
    with workers(1, framework, url, TEXT_S), daemon(framework, url) as (instance, client):
        assert client.ingest(documents, "slow")["added"] == 1_500
        check_once(client, documents)
        found = executor(client)
        assert (found["executor"], found["state"], found["workers"]) == (framework, "working", 1)
        assert (found["texts"], found["here_texts"], found["error"]) == (1_500, 0, None)
        assert found["broker"] == shown(url)
        assert f"embedding    {framework} at {shown(url)}: 1 worker\n" in on_a_terminal(instance, "status").out

        client.request("library.create", library="other", embedder="hash")
        client.ingest(documents, "other")
        job_id = client.submit_job("reembed", {"embedder": "slow", "first_embedder": "none"}, library="other")["job_id"]
        (job,) = client.wait_for_jobs([job_id])
        assert (job["state"], job["result"]["documents"]) == ("completed", 1_500)
        check_vectors(client, documents, "other")
        assert executor(client)["texts"] == 3_000
        assert executor(client)["here_texts"] == 0


@everywhere(*ON_REDIS, *ON_RABBITMQ)
def test_a_worker_that_is_killed_in_a_batch_loses_and_doubles_nothing(framework: str, url: str, tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    documents = [*numbered(600), {"id": "stuck", "text": f"a {STUCK} text"}]
    answers: list[dict[str, Any]] = []
    with daemon(framework, url, timeout_s=5.0) as (instance, client):

        def ingest() -> None:
            with instance.connect(timeout_s=None) as other:
                answers.append(other.ingest(documents, "slow"))

        with Worker(framework, url, TEXT_S, VEC_TEST_STUCK=str(stuck)) as worker:
            until(lambda: executor(client)["workers"], "the worker")
            ingesting = threading.Thread(target=ingest)
            ingesting.start()
            until(stuck.exists, "a batch in which the worker is stuck")
            worker.kill()
        with workers(1, framework, url, TEXT_S):
            ingesting.join()
        (answer,) = answers
        assert (answer["added"], answer["failed"]) == (601, 0)
        check_once(client, documents)


@everywhere(*ON_REDIS)
def test_without_a_worker_the_daemon_embeds_itself_and_says_so_until_one_comes(framework: str, url: str) -> None:
    documents = numbered(1_200)
    with daemon(framework, url, timeout_s=4.0) as (instance, client):
        assert client.ingest(documents[:600], "slow")["added"] == 600
        found = executor(client)
        assert (found["state"], found["texts"], found["here_texts"]) == ("silent", 0, 600)
        for command in (["status"], ["jobs", "status"]):
            out = " ".join(on_a_terminal(instance, *command, columns=200).out.split())
            assert "no worker answers, so the daemon embeds itself, slower" in out
        assert 'event="no worker answers, so the daemon embeds itself, which is slower"' in instance.log()

        with workers(1, framework, url, TEXT_S):
            until(lambda: executor(client)["state"] == "working", "an answer of the worker")
            assert client.ingest(documents[600:], "slow")["added"] == 600
            assert executor(client)["texts"] > 0
        check_once(client, documents)


@everywhere(*ON_REDIS)
def test_a_broker_that_loses_everything_in_a_restart_loses_no_document(
    framework: str, url: str, own_redis: RedisServer
) -> None:
    own_redis.durable = False
    own_redis.restart(killed=True)
    documents = numbered(4_000)
    done = threading.Event()
    with workers(1, framework, url, 0.001), daemon(framework, url, timeout_s=5.0) as (instance, client):

        def ingest() -> None:
            with instance.connect(timeout_s=None) as other:
                other.ingest(documents, "slow")
            done.set()

        ingesting = threading.Thread(target=ingest)
        ingesting.start()
        until(lambda: executor(client)["texts"], "a first answer")
        own_redis.restart(killed=True)
        assert not done.is_set()
        # Nothing else waits for the broker.
        client.request("library.create", library="other", embedder="hash")
        assert client.ingest(numbered(10), "other")["added"] == 10
        ingesting.join()
        assert client.delete(["d00000"], "other")["deleted"] == 1
        client.request("library.delete", library="other")
        assert client.count("slow")["documents"] == 4_000
        check_vectors(client, documents)
        history.check(client)


@everywhere(*ON_REDIS, *ON_RABBITMQ)
def test_a_network_that_fails_delays_only_what_is_embedded(framework: str, url: str) -> None:
    host, _, port = url.rpartition("@")[2].removeprefix("redis://").strip("/").partition(":")
    documents = numbered(900)
    with Proxy((host, int(port))) as network, workers(1, framework, url, TEXT_S):
        through = url.replace(f"{host}:{port}", network.address)
        with daemon(framework, through, timeout_s=8.0) as (instance, client):
            assert client.ingest(documents[:300], "slow")["added"] == 300
            network.black_hole()
            answers: list[dict[str, Any]] = []

            def ingest() -> None:
                with instance.connect(timeout_s=None) as other:
                    answers.append(other.ingest(documents[300:600], "slow"))

            ingesting = threading.Thread(target=ingest)
            ingesting.start()
            client.request("library.create", library="other", embedder="hash")
            assert client.ingest(numbered(300), "other")["added"] == 300  # at once
            assert client.ingest([{"id": "one", "text": "wholly other words"}], "slow")["added"] == 1
            assert next(client.search("wholly other words", library="slow", mode="vector", k=1))["document_id"] == "one"
            assert not answers
            ingesting.join()
            assert answers[0]["added"] == 300
            network.heal()
            network.cut()
            until(lambda: executor(client)["state"] == "working", "the broker's return")
            texts = executor(client)["texts"]
            assert client.ingest(documents[600:], "slow")["added"] == 300
            assert executor(client)["texts"] == texts + 300
            check_vectors(client, documents)
            history.check(client)


# --- poison -----------------------------------------------------------------------------------------------------------


@everywhere(*ON_REDIS)
def test_a_text_that_crashes_the_embedder_is_refused_alone(framework: str, url: str) -> None:
    documents = numbered(600)
    bad = [{"id": "p", "text": f"a {POISON}ed text"}, {"id": "b", "text": f"a {BUG}"}]
    with workers(1, framework, url, TEXT_S), daemon(framework, url, timeout_s=4.0) as (_, client):
        answer = client.ingest([*documents[:300], bad[0], *documents[300:], bad[1]], "slow")
        assert (answer["added"], answer["failed"]) == (600, 2)
        assert [(each["index"], each["code"]) for each in answer["errors"]] == [
            (300, "invalid_document"), (601, "invalid_document"),
        ]  # fmt: skip
        check_once(client, documents)


@everywhere(*ON_REDIS)
def test_a_message_that_is_no_request_harms_no_worker(framework: str, url: str) -> None:
    open_sender, _ = FRAMEWORKS[framework].connect()
    with contextlib.closing(open_sender(url, "nobody")) as sender:
        for number in range(3):
            sender.send(f"garbage-{number}", b"\xc1garbage", 1, PATIENT_S, PATIENT_S)
    with workers(1, framework, url, TEXT_S), daemon(framework, url) as (_, client):
        assert client.ingest(numbered(300), "slow")["added"] == 300
        assert executor(client)["texts"] == 300
        check_once(client, numbered(300))


# --- scaling ----------------------------------------------------------------------------------------------------------


@everywhere(("dramatiq", "redis"))
def test_two_workers_take_half_the_time_of_one(framework: str, url: str) -> None:
    text_s, count = 0.001, 12 * 256  # a quarter of a second a message
    took_s = {}
    for number in (1, 2):
        with workers(number, framework, url, text_s), daemon(framework, url) as (_, client):
            client.ingest(numbered(32 * number, "first"), "slow")  # the workers have started
            client.request("library.create", library="other", embedder="hash")
            client.ingest(numbered(count), "other")
            started = time.perf_counter()
            client.ingest(numbered(count), "slow")
            ingested = time.perf_counter()
            params = {"embedder": "slow", "first_embedder": "none"}
            job_id = client.submit_job("reembed", params, library="other")["job_id"]
            assert client.wait_for_jobs([job_id])[0]["state"] == "completed"
            took_s[number] = (ingested - started, time.perf_counter() - ingested)
            assert executor(client)["here_texts"] == 0
    for one, two in zip(took_s[1], took_s[2], strict=True):
        assert two < 0.8 * one, took_s  # a half, and a busy machine


# --- secrets ----------------------------------------------------------------------------------------------------------


@everywhere(*ON_REDIS)
def test_the_password_of_a_broker_is_shown_nowhere(
    framework: str, url: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    own_redis.password = "hunter2-of-the-broker"
    own_redis.restart()
    secret = tmp_path / "url"
    secret.write_text(url.replace("redis://", f"redis://:{own_redis.password}@") + "\n")
    variables = {
        "VEC_JOBS_EXECUTOR": framework, "VEC_JOBS_EXECUTOR_URL_FILE": str(secret), "VEC_LOG_LEVEL": "debug",
        "VEC_JOBS_EXECUTOR_TIMEOUT_S": "3",
    }  # fmt: skip
    with Instance(environment(TEXT_S, **variables)) as instance:
        process = instance.start()
        with instance.connect() as client:
            client.request("library.create", library="slow", embedder="slow", first_embedder="none")
            with Worker(framework, secret.read_text().strip(), TEXT_S):
                until(lambda: executor(client)["workers"], "the worker")
                assert client.ingest(numbered(300), "slow")["added"] == 300
                assert executor(client)["texts"] == 300
            own_redis.password = "another-password-now"
            own_redis.restart(killed=True)
            until(lambda: executor(client)["error"], "the broker's refusal")
            shown_everywhere = [
                str(client.status()), instance.vec("status").stdout, instance.settings.log.read_text(),
                Path(f"/proc/{process.pid}/cmdline").read_text(),
            ]  # fmt: skip
            for text in shown_everywhere:
                assert "hunter2" not in text


# --- without a framework ----------------------------------------------------------------------------------------------


def test_a_slow_embedder_delays_no_other_library() -> None:
    with Instance(environment(0.01)) as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client, instance.connect(timeout_s=None) as other:
            client.request("library.create", library="slow", embedder="slow", first_embedder="none")
            client.request("library.create", library="fast", embedder="hash")
            answers: list[dict[str, Any]] = []
            ingesting = threading.Thread(target=lambda: answers.append(client.ingest(numbered(600), "slow")))
            ingesting.start()
            until(lambda: executor(other)["here_waiting"], "the first batch")
            assert other.ingest(numbered(300), "fast")["added"] == 300
            assert other.ingest([{"id": "one", "text": "wholly other words"}], "slow")["added"] == 1
            assert next(other.search("wholly other words", library="slow", mode="vector", k=1))["document_id"] == "one"
            assert not answers
            ingesting.join()
            assert answers[0]["added"] == 600
            check_vectors(other, numbered(600))


def test_a_daemon_that_stops_does_not_wait_for_a_slow_embedder() -> None:
    with Instance(environment(0.05, VEC_DRAIN_S="0.5")) as instance:
        process = instance.start()
        with instance.connect(timeout_s=None) as client, instance.connect() as other:
            client.request("library.create", library="slow", embedder="slow", first_embedder="none")
            refused: list[VecError] = []

            def ingest() -> None:
                try:
                    client.ingest(numbered(3_000), "slow")
                except VecError as error:
                    refused.append(error)

            ingesting = threading.Thread(target=ingest)
            ingesting.start()
            until(lambda: executor(other)["here_waiting"], "the first batch")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0  # far less than the 150 s that it has begun
            ingesting.join()
            assert refused[0].retryable


def test_a_background_ingest_goes_through_the_executor_and_applies_each_line_once(tmp_path: Path) -> None:
    lines = [f'{{"id": "d{number:05}", "text": "text {number}"}}\n' for number in range(1_100)]
    lines[700] = f'{{"id": "bad", "text": "a {POISON}ed text"}}\n'
    with Instance(environment(TEXT_S)) as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client:
            client.request("library.create", library="slow", embedder="slow", first_embedder="none")
            instance.vec("ingest", "-l", "slow", "--background", stdin="".join(lines))
            (job,) = client.wait_for_jobs([1])
            assert job["state"] == "completed", job
            assert (job["result"]["added"], job["result"]["failed"]) == (1_099, 1)
            assert ":701: " in instance.vec("jobs", "logs", "1").stdout
            check_once(client, [each for number, each in enumerate(numbered(1_100)) if number != 700])


@pytest.mark.parametrize(
    ("configuration", "environment_", "message"),
    [
        ('executor = "sidekiq"', {}, "must be one of local, celery, rq, dramatiq"),
        ('executor = "rq"', {}, "no URL of a broker is set"),
        ('executor = "rq"\nexecutor_url = "redis://:secret@h"', {}, "holds a password"),
        ('executor = "rq"\nexecutor_url = "amqp://h"', {}, "which RQ cannot use"),
        ('executor = "rq"', {"VEC_JOBS_EXECUTOR_URL": "nonsense:secret"}, "not the URL of a broker: it begins"),
        ('executor = "rq"\nexecutor_url_file = "/nonexistent"', {}, "cannot read the broker's URL"),
        ("executor_timeout_s = 0", {}, "must be a number of seconds from 1"),
        ("executor_processes = 1.5", {}, "must be a whole number from 1"),
        ('offload = "none"', {}, "must be one of slow, all"),
        ("executors = 1", {}, "did you mean 'executor'?"),
    ],
)
def test_a_wrong_setting_is_an_error_of_the_start(
    configuration: str, environment_: dict[str, str], message: str
) -> None:
    with Instance(environment_) as instance:
        instance.settings.config.write_text(f"[jobs]\n{configuration}\n")
        done = instance.vec("status", status=None)
        assert done.returncode == 69, done.stderr
        assert message in done.stderr
        assert "secret" not in done.stderr.replace("holds a password", "")


def test_a_framework_that_is_not_installed_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor_table, "find_spec", lambda name: None)
    for name, about in FRAMEWORKS.items():
        with pytest.raises(VecError, match=rf"{about.what} is not installed: pip install 'vecd\[{name}\]'") as refusal:
            about.connect()
        assert refusal.value.code == Code.SETTINGS
