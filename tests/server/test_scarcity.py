"""A daemon to which the system gives little: it says so at the start, or works as far as that goes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.instance import ROOT, Instance
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError
from vecd.resources import own_descriptors

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")

_MIB = 1 << 20


def limited(option: str, value: int) -> list[str]:
    """A prefix that gives a command a limit of its own."""
    return ["bash", "-c", f'ulimit {option} {value}; exec "$@"', "bash"]


def refused_start(instance: Instance, prefix: list[str]) -> tuple[int, str]:
    """The exit status of a daemon that does not start, and its log."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "vecd"],
        env=instance.environment,
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.decode()


def everything(client: Client) -> None:
    """One of each kind of request, so that every pool and every native library is used."""
    client.ingest([{"id": "a", "text": "hello world"}, {"id": "b", "text": "another line", "metadata": {"n": 1}}])
    for mode in ("vector", "text", "hybrid"):
        assert len(list(client.search("hello world", mode=mode))) >= 1
    assert len(list(client.search("line", where=["n = 1"]))) == 1
    assert client.get(["a"])[0] is not None
    client.request("library.rebuild", library="default")
    (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]])
    assert job["state"] == "completed"
    assert len(list(client.watch("beginning", follow=False))) >= 2


def test_with_the_least_address_space_everything_is_answered() -> None:
    with Instance() as instance:
        instance.start(prefix=limited("-v", limits.ADDRESS_SPACE_BYTES_MIN // 1024))
        with instance.connect(timeout_s=30) as client:
            everything(client)


def test_a_tokenizer_that_gets_no_threads_is_told_busy_and_not_left_unanswered() -> None:
    with Instance({"RAYON_NUM_THREADS": "60000", "VEC_EMBEDDER": "wordllama"}) as instance:
        instance.start(prefix=limited("-v", 2 * limits.ADDRESS_SPACE_BYTES_MIN // 1024))
        with instance.connect(timeout_s=120) as client:  # on a busy machine, threads up to the limit take long
            documents = [{"id": str(number), "text": f"hello world {number} " * 200} for number in range(20)]
            with pytest.raises(VecError, match="cannot get more threads") as refused:
                client.ingest(documents)
            assert refused.value.code == "busy"
            client.request("ping")


def test_with_less_address_space_the_daemon_says_so_and_does_not_start() -> None:
    with Instance() as instance:
        status, log = refused_start(instance, limited("-v", (limits.ADDRESS_SPACE_BYTES_MIN - _MIB) // 1024))
        assert status == 78
        assert "needs 768: raise the limit (ulimit -v)" in log


def test_with_few_descriptors_as_many_connect_as_there_are_and_others_are_told_busy() -> None:
    connections = 8
    with Instance() as instance, ExitStack() as stack:
        daemon = instance.start(prefix=limited("-n", limits.OWN_DESCRIPTORS + connections))
        clients = [stack.enter_context(instance.connect(timeout_s=30)) for _ in range(connections)]
        for _ in range(3):
            with pytest.raises(VecError, match="limit of 8 connections") as refused:
                instance.connect(timeout_s=30)
            assert refused.value.code == "busy"
        for client in clients:
            everything(client)
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < limits.OWN_DESCRIPTORS + connections
        clients[0].close()
        client = stack.enter_context(_connected(instance))
        everything(client)


def test_with_few_descriptors_and_many_workers_that_all_read_the_store_a_client_still_gets_in(tmp_path: Path) -> None:
    workers, connections = 30, 2
    descriptors = own_descriptors(workers) + connections
    with Instance({"VEC_WORKERS": str(workers), "VEC_EMBEDDER": "hash"}) as instance, ExitStack() as stack:
        daemon = instance.start(prefix=limited("-n", descriptors))
        clients = [stack.enter_context(instance.connect(timeout_s=30)) for _ in range(connections)]
        for number in range(2 * workers):  # each worker keeps its connections to the store
            clients[0].request("library.create", library=f"l{number}")
            clients[0].ingest([{"id": "a", "text": "hello"}], f"l{number}")
        jobs = [
            clients[0].submit_job("export", {"path": str(tmp_path / f"{number}")}, library=f"l{number}")["job_id"]
            for number in range(2 * workers)
        ]
        assert {job["state"] for job in clients[1].wait_for_jobs(jobs)} == {"completed"}
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < descriptors
        clients[0].close()
        everything(stack.enter_context(_connected(instance)))


def test_with_too_few_descriptors_for_its_workers_the_daemon_says_so_and_does_not_start() -> None:
    with Instance({"VEC_WORKERS": "40"}) as instance:
        status, log = refused_start(instance, limited("-n", 100))
        assert status == 78
        assert "may open 100 files and needs 200" in log
        assert "VEC_WORKERS" in log


def _connected(instance: Instance) -> Client:
    """A connection, as soon as the daemon has noticed that another has gone."""
    while True:
        try:
            return instance.connect(timeout_s=30)
        except VecError as error:
            assert error.code == "busy"


def test_with_too_few_descriptors_the_daemon_says_so_and_does_not_start() -> None:
    with Instance() as instance:
        status, log = refused_start(instance, limited("-n", limits.OWN_DESCRIPTORS))
        assert status == 78
        assert f"may open {limits.OWN_DESCRIPTORS} files and needs {limits.OWN_DESCRIPTORS}" in log
