"""vec jobs, vec ingest --background, vec verify and vec backup, as a script and a person use them."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import end_of_input, feed, line_of, numbered, rest_of, running
from tests.support.waiting import until
from vecd import limits
from vecd.errors import Code, VecError

# mypy knows cli/ by its folder's name; it is imported by the name that it is installed under.
spool: Any = importlib.import_module("vec_cli.spool")


@pytest.fixture
def own() -> Iterator[Instance]:
    """An instance of the test's own."""
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


def submitted(instance: Instance, *arguments: str) -> int:
    (job,) = instance.objects("jobs", "submit", *arguments)
    return int(job["job_id"])


def job_of(instance: Instance, job_id: int) -> dict[str, Any]:
    (job,) = instance.objects("jobs", "show", str(job_id))
    return dict(job)


def spooled(instance: Instance) -> list[Path]:
    return sorted((instance.settings.data / "spool").glob("*"))


LONG = ("noop", "-p", "steps=5000", "-p", "seconds=0.02")


# --- ingest --background --------------------------------------------------------------------------------------------


def test_a_background_ingest_prints_its_number_at_the_end_of_stdin_and_writes_everything(
    instance: Instance, library: str
) -> None:
    with running(instance, "ingest", "--background", "-l", library) as process:
        feed(process, ndjson(numbered(3_000)))
        end_of_input(process)
        answer = line_of(process.stdout)
        assert answer.keys() == {"job_id"}
        assert process.wait(30) == 0
        assert rest_of(process.stdout) == ""
    (job,) = instance.objects("jobs", "wait", str(answer["job_id"]))
    assert (job["state"], job["result"]["added"]) == ("completed", 3_000)
    assert spooled(instance) == []
    assert instance.objects("count", "-l", library)[0]["documents"] == 3_000


def test_files_are_ingested_by_name_and_pipes_are_copied(instance: Instance, library: str, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a b.ndjson", tmp_path / "more.ndjson.gz"
    plain.write_text(ndjson(numbered(10)))
    packed.write_bytes(gzip.compress(ndjson(numbered(10, 10)).encode()))
    command = f"cd '{tmp_path}' && '{BIN}/vec' ingest --background -l {library} 'a b.ndjson' - more.ndjson.gz <(cat)"
    done = subprocess.run(
        ["bash", "-c", command.replace("<(cat)", "<(printf '%s\\n' '{\"id\": \"p\", \"text\": \"piped\"}')")],
        input=ndjson(numbered(10, 20)).encode(), env=instance.environment, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    job_id = json.loads(done.stdout)["job_id"]
    (job,) = instance.objects("jobs", "wait", str(job_id))
    assert job["result"]["added"] == 31
    files = job_of(instance, job_id)["params"]["files"]
    assert (files[0], files[2]) == (str(plain), str(packed))
    assert files[1] == "stdin"  # the name of its input, not the path of its copy
    assert files[3].startswith("/dev/fd/")
    assert plain.exists()
    assert spooled(instance) == []


def test_waiting_for_an_ingest_that_refused_lines_exits_3_and_logs_tell_them(instance: Instance, library: str) -> None:
    text = '{"id": "a", "text": "one"}\nnot json\n'
    (answer,) = instance.objects("ingest", "--background", "-l", library, stdin=text)
    (job,) = instance.objects("jobs", "wait", str(answer["job_id"]), status=3)
    assert (job["result"]["added"], job["result"]["failed"]) == (1, 1)
    (line,) = instance.objects("jobs", "logs", str(answer["job_id"]))
    assert line["text"].startswith("stdin:2: not JSON")


class _Bounded:
    """A daemon that bounds the spool."""

    def __init__(self, folder: Path, bytes_max: int, free_bytes_min: int) -> None:
        self._answer = {"path": str(folder / "own"), "bytes_max": bytes_max, "free_bytes_min": free_bytes_min}

    def spool(self) -> dict[str, Any]:
        return self._answer

    def submit_job(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"job_id": 1}


@pytest.mark.parametrize(
    ("bytes_max", "free_bytes_min", "code"),
    [(2_000_000, 0, "too_large"), (2**40, 2**62, "disk_full"), (2**40, 0, None)],
)
def test_copied_input_is_bounded_by_the_size_of_the_spool_and_by_the_free_space(
    tmp_path: Path, bytes_max: int, free_bytes_min: int, code: str | None
) -> None:
    (tmp_path / "another").write_bytes(bytes(1_900_000))
    client = _Bounded(tmp_path, bytes_max, free_bytes_min)
    source = tmp_path / "pipe"
    os.mkfifo(source)
    writer = subprocess.Popen(["sh", "-c", f"head -c 9000000 /dev/zero >'{source}'"], stderr=subprocess.DEVNULL)
    try:
        if code is None:
            spool.submit(client, [str(source)], "default", False)
            assert (tmp_path / "own").stat().st_size == 9_000_000
            return
        with pytest.raises(VecError) as refusal:
            spool.submit(client, [str(source)], "default", False)
        assert refusal.value.code == code
        assert "--background" in str(refusal.value)
        assert not (tmp_path / "own").exists()
    finally:
        writer.kill()
        writer.wait()


def test_the_daemon_bounds_the_spool(instance: Instance) -> None:
    with instance.connect() as client:
        place = client.spool()
    assert place["bytes_max"] == limits.SPOOL_BYTES_MAX
    assert place["free_bytes_min"] == limits.SPOOL_FREE_BYTES_MIN > 10 * limits.RESERVE_BYTES


def test_what_cannot_be_ingested_is_told_before_anything_is_read(instance: Instance, tmp_path: Path) -> None:
    done = instance.vec("ingest", "--background", "-l", "not a name", stdin="x\n", status=2)
    assert "not a valid name" in done.stderr
    done = instance.vec("ingest", "--background", str(tmp_path / "missing"), status=2)
    assert "missing" in done.stderr
    done = instance.vec("ingest", "--background", str(tmp_path), status=2)
    assert "folder" in done.stderr
    done = instance.vec("ingest", "--background", "--ack", stdin="x\n", status=2)
    assert "--ack" in done.stderr
    assert spooled(instance) == []


def test_input_that_was_cut_off_makes_no_job_and_its_copy_goes_at_the_next_start(own: Instance) -> None:
    with running(own, "ingest", "--background") as process:
        feed(process, ndjson(numbered(100)))
        until(lambda: spooled(own) and spooled(own)[0].stat().st_size, "its copy")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert own.objects("jobs", "list") == []
    with running(own, "ingest", "--background") as process:
        feed(process, ndjson(numbered(100)))
        until(lambda: len(spooled(own)) == 2, "its copy")
        own.vec("daemon", "stop")
        own.vec("daemon", "start")
        assert len(spooled(own)) == 1  # of the one that is being written
        end_of_input(process)
        assert process.wait(30) == 75  # the daemon that it asked is gone
    own.vec("daemon", "restart")
    assert spooled(own) == []


def test_an_interrupted_background_ingest_leaves_nothing(own: Instance) -> None:
    with running(own, "ingest", "--background") as process:
        feed(process, ndjson(numbered(100)))
        until(lambda: spooled(own) and spooled(own)[0].stat().st_size, "its copy")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert spooled(own) == []
    assert own.objects("jobs", "list") == []


# --- submit and wait ------------------------------------------------------------------------------------------------


def test_the_exit_status_of_wait_tells_the_outcome(instance: Instance) -> None:
    fine, bad = submitted(instance, "noop"), submitted(instance, "noop", "-p", "fail=no luck", "--timeout", "1h")
    (job,) = instance.objects("jobs", "wait", str(fine))
    assert (job["job_id"], job["state"]) == (fine, "completed")
    done = instance.vec("jobs", "wait", str(bad), str(fine), status=1)
    assert [json.loads(line)["state"] for line in done.stdout.splitlines()] == ["completed", "dead"]
    assert f"vec: job {bad}: no luck (internal)" in done.stderr
    slow = submitted(instance, *LONG)
    assert "timeout" in instance.vec("jobs", "wait", str(slow), "--timeout", "0.1", status=124).stderr
    (first,) = instance.objects("jobs", "wait", "--any", str(slow), str(fine))
    assert first["job_id"] == fine
    (cancelled,) = instance.objects("jobs", "cancel", str(slow))
    assert cancelled["state"] == "cancelled"
    instance.vec("jobs", "wait", str(slow), status=130)
    instance.vec("jobs", "wait", "99999999", status=4)


def test_submit_with_wait_ends_as_the_job_does(instance: Instance) -> None:
    (job,) = instance.objects("jobs", "submit", "noop", "-p", "steps=3", "--wait")
    assert (job["state"], job["result"]) == ("completed", {"steps": 3})
    assert instance.objects("jobs", "submit", "noop", "-p", "fail=x", "--wait", status=1)[0]["state"] == "dead"


def test_wait_outlasts_a_restart_of_the_daemon(own: Instance) -> None:
    job_id = submitted(own, "noop", "-p", "steps=100", "-p", "seconds=0.02")
    with running(own, "jobs", "wait", str(job_id)) as process:
        until(lambda: (job_of(own, job_id)["progress"] or {}).get("done"), "its start")
        own.vec("daemon", "restart")
        assert line_of(process.stdout)["state"] == "completed"
        assert process.wait(30) == 0


def test_params_are_json_where_they_are_and_strings_where_not(instance: Instance) -> None:
    job_id = submitted(instance, "noop", "-p", "steps=2", "-p", "seconds=0.5", "-p", "fail=17 geese", "--delay", "1h")
    assert job_of(instance, job_id)["params"] == {"steps": 2, "seconds": 0.5, "fail": "17 geese"}
    instance.vec("jobs", "cancel", str(job_id))
    for wrong in (("-p", "steps"), ("-p", "=3"), ("--delay", "soon"), ("--priority", "200")):
        instance.vec("jobs", "submit", "noop", *wrong, status=2)


def test_unique_lock_after_priority_and_timeout_reach_the_job(instance: Instance) -> None:
    first = submitted(instance, *LONG, "--unique", "only", "--lock", "door", "--timeout", "2m", "--priority", "7")
    (again,) = instance.objects("jobs", "submit", *LONG, "--unique", "only")
    assert (again["job_id"], again["existing"]) == (first, True)
    after = submitted(instance, "noop", "--after", str(first))
    shown = job_of(instance, first)
    assert (shown["unique"], shown["lock"], shown["timeout_s"], shown["priority"]) == ("only", "door", 120, 7)
    assert job_of(instance, after)["after"] == [first]
    instance.vec("jobs", "cancel", str(first), str(after))


# --- the others -----------------------------------------------------------------------------------------------------


def test_status_list_retry_drop_pause_and_resume(own: Instance) -> None:
    dead = [submitted(own, "noop", "-p", "fail=x") for _ in range(3)]
    own.vec("jobs", "wait", *map(str, dead), status=1)
    assert own.objects("jobs", "status")[0]["dead"] == 3
    assert [job["job_id"] for job in own.objects("jobs", "list", "--state", "dead")] == dead[::-1]
    assert own.objects("jobs", "list", "--state", "dead", "--kind", "noop", "-n", "1", "--since", "1h")[0]["job_id"]
    assert own.objects("jobs", "pause", "noop")[0]["paused"] == ["noop"]
    assert {job["state"] for job in own.objects("jobs", "retry", "--state", "dead")} == {"pending"}
    assert own.objects("jobs", "status", str(dead[0]))[0]["attempts"]
    own.vec("jobs", "drop", str(dead[0]), status=2)
    own.vec("jobs", "drop", status=2)
    own.vec("jobs", "cancel", *map(str, dead))
    assert own.objects("jobs", "resume")[0]["paused"] == []
    assert own.objects("jobs", "drop", str(dead[0])) == [{"job_id": dead[0], "dropped": True}]
    assert len(own.objects("jobs", "drop", "--state", "cancelled")) == 2
    assert own.objects("jobs", "list") == []


def test_schedules_are_added_listed_run_replaced_and_removed(own: Instance) -> None:
    own.vec("library", "create", "notes")
    add = ("jobs", "schedule", "add", "nightly", "0 3 * * *", "rebuild", "-l", "notes")
    (made,) = own.objects(*add, "--zone", "Europe/Berlin", "--missed", "all", "-p", "index=flat")
    assert (made["zone"], made["missed"], made["params"]) == ("Europe/Berlin", "all", {"index": "flat"})
    assert made["next_at"]
    own.vec(*add, status=1)
    own.objects(*add, "--replace", "--priority", "3")
    listed = {each["name"]: each for each in own.objects("jobs", "schedule", "list")}
    assert {"nightly", "upkeep.prune", "upkeep.snapshot", "upkeep.vacuum", "upkeep.verify"} == listed.keys()
    assert (listed["nightly"]["priority"], listed["nightly"]["missed"]) == (3, "once")
    (job,) = own.objects("jobs", "schedule", "run", "nightly")
    own.vec("jobs", "wait", str(job["job_id"]))
    own.objects("jobs", "schedule", "remove", "nightly")
    for wrong, status in ((("remove", "nightly"), 4), (("run", "nightly"), 4), (("add", "x", "bad", "noop"), 2)):
        own.vec("jobs", "schedule", *wrong, status=status)


def test_verify_and_backup_print_what_they_found_and_made(own: Instance, tmp_path: Path) -> None:
    own.vec("ingest", stdin=ndjson(numbered(500)))
    (found,) = own.objects("verify")
    assert (found["documents"], found["problems"]) == (500, 0)
    done = subprocess.run(
        [BIN / "vec", "backup", "copy.db"],
        cwd=tmp_path,
        env=own.environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["path"] == str(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes().startswith(b"SQLite format 3")
    assert own.vec("backup", str(own.settings.data / "copy.db"), status=2).stderr


def test_an_interrupted_backup_cancels_its_job(own: Instance, tmp_path: Path) -> None:
    own.vec("jobs", "pause", "backup")
    with running(own, "backup", str(tmp_path / "copy.db")) as process:
        until(lambda: own.objects("jobs", "list"), "its job")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    (job,) = own.objects("jobs", "list")
    assert job["state"] == "cancelled"
    assert os.listdir(tmp_path) == []


def test_the_life_of_jobs_can_be_watched(own: Instance) -> None:
    job_id = submitted(own, "noop", "--wait")
    events = own.objects("watch", "--type", "job.*", "--from", "beginning", "--no-follow")
    assert [event["type"] for event in events] == ["job.submitted", "job.started", "job.completed"]
    assert {event["data"]["job_id"] for event in events} == {job_id}


def test_what_a_job_is_to_read_stays_when_the_daemon_falls_silent_before_it_answers(tmp_path: Path) -> None:
    """The job may be there."""

    class Silent:
        def spool(self) -> dict[str, Any]:
            return {"path": str(tmp_path / "spooled")}

        def submit_job(self, kind: str, params: dict[str, Any], **fields: Any) -> dict[str, Any]:
            raise VecError(Code.STALLED, "the daemon has not answered for 6 s")

    read, write = os.pipe()
    os.write(write, b"{}\n")
    os.close(write)
    try:
        with pytest.raises(VecError, match="has not answered"):
            spool.submit(Silent(), [f"/dev/fd/{read}"], "default", False)
    finally:
        os.close(read)
    assert (tmp_path / "spooled").read_bytes() == b"{}\n"
