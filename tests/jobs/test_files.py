"""The files of export and backup jobs: what an attempt leaves, and that no attempt touches another one's file.

These tests need to hold a worker between two of its steps, so they run the engine and the workers in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support.instance import ndjson
from tests.support.waiting import until
from vecd.durable_files import identity, replace, resolve
from vecd.engine.engine import Engine
from vecd.errors import VecError
from vecd.jobs import operations
from vecd.jobs.jobs import Jobs
from vecd.jobs.kinds import KINDS
from vecd.jobs.kinds import output_files as files
from vecd.jobs.kinds.kind import Run, Step, Steps
from vecd.settings import load
from vecd.store import job_transitions as transitions
from vecd.store import jobs as store
from vecd.store.jobs import Job
from vecd.write_order import WriteOrder

BOTH = pytest.mark.parametrize("kind", ["export", "backup"])


class World:
    """An engine with one worker; `out` is a folder for what jobs make."""

    def __init__(self, jobs: Jobs, folder: Path) -> None:
        self.jobs = jobs
        self.database = jobs.engine.database
        self.out = folder / "out"
        self.out.mkdir(exist_ok=True)
        self._folder = folder

    async def submit(self, kind: str, params: dict[str, Any], **fields: Any) -> int:
        job = operations.wanted(self.jobs, kind, params, **fields)
        return int((await operations.submit(self.jobs, job, WriteOrder().take()))["job_id"])

    async def ended(self, job_id: int) -> dict[str, Any]:
        async for (job,) in operations.wait(self.jobs, [job_id], one=False, timeout_s=30, every_s=None):
            last = job
        return last

    async def ingest(self, start: int, stop: int) -> None:
        path = self._folder / "documents.ndjson"
        path.write_text(ndjson([{"id": f"d{n:05}", "text": f"text {n}"} for n in range(start, stop)]))
        assert (await self.ended(await self.submit("ingest", {"files": [str(path)]})))["state"] == "completed"

    def row(self, job_id: int) -> Job:
        with self.database.read_transaction() as db:
            return store.find(db, job_id)

    def cancel(self, job_id: int) -> None:
        """As another connection does it, from any thread but the writer's."""
        self.database.submit(lambda tx: transitions.cancel(tx, job_id)).result()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


def world(folder: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        settings = load({"VEC_HOME": str(folder), "VEC_EMBEDDER": "hash"})
        settings.data.mkdir(exist_ok=True)
        engine = Engine(settings)
        engine.open(asyncio.get_running_loop(), lambda failure: None)
        jobs = Jobs(engine, 1)
        jobs.open(asyncio.get_running_loop())
        jobs.start()
        try:
            await test(World(jobs, folder))
        finally:
            await jobs.stop()
            await asyncio.to_thread(jobs.close)
            await asyncio.to_thread(engine.close)

    asyncio.run(run())


Hook = Callable[[Run, int, Step], None]


def hooked(monkeypatch: pytest.MonkeyPatch, kind: str, hook: Hook) -> None:
    """Calls `hook(run, number, step)` in the worker before each step of the kind is committed."""
    original = KINDS[kind].steps

    def steps(run: Run) -> Steps:
        inner, reply, number = original(run), None, 0
        try:
            while True:
                try:
                    step = inner.send(reply)
                except StopIteration as end:
                    return dict(end.value)
                number += 1
                hook(run, number, step)
                reply = yield step
        finally:
            inner.close()

    monkeypatch.setattr(KINDS[kind], "steps", steps)


def is_last(step: Step) -> bool:
    return step.done is not None and step.done == step.total


def documents_in(path: Path, kind: str) -> int:
    if kind == "export":
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert ids == sorted(set(ids))
        return len(ids)
    db = apsw.Connection(str(path))
    try:
        return int(db.execute("SELECT count(*) FROM documents").get)
    finally:
        db.close()


def about(world: World, kind: str, **fields: Any) -> dict[str, Any]:
    library = {"library": "default"} if kind == "export" else {}
    return {"kind": kind, "params": {"path": str(world.out / "file")}, **library, **fields}


@BOTH
@pytest.mark.parametrize("end", ["cancelled", "timeout", "failed", "dead"])
def test_what_an_undone_job_has_put_aside_is_gone_before_its_end_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, end: str
) -> None:
    abandon = KINDS[kind].abandon
    seen: list[tuple[str, list[str]]] = []

    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if number < 2:
                return
            assert len(world.left()) == 1
            if end == "cancelled":
                world.cancel(run.job.job_id)
            elif end == "timeout":
                until(run.stopping, "its time to be up")
            elif end == "failed":
                raise VecError("invalid_request", "it cannot be done")
            else:
                raise OSError("the disk is gone")

        def watched(engine: Engine, job: Job) -> None:
            abandon(engine, job)
            seen.append((world.row(job.job_id).state, world.left()))

        await world.ingest(0, 600)
        hooked(monkeypatch, kind, hook)
        monkeypatch.setattr(KINDS[kind], "abandon", watched)
        monkeypatch.setattr(KINDS[kind], "attempts_max", 1)
        job_id = await world.submit(**about(world, kind, timeout_s=0.5 if end == "timeout" else None))
        assert (await world.ended(job_id))["state"] == ("failed" if end == "timeout" else end)
        assert seen[0] == ("running", [])

    world(tmp_path, test)


@BOTH
def test_a_late_clean_up_of_a_cancelled_run_does_not_touch_the_file_of_its_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    abandon = KINDS[kind].abandon
    late: list[Job] = []

    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if run.job.attempt == 1 and number == 2:
                world.cancel(run.job.job_id)
            elif run.job.attempt == 2 and is_last(step):  # the file is whole, and not in its place
                assert late
                for job in late:
                    abandon(world.jobs.engine, job)

        await world.ingest(0, 600)
        hooked(monkeypatch, kind, hook)
        monkeypatch.setattr(KINDS[kind], "abandon", lambda engine, job: late.append(job))
        job_id = await world.submit(**about(world, kind))
        assert (await world.ended(job_id))["state"] == "cancelled"
        await operations.retry(world.jobs, [job_id])
        assert (await world.ended(job_id))["state"] == "completed"
        assert documents_in(world.out / "file", kind) == 600
        assert world.left() == ["file"]

    world(tmp_path, test)


@BOTH
def test_a_job_cancelled_between_its_last_checkpoint_and_the_rename_replaces_the_old_file_when_it_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if run.job.attempt == 1 and is_last(step) and (kind == "backup" or step.checkpoint["whole"]):
                world.cancel(run.job.job_id)

        await world.ingest(0, 600)
        old = world.out / "file"
        old.write_text("from before")
        hooked(monkeypatch, kind, hook)
        job_id = await world.submit(**about(world, kind))
        assert (await world.ended(job_id))["state"] == "cancelled"
        assert old.read_text() == "from before"
        assert world.left() == ["file"]
        await world.ingest(600, 700)
        await operations.retry(world.jobs, [job_id])
        assert (await world.ended(job_id))["state"] == "completed"
        assert documents_in(old, kind) == 700
        assert world.left() == ["file"]

    world(tmp_path, test)


def test_an_export_whose_whole_file_goes_before_the_rename_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []

    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if step.checkpoint.get("whole") and not removed:
                removed.append(Path(step.checkpoint["file"]))
                removed[0].unlink()

        await world.ingest(0, 600)
        (world.out / "file").write_text("from before")
        hooked(monkeypatch, "export", hook)
        job = await world.ended(await world.submit(**about(world, "export")))
        assert removed
        assert (job["state"], job["result"]["documents"]) == ("completed", 600)
        assert documents_in(world.out / "file", "export") == 600

    world(tmp_path, test)


def test_a_paused_export_keeps_its_file_until_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if number == 2:
                world.database.submit(lambda tx: transitions.pause(tx, ["export"])).result()
                world.jobs.dispatcher.pause(["export"])

        await world.ingest(0, 600)
        hooked(monkeypatch, "export", hook)
        job_id = await world.submit(**about(world, "export"))
        await asyncio.to_thread(until, lambda: world.row(job_id).attempt and world.row(job_id).state == "pending", "it")
        assert len(world.left()) == 1
        (job,) = await operations.cancel(world.jobs, [job_id])
        assert job["state"] == "cancelled"
        assert world.left() == []

    world(tmp_path, test)


def test_a_file_that_is_in_its_place_already_counts_as_renamed_and_another_one_does_not(tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "path"
    made.write_text("whole")
    known = identity(made.stat())
    path.write_text("from before")
    assert files.put_in_place(made, path, known)
    assert files.put_in_place(made, path, known)
    assert path.read_text() == "whole"
    path.unlink()
    path.write_text("other")
    assert not files.put_in_place(made, path, known)


@BOTH
@pytest.mark.parametrize("trap", ["symlink", "fifo", "file", "journal"])
def test_what_somebody_plants_under_the_name_of_the_unfinished_file_is_not_followed_and_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, trap: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")

    async def test(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if number == 1:  # the name is known, and there is no file yet
                planted = Path(step.checkpoint["file"])
                if trap == "symlink":
                    planted.symlink_to(victim)
                elif trap == "fifo":
                    os.mkfifo(planted)
                elif trap == "journal" and kind == "backup":  # as a crash leaves it
                    planted.with_name(planted.name + "-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 128)
                else:
                    os.link(victim, planted)

        await world.ingest(0, 300)
        hooked(monkeypatch, kind, hook)
        job = await world.ended(await world.submit(**about(world, kind)))
        assert job["state"] == "completed", job["error"]
        assert documents_in(world.out / "file", kind) == 300
        assert (world.out / "file").stat().st_mode & 0o777 == 0o600
        assert world.left() == ["file"]
        assert victim.read_text() == "untouched"

    world(tmp_path, test)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a symlink of another user")
def test_a_symlink_of_another_user_in_a_folder_for_everybody_is_not_followed_for_writing(tmp_path: Path) -> None:
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.write_text("untouched")
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "out"
    link.symlink_to(victim)
    assert resolve(str(link), write=True) == victim
    os.chown(link, 12_345, 12_345, follow_symlinks=False)
    with pytest.raises(OSError, match="symlink of another user"):
        resolve(str(link), write=True)
    with pytest.raises(OSError, match="symlink of another user"):
        replace(link, b"overwritten")
    assert victim.read_text() == "untouched"


@BOTH
def test_what_an_undone_job_has_left_goes_when_the_daemon_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    left: list[Path] = []

    async def dies(world: World) -> None:
        def hook(run: Run, number: int, step: Step) -> None:
            if number == 2:
                world.cancel(run.job.job_id)

        await world.ingest(0, 600)
        hooked(monkeypatch, kind, hook)
        monkeypatch.setattr(KINDS[kind], "abandon", lambda engine, job: None)  # it dies before that
        job_id = await world.submit(**about(world, kind))
        assert (await world.ended(job_id))["state"] == "cancelled"
        checkpoint = world.row(job_id).checkpoint
        assert checkpoint is not None
        left.append(Path(checkpoint["file"]))
        left[0].write_text("all of the store")

    async def starts(world: World) -> None:
        assert not left[0].exists()

    world(tmp_path, dies)
    assert left[0].exists()
    world(tmp_path, starts)
