"""Workers in this process, under faults that a daemon of its own would have to be starved for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from vecd.engine.engine import Engine
from vecd.errors import Code, VecError
from vecd.jobs import operations
from vecd.jobs.jobs import Jobs
from vecd.jobs.kinds import KINDS
from vecd.jobs.kinds.kind import JobKind, Run, Step, Steps
from vecd.settings import load
from vecd.store import job_transitions, jobs


class Refused(JobKind):
    name = "refused"
    what = "fail for good"

    def steps(self, run: Run) -> Steps:
        yield Step({})
        raise VecError(Code.INVALID_REQUEST, "no")


def test_a_worker_outlives_a_store_that_cannot_be_read_when_its_job_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "refused", Refused())

    def unreadable(*_: Any) -> Sequence[jobs.Job]:
        raise VecError(Code.STORAGE_FAILED, "unable to open database file")

    async def run() -> None:
        settings = load({"VEC_HOME": str(tmp_path)})
        settings.data.mkdir()
        engine = Engine(settings)
        engine.open(asyncio.get_running_loop(), lambda failure: None)
        there = Jobs(engine, 1)
        there.open(asyncio.get_running_loop())
        there.start()

        def submit(kind: str) -> int:
            wanted = operations.wanted(there, kind, {})
            job, _ = engine.database.submit(lambda tx: job_transitions.insert(tx, wanted)).result()
            return job.job_id

        try:
            with monkeypatch.context() as broken:
                broken.setattr(jobs, "find_many", unreadable)
                submit("refused")
                await asyncio.to_thread(until, lambda: there.dispatcher.counts[jobs.FAILED] == 1)
            submit("noop")
            await asyncio.to_thread(until, lambda: there.dispatcher.counts[jobs.COMPLETED] == 1)
        finally:
            await there.stop()
            await asyncio.to_thread(there.close)
            await asyncio.to_thread(engine.close)

    asyncio.run(run())
