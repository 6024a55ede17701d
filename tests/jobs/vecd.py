"""`vecd` with kinds of job that only tests have: `python -m tests.jobs.vecd`.

`ledger` writes a document a step, so the log shows when each step was applied, and how often; `killer` kills the daemon
before it gets anywhere, `mover` after each step that it makes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from vecd.daemon import main
from vecd.engine.engine import Engine
from vecd.jobs.effects import WriteDocuments
from vecd.jobs.kinds import KINDS
from vecd.jobs.kinds.kind import JobKind, Run, Step, Steps
from vecd.parameters import Parameter
from vecd.store.documents import DocumentBatch, Entry


def _written(engine: Engine, library: str, document_id: str, attempt: int) -> WriteDocuments:
    """A document whose content says which attempt wrote it: written again by another, it would be an update."""
    entry = Entry(0, document_id, digest=f"{attempt:032x}", chunks=1)
    batch = DocumentBatch([entry], [None], [None], np.ones((1, 4), np.float32))
    return WriteDocuments(engine.database.catalogue.find(library), [batch])


class Ledger(JobKind):
    """One document a step, in a library of 4 dimensions."""

    name = "ledger"
    what = "write down each step"
    library = "required"
    library_max = None
    params: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter("how many", int, required=True),
        "seconds": Parameter("how long each takes", float),
    }

    def steps(self, run: Run) -> Steps:
        assert run.job.library is not None
        for number in range((run.checkpoint or {"number": 0})["number"] + 1, run.params["steps"] + 1):
            time.sleep(run.params.get("seconds", 0.0))
            effect = _written(run.engine, run.job.library, f"{run.job.job_id}-{number}", run.job.attempt)
            yield Step({"number": number}, effect, done=number, total=run.params["steps"])
        return {"steps": run.params["steps"]}


class Elsewhere(JobKind):
    """One document a step; made by workers outside the daemon (tests/support/lease_worker.py)."""

    name = "elsewhere"
    what = "write documents, outside the daemon"
    library = "required"
    library_max = None
    runs = "outside"
    params: ClassVar[Mapping[str, Parameter]] = {
        "steps": Parameter("how many", int, required=True),
        "seconds": Parameter("how long each takes", float),
    }


class Killer(JobKind):
    """The daemon dies of it."""

    name = "killer"
    what = "kill the daemon"

    def steps(self, run: Run) -> Steps:
        yield Step()
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


class Mover(JobKind):
    """The daemon dies of it, but each time it has come further."""

    name = "mover"
    what = "make a step and kill the daemon"
    params: ClassVar[Mapping[str, Parameter]] = {"steps": Parameter("how many", int, required=True)}

    def steps(self, run: Run) -> Steps:
        number = (run.checkpoint or 0) + 1
        if number <= run.params["steps"]:
            yield Step(number)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"steps": number - 1}


class Failer(JobKind):
    """Fails until it has been tried often enough."""

    name = "failer"
    what = "fail so often"
    params: ClassVar[Mapping[str, Parameter]] = {"times": Parameter("how often", int, required=True)}
    backoff_max_s = 0.05

    def steps(self, run: Run) -> Steps:
        yield Step(run.job.attempt)
        if run.job.failures < run.params["times"]:
            raise RuntimeError(f"attempt {run.job.attempt}")
        return {"attempts": run.job.attempt}


KINDS.update({kind.name: kind for kind in (Ledger(), Elsewhere(), Killer(), Mover(), Failer())})

if __name__ == "__main__":
    main()
