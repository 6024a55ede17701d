"""snapshot: saves index snapshots, so that a start after a crash need not rebuild the indexes."""

from __future__ import annotations

import concurrent.futures
from typing import ClassVar

from ...engine import libraries
from .kind import JobKind, Run, Step, Steps

_POLL_S = 0.05


class Snapshot(JobKind):
    """Saves one library per step; all libraries by default. An index that is not loaded has nothing new to save."""

    name = "snapshot"
    what = "save the indexes that are in memory"
    unit = "libraries"
    library = "optional"
    running_max: ClassVar[int | None] = 1

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        wanted = [engine.database.catalogue.find(name)] if name is not None else libraries.all_libraries(engine)
        vectors = 0
        names: set[str] = set()
        for number, library in enumerate(wanted):
            yield Step(done=number, total=len(wanted))
            for live in (engine.indexes.loaded(library), engine.indexes.second.loaded(library)):
                if live is None or not live.ready:
                    continue
                future = live.snapshot()
                try:
                    while True:
                        try:
                            rows = future.result(_POLL_S)
                            break
                        except concurrent.futures.TimeoutError:
                            yield Step(done=number, total=len(wanted))
                finally:
                    future.cancel()
                names |= {library.name} if rows else set()
                vectors += rows
        return {"libraries": len(names), "vectors": vectors}
