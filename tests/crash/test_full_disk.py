"""A full disk: the real vecd on a small file system, which only root can mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError

DISK_BYTES = 40 * limits.MIB
DIMENSION = 1_024


@contextmanager
def mounted(path: Path, size: int = DISK_BYTES) -> Iterator[None]:
    if sys.platform != "linux" or os.geteuid() or shutil.which("mount") is None:
        pytest.skip("needs root and mount(8)")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Instance]:
    """An instance whose VEC_HOME is a small file system."""
    disk, runtime = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    runtime.mkdir(mode=0o700)
    with mounted(disk), Instance({"VEC_HOME": str(disk), "XDG_RUNTIME_DIR": str(runtime)}) as instance:
        yield instance


def document(document_id: str) -> dict[str, Any]:
    return {"id": document_id, "text": f"the text of {document_id}", "vector": b"\0\0\x80?" * DIMENSION}


def fill(client: Client) -> list[str]:
    """Adds documents until the disk is full; the ids of those that are there."""
    ids: list[str] = []
    client.request("library.create", library="wide", embedder="none", dimension=DIMENSION, index="flat")
    for start in range(0, 100_000, 200):
        page = [f"d{number}" for number in range(start, start + 200)]
        try:
            client.ingest([document(each) for each in page], "wide")
        except VecError as error:
            assert error.code == "disk_full"
            return ids
        ids += page
    raise AssertionError("the disk is never full")


def fill_up(instance: Instance) -> Path:
    """Takes all the space that is left, as another program may."""
    hog = Path(instance.environment["VEC_HOME"]) / "hog"
    with open(hog, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError:
            return hog


def free_bytes(instance: Instance) -> int:
    found = os.statvfs(instance.environment["VEC_HOME"])
    return found.f_bavail * found.f_frsize


def test_a_full_disk_is_left_by_deletes_and_a_trim_and_writes_go_on_without_a_restart(small: Instance) -> None:
    daemon = small.start()
    with small.connect() as client:
        ids = fill(client)
        fill_up(small)
        assert list(client.search("text of d7", library="wide", k=1, mode="text"))
        assert client.get([ids[0]], "wide")[0]
        for start in range(0, len(ids), 500):
            page = ids[start : start + 500]
            assert client.delete(page, "wide")["deleted"] == len(page)
        assert client.request("trim", keep_count=0, wait=True)["trimmed"]
        assert free_bytes(small) > DISK_BYTES // 4, small.log()
        client.ingest([document("later")], "wide")
        assert history.tables(client)["wide"] == {"later": 1}
    assert daemon.poll() is None


def test_a_full_disk_is_left_by_jobs(small: Instance) -> None:
    small.start()
    with small.connect() as client:
        ids = fill(client)
        hog = fill_up(small)
        for kind, params in (("delete", {"where": ["document_id != x"]}), ("trim", {"keep_count": 0}), ("vacuum", {})):
            about: dict[str, Any] = {"library": "wide"} if kind == "delete" else {}
            job_id = client.submit_job(kind, params, **about)["job_id"]
            (job,) = client.wait_for_jobs([job_id], timeout_s=60)
            assert job["state"] == "completed", (job, small.log())
            if kind == "delete":
                assert job["result"]["deleted"] == len(ids)
        until(lambda: free_bytes(small) > DISK_BYTES // 4, "a shorter file")
        hog.unlink()
        assert client.submit_job("noop")["job_id"]
        client.ingest([document("later")], "wide")


def test_with_a_full_disk_the_daemon_starts_reads_deletes_and_stops(small: Instance) -> None:
    daemon = small.start()
    with small.connect() as client:
        ids = fill(client)
    daemon.kill()  # with a write-ahead log, which the next start reads
    daemon.wait()
    hog = fill_up(small)
    for kept in range(1, 4):
        daemon = small.start()
        fill_up(small)  # nor is what the start has freed left to it
        with small.connect() as client:
            assert list(client.search("text of d7", library="wide", k=1, mode="text"))
            assert client.count("wide")["documents"] == len(ids) - kept + 1
            assert client.delete([ids[-kept]], "wide")["deleted"] == 1
            with pytest.raises(VecError) as refusal:
                client.ingest([document(f"more {number}") for number in range(2_000)], "wide")
            assert refusal.value.code == "disk_full"
        small.vec("daemon", "stop")
        assert daemon.wait(30) == 0, small.log()
        fill_up(small)
    hog.unlink()
    small.start()
    with small.connect() as client:
        client.ingest([document(ids[-1])], "wide")
        assert history.check(client)["wide"].keys() == {*ids[:-3], ids[-1]}


def test_a_reader_of_an_old_state_does_not_keep_a_trim_from_a_full_disk(small: Instance) -> None:
    small.start()
    with small.connect() as client:
        ids = fill(client)
        fill_up(small)
        other = apsw.Connection(str(small.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM documents").get == len(ids)
        assert client.delete(ids[:200], "wide")["deleted"] == 200
        assert client.request("trim", keep_count=0)["trimmed"]
        other.execute("COMMIT")
        other.close()
        assert client.delete(ids[200:], "wide")["deleted"] == len(ids) - 200
        client.request("trim", keep_count=0, wait=True)
        client.ingest([document("later")], "wide")


def test_a_backup_that_finds_its_disk_full_says_so_and_names_the_backup(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, 2 * limits.MIB), Instance() as instance:
        instance.start()
        with instance.connect() as client:
            client.request("library.create", library="wide", embedder="none", dimension=DIMENSION, index="flat")
            client.ingest([document(f"d{number}") for number in range(1_000)], "wide")
            job_id = client.submit_job("backup", {"path": str(disk / "backup.db")})["job_id"]

            def failed() -> list[dict[str, Any]]:
                return [each["error"] for each in client.job(job_id)["attempts"] if each["error"]]

            attempt = until(failed, "a failed attempt")[0]
            assert attempt["code"] == "disk_full"
            assert str(disk) in attempt["message"]
            client.cancel_jobs([job_id])
            client.ingest([document("later")], "wide")
        assert [each.name for each in disk.iterdir()] == []


def _fill_up(folder: Path) -> Path:
    """A file that takes all the space there is."""
    path = folder / "fill"
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_does_not_keep_a_daemon_with_a_reserve_from_starting_though_its_lock_cannot_be_written(
    small: Instance,
) -> None:
    daemon = small.start()
    with small.connect() as client:
        client.ingest([{"id": "a", "text": "kept"}])
        client.request("shutdown")
    assert daemon.wait(30) == 0
    small.settings.lock.unlink()
    small.settings.log.touch()
    _fill_up(Path(small.environment["VEC_HOME"]))
    small.start()
    with small.connect() as client:
        assert client.delete(["a"])["deleted"] == 1
        client.request("shutdown")


def test_a_first_start_on_a_full_disk_says_so_though_it_can_write_no_log_and_later_succeeds(small: Instance) -> None:
    fill = _fill_up(Path(small.environment["VEC_HOME"]))
    refused = small.vec("status", status=None)
    assert refused.returncode != 0
    assert "no space left" in refused.stderr.lower()
    fill.unlink()
    assert small.objects("status")[0]["seq"] == 0


def test_a_restore_on_a_full_disk_says_so_and_speaks_of_no_old_store_where_there_is_none(
    small: Instance, tmp_path: Path
) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as other:
        other.vec("ingest", stdin='{"id": "a", "text": "b"}\n')
        other.vec("backup", str(tmp_path / "backup.db"))
    fill = _fill_up(Path(small.environment["VEC_HOME"]))
    refused = small.vec("restore", str(tmp_path / "backup.db"), status=None)
    assert "disk_full" in refused.stderr
    assert "old store" not in refused.stderr
    fill.unlink()
    assert small.objects("restore", str(tmp_path / "backup.db"))[0]["documents"] == 1
    before = small.settings.store.read_bytes()
    _fill_up(Path(small.environment["VEC_HOME"]))
    refused = small.vec("restore", "--force", str(tmp_path / "backup.db"), status=None)
    assert "the old store is as it was" in refused.stderr
    assert small.settings.store.read_bytes() == before
