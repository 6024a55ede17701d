"""verify: checks that the store, the log and the indexes are consistent.

Each step checks a bounded part in its own read transaction; attempts have no checkpoint. Reads and writes continue. If
there are problems, the job fails; they are in its error and its log. Rows that an earlier version wrote without
checksums get them here.
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
from ...parameters import Parameter
from ...store import documents as store
from ...store import events, integrity, second_stage
from ...store.catalogue import Library
from ..effects import AddChecksums
from .kind import JobKind, Run, Step, Steps

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
    params: ClassVar[Mapping[str, Parameter]] = {
        "mb_per_s": Parameter("megabytes of documents to read per second; default: no limit", float, low=0.01),
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
            yield Step(done=0, total=total, lines=problems.take_new())
        while True:
            with engine.database.read_transaction() as db:
                head = events.head(db)
                problems.add(integrity.replay(db, replayed, head, limits.VERIFY_ROWS))
                if replayed.seq >= head:
                    problems.add(integrity.log_against_tables(db, replayed))
                    break
            yield Step(done=replayed.seq, total=max(total, replayed.seq), lines=problems.take_new())
        done, documents, chunks = replayed.seq, 0, 0
        after: int | None = -1
        pace = _Pace(run)
        while after is not None:
            with engine.database.read_transaction() as db:
                looked = integrity.documents(db, engine.database.catalogue, after, limits.VERIFY_ROWS)
            problems.add(looked.problems)
            documents, chunks, after = documents + looked.documents, chunks + looked.chunks, looked.last
            step = Step(done=done + documents, total=max(total, done + documents), lines=problems.take_new())
            if looked.unsummed:
                step.checkpoint, step.effect = {}, AddChecksums(looked.unsummed)
            yield step
            pace.rest(looked.bytes)
        after = 0
        while after is not None:
            with engine.database.read_transaction() as db:
                found, after = second_stage.bad(db, after, limits.VERIFY_ROWS)
            problems.add(found)
            yield Step(done=done + documents, total=max(total, done + documents), lines=problems.take_new())
        wanted = libraries.all_libraries(engine)
        for place, library in enumerate(wanted, 1):
            with engine.database.read_transaction() as db:
                problems.add(integrity.counts(db, library))
            problems.add(_index(engine, library))
            if place % _LIBRARIES_A_STEP == 0 or problems.has_new:
                yield Step(done=done + documents, total=max(total, done + documents), lines=problems.take_new())
        if problems.count:
            raise VecError(
                Code.DAMAGED,
                f"{problems.count:,} problems were found: {problems.reported[0]}",
                f"vec jobs logs {run.job.job_id} has them; delete the damaged documents and write them again, or"
                " restore a backup; vec library rebuild for an index",
                problems=problems.reported,
            )
        checked = {"libraries": len(wanted), "documents": documents, "chunks": chunks}
        return {**checked, "events": replayed.seq, "problems": 0}


class _Problems:
    """The problems found; only the first ones are reported."""

    def __init__(self) -> None:
        self.count = 0
        self.reported: list[str] = []
        self._logged = 0

    def add(self, problems: list[str]) -> None:
        self.count += len(problems)
        self.reported += problems[: limits.PROBLEMS_REPORTED - len(self.reported)]

    @property
    def has_new(self) -> bool:
        """Whether some have not been logged yet."""
        return len(self.reported) > self._logged

    def take_new(self) -> list[str]:
        """The problems that have not been logged yet."""
        new, self._logged = self.reported[self._logged :], len(self.reported)
        return new


class _Pace:
    """Limits the read rate to `mb_per_s`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._bytes_per_s = 1e6 * run.params.get("mb_per_s", 0.0)
        self._at = time.monotonic()

    def rest(self, size: int) -> None:
        """Waits after `size` bytes were read, as the rate requires."""
        if not self._bytes_per_s:
            return
        self._at = max(self._at, time.monotonic() - 1.0) + size / self._bytes_per_s
        while (left := self._at - time.monotonic()) > 0 and not self._run.stopping():
            time.sleep(min(left, 0.05))


def _index(engine: Engine, library: Library) -> list[str]:
    """The problems of the index in memory, if there is one. It must have all chunks that are alive before and after the
    check, and no others than those alive before or after, or added during it."""
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
        # Readers see a commit before the index does. After a later commit, the index has applied it.
        engine.database.submit(lambda tx: None).result()
        indexed = held().result()
        if indexed is None:  # not in memory
            continue
        after = _read(engine, library, read)
        newest = int(before[-1]) if len(before) else -1
        missing = np.setdiff1d(np.intersect1d(before, after), indexed)
        missing = np.setdiff1d(missing, engine.damage.labels(library))  # these have been reported already
        beyond = np.setdiff1d(indexed[indexed <= newest], np.union1d(before, after))
        if len(missing):
            problems.append(f"library {library.name}: its index lacks {len(missing):,} {what}")
        if len(beyond):
            problems.append(f"library {library.name}: its index has {len(beyond):,} {what} that were deleted")
    return problems


def _read(engine: Engine, library: Library, read: _Reading) -> Labels:
    with engine.database.read_transaction() as db:
        return read(db, library.library_id)
