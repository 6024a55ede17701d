"""Paths of files that commands and jobs read and write: what a path means, and what may never be at its end."""

from __future__ import annotations

import gzip
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import history
from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import running
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        with made.connect() as client:
            client.ingest([{"id": f"d{n}", "text": f"text {n}"} for n in range(20)])
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def wanted(kind: str, path: str) -> dict[str, Any]:
    if kind == "ingest":
        return {"kind": kind, "params": {"files": [path]}}
    return {"kind": kind, "params": {"path": path}, **({"library": "default"} if kind == "export" else {})}


def ended(client: Client, kind: str, path: str) -> dict[str, Any]:
    (job,) = client.wait_for_jobs([client.submit_job(**wanted(kind, path))["job_id"]])
    return job


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "ingest --background /dev/fd/3 3<f.ndjson",
        "ingest --background /proc/self/fd/3 3<f.ndjson",
        "ingest --background /dev/stdin <f.ndjson",
        "ingest --background link <f.ndjson",
        "ingest --background /dev/fd/3 3< <(cat f.ndjson)",
    ],
)
def test_a_background_ingest_reads_the_file_that_the_path_means_for_its_caller(
    instance: Instance, client: Client, tmp_path: Path, command: str
) -> None:
    library = f"callers-{next(_numbers)}"
    client.request("library.create", library=library)
    (tmp_path / "f.ndjson").write_text(ndjson([{"id": "mine", "text": "of the caller"}]))
    (tmp_path / "link").symlink_to("/dev/stdin")
    done = subprocess.run(
        ["bash", "-c", f"'{BIN}/vec' --version >/dev/null; '{BIN}/vec' {command.replace(' ', f' -l {library} ', 1)}"],
        env=instance.environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client.wait_for_jobs([job["job_id"] for job in client.jobs(library=library)])
    assert client.get(["mine"], library)[0] is not None


@pytest.mark.parametrize("kind", ["ingest", "export", "backup"])
@pytest.mark.parametrize(
    "path",
    [
        "/dev/fd/3", "/dev/stdin", "/proc/self/fd/3", "/proc/1/maps", "link", "/dev/null", "fifo", "folder",
        "/tmp/a\0b", "/tmp/" + "x" * 300, "/tmp/" + "x/" * 5_000, "file/below", "loop", "relative",
    ],
)  # fmt: skip
def test_a_path_that_a_job_cannot_use_is_refused_when_it_is_submitted(
    client: Client, tmp_path: Path, kind: str, path: str
) -> None:
    (tmp_path / "link").symlink_to("/dev/fd/3")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    if not path.startswith("/") and path != "relative":
        path = str(tmp_path / path)
    with pytest.raises(VecError) as refusal:
        client.submit_job(**wanted(kind, path))
    assert (refusal.value.code, refusal.value.details["field"]) == (
        "invalid_request", "files" if kind == "ingest" else "path",
    )  # fmt: skip


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "folder", "huge"])
def test_a_cursor_file_that_is_no_small_regular_file_is_refused_at_once(
    instance: Instance, tmp_path: Path, what: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "huge").write_text("x" * 100_000)
    path = tmp_path / what
    done = instance.vec("watch", "--no-follow", "--cursor-file", str(path), status=2, timeout_s=30)
    assert f"cannot read the cursor file {path} (" in done.stderr
    assert path.is_fifo() or path.is_char_device() or path.is_dir() or path.stat().st_size == 100_000


@pytest.mark.parametrize("what", ["fifo", "/dev/null", "folder"])
def test_dead_letters_that_cannot_be_kept_are_refused_before_anything_is_handled(
    instance: Instance, tmp_path: Path, what: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    ran = tmp_path / "ran"
    done = instance.vec(
        "watch", "--no-follow", "--exec", f"touch '{ran}'; false", "--dead-letter", str(tmp_path / what),
        status=2, timeout_s=30,
    )  # fmt: skip
    assert "cannot write the dead letters to" in done.stderr
    assert not ran.exists()


@pytest.mark.parametrize("what", ["fifo", "/dev/zero"])
def test_a_configuration_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    with Instance() as own:
        os.mkfifo(own.home / "fifo")
        (own.home / "config.toml").symlink_to(what)
        done = own.vec("status", status=2, timeout_s=30)
        assert "config.toml (it is not a regular file) (invalid_settings)" in done.stderr
        (own.home / "config.toml").unlink()
        (own.home / "config.toml").symlink_to("/dev/null")
        own.vec("status", timeout_s=30)
        (own.home / "config.toml").unlink()


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["export", "backup"])
@pytest.mark.parametrize("there", [True, False])
def test_a_symlink_at_the_path_stays_and_the_file_it_points_to_is_made(
    client: Client, tmp_path: Path, kind: str, there: bool
) -> None:
    (tmp_path / "in").mkdir()
    real, link = tmp_path / "in" / "real", tmp_path / "link"
    link.symlink_to("in/real")
    if there:
        real.write_text("from before")
    job = ended(client, kind, str(link))
    assert job["state"] == "completed", job["error"]
    assert link.is_symlink()
    assert real.stat().st_size == job["result"]["bytes"] > 500
    assert [each.name for each in real.parent.iterdir()] == ["real"]


def test_a_cursor_file_that_is_a_symlink_stays_one_and_keeps_its_permissions(
    instance: Instance, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    real, link = tmp_path / "in" / "cursor", tmp_path / "cursor"
    real.touch(0o640)
    real.chmod(0o640)
    link.symlink_to("in/cursor")
    first = instance.vec("watch", "--no-follow", "--from", "beginning", "--cursor-file", str(link)).stdout
    assert first
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert instance.vec("watch", "--no-follow", "--cursor-file", str(link)).stdout == ""
    assert [each.name for each in real.parent.iterdir()] == ["cursor"]


OWN = ["data/vec.db", "data/vec.db-wal", "data/vecd.lock", "data/new", "data/indexes/x", "vecd.sock", "vecd.log",
       "config.toml", "launch.lock", "new"]  # fmt: skip


@pytest.mark.parametrize("kind", ["export", "backup"])
@pytest.mark.parametrize("way", ["itself", "symlink", "folder", "hard link"])
def test_a_job_never_makes_a_file_among_the_daemons_own(
    instance: Instance, client: Client, tmp_path: Path, kind: str, way: str
) -> None:
    (instance.home / "data" / "indexes").mkdir(exist_ok=True)
    (tmp_path / "home").symlink_to(instance.home)
    for number, name in enumerate(OWN):
        path = instance.home / name
        if way == "folder":
            path = tmp_path / "home" / "data" / ".." / name
        elif way != "itself":
            path = tmp_path / str(number)
            if way == "hard link":
                if not (instance.home / name).is_file():
                    continue
                os.link(instance.home / name, path)
            else:
                path.symlink_to(instance.home / name)
        with pytest.raises(VecError) as refusal:
            client.submit_job(**wanted(kind, str(path)))
        assert (refusal.value.code, refusal.value.details["field"]) == ("invalid_request", "path"), name
    history.check(client)


@pytest.mark.parametrize("kind", ["export", "backup"])
def test_a_path_that_leads_to_the_store_only_when_the_job_runs_is_refused_then(
    instance: Instance, client: Client, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "out"
    store = instance.settings.store.stat().st_ino
    client.request("jobs.pause", kinds=[kind])
    job_id = client.submit_job(**wanted(kind, str(path)))["job_id"]
    path.symlink_to(instance.settings.store)
    client.request("jobs.resume")
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_request")
    assert instance.settings.store.stat().st_ino == store
    until(lambda: not list(instance.settings.data.glob(".vec-*")), "nothing to be left")
    history.check(client)


def test_the_log_file_of_the_daemon_is_refused_wherever_it_is(tmp_path: Path) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        log = tmp_path / "elsewhere.log"
        own.start("--log-file", str(log))
        with own.connect() as client:
            with pytest.raises(VecError) as refusal:
                client.submit_job("backup", {"path": str(log)})
            assert refusal.value.code == "invalid_request"


# --- input that is small on disk and has no end -----------------------------------------------------------------------

BOMBS = {"blank lines": b"\n", "one line": b"a", "documents that are refused": b"5\n"}


def bomb(tmp_path: Path, what: str) -> Path:
    """Gzip of 8 MB or less for 8 GB, which nobody reads to its end within a test's patience."""
    path = tmp_path / "bomb.ndjson.gz"
    unit = BOMBS[what]
    path.write_bytes(gzip.compress(unit * (2**20 // len(unit))) * 8_192)
    return path


@pytest.mark.parametrize("what", BOMBS)
def test_an_ingest_job_is_cancelled_soon_whatever_its_input_is(
    instance: Instance, client: Client, tmp_path: Path, what: str
) -> None:
    client.request("library.create", library=f"job-{what}".replace(" ", "-"))
    job = client.submit_job(**wanted("ingest", str(bomb(tmp_path, what))), library=f"job-{what}".replace(" ", "-"))
    until(lambda: (client.job(job["job_id"])["progress"] or {}).get("done"), "a sign of life")
    client.cancel_jobs([job["job_id"]])
    until(lambda: client.job(job["job_id"])["state"] == "cancelled", "its end")


@pytest.mark.skipif(sys.platform != "linux", reason="sees in /proc when the file is being read")
@pytest.mark.parametrize("what", BOMBS)
def test_ctrl_c_ends_an_ingest_soon_whatever_its_input_is(instance: Instance, tmp_path: Path, what: str) -> None:
    path = bomb(tmp_path, what)
    with running(instance, "ingest", str(path), stderr=subprocess.DEVNULL) as process:
        fds = Path(f"/proc/{process.pid}/fd")
        until(lambda: any(os.path.realpath(fd) == str(path) for fd in fds.iterdir()), "its reading")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
