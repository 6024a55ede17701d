"""verify: checks that the store, the log and the indexes agree with each other.

A bounded part a step, each in a read transaction of its own; nothing is kept from one attempt to the next. Reads and
writes go on. If something is wrong the job fails, with what was found in its error and in its log. Rows that an earlier
version wrote have no checksums yet; they get them here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import limits
from ...engine import libraries
from ...errors import Code, VecError
from ...index.rows import Labels
from ...store import documents as store
from ...store import events, integrity
from ...store.catalogue import Library
from ..effects import AddChecksums
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


_Reading = Callable[[Any, int], Labels]

#: Libraries whose counts and indexes are checked in one step.
_LIBRARIES_A_STEP = 50


class Verify(JobKind):
    """SQLite's own checks, then the log, then all documents, then each library's counts and index."""

    name = "verify"
    what = "check the store against its checksums, its log and the indexes"
    unit = "rows"
    running_max: ClassVar[int | None] = 1
    attempts_max: ClassVar[int] = 2
    params: ClassVar[Mapping[str, Param]] = {
        "mb_per_s": Param("how fast documents are read; as fast as the disk gives them unless set", float, low=0.01),
    }

    def steps(self, run: Run) -> Steps:
        engine, problems = run.engine, _Problems()
        replayed = integrity.Replayed()
        with engine.database.read_transaction() as db:
            tables = integrity.tables(db)
        total = engine.database.head + sum(library.documents for library in libraries.all_libraries(engine))
        for table in tables:
            with engine.database.read_transaction() as db:
                problems.add(integrity.integrity(db, table))
            yield Step(done=0, total=total, lines=problems.fresh())
        while True:
            with engine.database.read_transaction() as db:
                head = events.head(db)
                problems.add(integrity.replay(db, replayed, head, limits.VERIFY_ROWS))
                if replayed.seq >= head:
                    problems.add(integrity.log_against_tables(db, replayed))
                    break
            yield Step(done=replayed.seq, total=max(total, replayed.seq), lines=problems.fresh())
        done, documents, chunks = replayed.seq, 0, 0
        after: int | None = -1
        pace = _Pace(run)
        while after is not None:
            with engine.database.read_transaction() as db:
                looked = integrity.documents(db, engine.database.catalogue, after, limits.VERIFY_ROWS)
            problems.add(looked.problems)
            documents, chunks, after = documents + looked.documents, chunks + looked.chunks, looked.last
            step = Step(done=done + documents, total=max(total, done + documents), lines=problems.fresh())
            if looked.unsummed:
                step.checkpoint, step.effect = {}, AddChecksums(looked.unsummed)
            yield step
            pace.rest(looked.bytes)
        wanted = libraries.all_libraries(engine)
        for place, library in enumerate(wanted, 1):
            with engine.database.read_transaction() as db:
                problems.add(integrity.counts(db, library))
            problems.add(_index(engine, library))
            if place % _LIBRARIES_A_STEP == 0 or problems.news:
                yield Step(done=done + documents, total=max(total, done + documents), lines=problems.fresh())
        if problems.count:
            raise VecError(
                Code.DAMAGED,
                f"{problems.count:,} problems were found: {problems.told[0]}",
                f"vec jobs logs {run.job.job_id} has them; delete the damaged documents and write them again, or"
                " restore a backup; vec library rebuild for an index",
                problems=problems.told,
            )
        found = {"libraries": len(wanted), "documents": documents, "chunks": chunks}
        return {**found, "events": replayed.seq, "problems": 0}


class _Problems:
    """What has been found; only the first ones are told."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []
        self._logged = 0

    def add(self, problems: list[str]) -> None:
        self.count += len(problems)
        self.told += problems[: limits.PROBLEMS_REPORTED - len(self.told)]

    @property
    def news(self) -> bool:
        """Whether there are some that have not been logged yet."""
        return len(self.told) > self._logged

    def fresh(self) -> list[str]:
        """Those that have not been logged yet."""
        fresh, self._logged = self.told[self._logged :], len(self.told)
        return fresh


class _Pace:
    """Reads no more than the job's `mb_per_s`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._bytes_per_s = 1e6 * run.params.get("mb_per_s", 0.0)
        self._at = time.monotonic()

    def rest(self, size: int) -> None:
        """So many bytes have been read. Waits until they may have been."""
        if not self._bytes_per_s:
            return
        self._at = max(self._at, time.monotonic() - 1.0) + size / self._bytes_per_s
        while (left := self._at - time.monotonic()) > 0 and not self._run.stopping():
            time.sleep(min(left, 0.05))


def _index(engine: Engine, library: Library) -> list[str]:
    """Whether the index in memory, if there is one, holds the library's living chunks: those that lived before it was
    asked and still do, and no others than those that lived before or after, or came meanwhile."""
    live = engine.indexes.loaded(library)
    if live is None or not live.ready:
        return []
    problems = []
    checks: tuple[tuple[str, _Reading, Callable[[], Future[Any]]], ...] = (
        ("vectors", store.living, live.labels),
        ("texts", store.worded, live.text_labels),
    )
    for what, read, held in checks:
        before = _read(engine, library, read)
        # A reader sees a commit before the index hears of it. Once a later one is through, the index has heard of it.
        engine.database.submit(lambda tx: None).result()
        there = held().result()
        if there is None:  # not in memory
            continue
        after = _read(engine, library, read)
        newest = int(before[-1]) if len(before) else -1
        missing = np.setdiff1d(np.intersect1d(before, after), there)
        missing = np.setdiff1d(missing, engine.damage.labels(library))  # these have been reported already
        beyond = np.setdiff1d(there[there <= newest], np.union1d(before, after))
        if len(missing):
            problems.append(f"library {library.name}: its index lacks {len(missing):,} {what}")
        if len(beyond):
            problems.append(f"library {library.name}: its index holds {len(beyond):,} {what} that were deleted")
    return problems


def _read(engine: Engine, library: Library, read: _Reading) -> Labels:
    with engine.database.read_transaction() as db:
        return read(db, library.library_id)
