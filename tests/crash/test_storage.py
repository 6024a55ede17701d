"""Storage failures: the real vecd with injected I/O errors (faults.c, preloaded)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.errors import VecError

from . import faults

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs LD_PRELOAD and a C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.built(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def failing(library: Path, tmp_path: Path) -> Iterator[tuple[Instance, Path]]:
    """An instance, and the file that a fault's name is written into."""
    fault = tmp_path / "fault"
    with Instance({"LD_PRELOAD": str(library), "VEC_FAULT": str(fault)}) as instance:
        yield instance, fault


def test_after_a_failed_fsync_nobody_is_answered_ok_and_the_daemon_exits(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "safe", "text": "this was acknowledged"}])
        fault.write_text("fsync")
        with pytest.raises(VecError) as failure:
            client.ingest([{"id": "lost", "text": "this was not"}])
        assert failure.value.code in ("storage_failed", "connection_lost")
    assert daemon.wait(30) == 74
    assert "storage failed" in instance.log()
    fault.unlink()
    instance.start()
    with instance.connect() as client:
        safe, _ = client.get(["safe", "lost"])
        assert safe is not None
        history.check(client)


def test_a_failed_fsync_of_a_checkpoint_does_not_go_unnoticed(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    daemon = instance.start()
    acknowledged: list[str] = []
    with instance.connect() as client:
        client.request("library.create", library="wide", embedder="none", dimension=8_192)
        fault.write_text("store")
        try:
            for start in range(0, 10_000, 100):  # far more than the write-ahead log holds before it is copied back
                ids = [f"d{number}" for number in range(start, start + 100)]
                client.ingest([{"id": each, "vector": b"\0\0\x80?" * 8_192} for each in ids], "wide")
                acknowledged += ids
        except VecError as error:
            failure = error.code
        else:
            raise AssertionError("the daemon went on")
        assert failure in ("storage_failed", "connection_lost")
    assert daemon.wait(30) == 74
    fault.unlink()
    instance.start()
    with instance.connect() as client:
        assert len(acknowledged) > 100
        assert set(acknowledged) <= history.check(client)["wide"].keys()


def test_every_write_that_waits_is_refused_when_storage_fails(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "safe", "text": "this was acknowledged"}])
        fault.write_text("fsync")
        flying = [client.submit("ingest", documents=[{"id": f"d{n}", "text": f"text {n}"}]) for n in range(20)]
        for pending in flying:
            with pytest.raises(VecError):
                pending.result()
    assert daemon.wait(30) == 74
    fault.unlink()
    instance.start()
    with instance.connect() as client:
        assert "safe" in history.check(client)["default"]


def test_a_full_disk_refuses_the_write_and_the_daemon_goes_on(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "safe", "text": "this was acknowledged"}])
        fault.write_text("full")
        with pytest.raises(VecError) as failure:
            client.ingest([{"id": "refused", "text": "there is no room for this"}])
        assert failure.value.code == "disk_full"
        assert failure.value.hint
        assert [hit["document_id"] for hit in client.search("acknowledged")] == ["safe"]
        fault.unlink()
        client.ingest([{"id": "later", "text": "there is room again"}])
        assert client.get(["refused"]) == [None]
        assert set(history.check(client)["default"]) == {"safe", "later"}
    assert daemon.poll() is None


def test_on_a_full_disk_jobs_are_cancelled_and_things_deleted_and_nothing_else_is_written(
    failing: tuple[Instance, Path],
) -> None:
    instance, fault = failing
    reserve = instance.settings.data / "reserve"
    instance.environment["VEC_RESERVE"] = str(reserve)
    instance.start()
    with instance.connect() as client:
        client.request("library.create", library="other", embedder="none")
        client.ingest([{"id": f"d{n}", "text": f"text {n}"} for n in range(100)])
        running = client.submit_job("noop", {"steps": 100_000, "seconds": 1.0})["job_id"]
        pending = client.submit_job("noop", delay_s=3_600)["job_id"]
        until(lambda: client.job(running)["checkpoint"] and reserve.exists(), "a step")
        fault.write_text("tight")
        with pytest.raises(VecError) as failure:
            client.ingest([{"id": "refused", "text": "there is no room for this"}])
        assert failure.value.code == "disk_full"
        assert reserve.exists(), "what frees nothing does not get it"
        found = client.cancel_jobs([running, pending])
        assert {job["state"] for job in found} <= {"cancelled", "running"}
        until(lambda: client.job(running)["state"] == "cancelled", "its cancel")
        assert not reserve.exists()
        assert client.delete([f"d{n}" for n in range(50)])["deleted"] == 50
        client.request("library.delete", library="other")
        client.drop_jobs([running, pending])
        fault.unlink()
        client.ingest([{"id": "later", "text": "there is room again"}])
        assert len(history.check(client)["default"]) == 51


def test_with_a_full_disk_the_daemon_starts_with_the_reserve_and_stops(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    reserve = instance.settings.data / "reserve"
    instance.environment["VEC_RESERVE"] = str(reserve)
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": f"d{n}", "text": f"text {n}"} for n in range(10)])
        until(reserve.exists, "the reserve")
    instance.vec("daemon", "stop")
    assert daemon.wait(30) == 0
    fault.write_text("tight")
    daemon = instance.start()
    assert not reserve.exists()
    with instance.connect() as client:
        assert client.delete(["d1"])["deleted"] == 1
        assert set(history.check(client)["default"]) == {f"d{n}" for n in range(10)} - {"d1"}
    instance.vec("daemon", "stop")
    assert daemon.wait(30) == 0


def test_the_end_of_a_job_that_cannot_be_written_is_written_when_there_is_room(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    instance.start()
    with instance.connect() as client:
        job_id = client.submit_job("noop", {"steps": 1, "seconds": 0.3})["job_id"]
        until(lambda: client.job(job_id)["state"] == "running", "its start")
        fault.write_text("full")
        until(lambda: "disk_full" in instance.log() or "no space left" in instance.log(), "its end")
        fault.unlink()
        (job,) = client.wait_for_jobs([job_id], timeout_s=60)
        assert job["state"] == "completed"


def test_vec_ingest_says_that_the_disk_is_full_and_what_was_safe(failing: tuple[Instance, Path]) -> None:
    instance, fault = failing
    instance.start()
    instance.vec("ingest", stdin='{"id": "safe", "text": "this was acknowledged"}\n')
    fault.write_text("full")
    done = instance.vec("ingest", stdin='{"id": "refused", "text": "no room"}\n', status=75)
    assert "disk_full" in done.stderr
    assert '"added":0' in done.stdout
    with instance.connect() as client:
        assert history.check(client)["default"].keys() == {"safe"}


def test_where_folders_cannot_be_synced_a_rename_counts_as_done(failing: tuple[Instance, Path], tmp_path: Path) -> None:
    instance, fault = failing
    instance.start()
    out = tmp_path / "out"
    out.mkdir()
    with instance.connect() as client:
        client.ingest([{"id": f"d{n}", "text": f"text {n}"} for n in range(10)])
        fault.write_text("folder")
        for kind, library in (("export", "default"), ("backup", None)):
            job_id = client.submit_job(kind, {"path": str(out / kind)}, library=library)["job_id"]
            (job,) = client.wait_for_jobs([job_id])
            assert (job["state"], job["attempt"]) == ("completed", 1), job["error"]
        ids = instance.vec("watch", "--no-follow", "--from", "beginning", "--cursor-file", str(out / "cursor")).stdout
        assert ids
        failing_command = ("--from", "beginning", "--exec", "exit 1", "--retries", "1")
        instance.vec("watch", "--no-follow", *failing_command, "--dead-letter", str(out / "letters"), status=None)
    assert sorted(path.name for path in out.iterdir()) == ["backup", "cursor", "export", "letters"]
