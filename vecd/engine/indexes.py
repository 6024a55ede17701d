"""Indexes: the LiveIndexes of all libraries. Each is created at the first search of its library, and follows all
commits from then on.

A LiveIndex is registered before its load reads the store, and a commit is applied to the indexes before its writers are
answered. So an acknowledged write is either read by the load or posted to the LiveIndex: none is lost in between.

Snapshots are in the data folder under `indexes/`, named by the id of the library: `.index` and `.text`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Code, VecError
from ..index.fulltext.segments import TermCounts
from ..index.live_index import LiveIndex
from ..index.pools import make_pools
from ..index.requests import Replaced, Write
from ..index.rows import Floats, Labels
from ..index.source import Rebuilt
from ..index.structure import Spec
from ..store import documents, events, libraries, reembed
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Change, Commit
from ..text.analysis import ANALYSIS_VERSION
from .chunk_terms import terms_of, terms_of_change
from .damage import TEXT, VECTOR, Damage
from .library_registry import LibraryRegistry, gone
from .second_indexes import SecondIndexes

log = logging.getLogger("vecd.index")


# A build takes minutes. A single read transaction would prevent a reset of the write-ahead log, which would grow by all
# writes during the build. So the labels are read in one transaction, and each page of rows in another: rows never
# change. A page lacks rows that the vacuum has deleted since. Their documents were removed after `seq`, so the
# LiveIndex masks them when it applies that commit.


class _Stored:
    """A library's living vectors as of one seq."""

    def __init__(self, database: Database, damage: Damage, library_id: int) -> None:
        self._database, self._damage = database, damage
        with database.read_transaction() as db:
            self.seq = events.head(db)
            self.labels, self.firsts = documents.living_chunks(db, library_id)
            self._drafted, self.generation, self.dimension = reembed.drafted(db, library_id)

    def pages(self, labels: Labels) -> Iterator[tuple[Labels, Floats]]:
        for page in _paged(labels):
            with self._damage.collecting(VECTOR) as left_out, self._database.read_transaction() as db:
                found = []
                if self._drafted is not None and page[0] <= self._drafted.last_label:
                    old = int(np.searchsorted(page, self._drafted.last_label, "right"))
                    found.append(self._drafted.read(db, page[:old], self.firsts, 4 * self.dimension))
                    page = page[old:]
                found += documents.vectors(db, documents.kept(db, page), left_out)
            for its_labels, packed in found:
                if len(packed) != 4 * len(its_labels) * self.dimension:
                    raise VecError(
                        Code.DAMAGED,
                        f"vectors of the chunks {its_labels[0]} to {its_labels[-1]} are damaged in the store: they have"
                        f" {len(packed):,} bytes, and {len(its_labels):,} of {self.dimension} dimensions have"
                        f" {4 * len(its_labels) * self.dimension:,}",
                        "`vec verify` lists the damage; restore a backup, or ingest these documents again",
                    )
                yield its_labels, np.frombuffer(packed, "<f4").reshape(len(its_labels), self.dimension)


class _StoredText:
    """A library's living chunks as of one seq."""

    def __init__(self, database: Database, damage: Damage, library: Library) -> None:
        self._database, self._damage, self._library = database, damage, library
        with database.read_transaction() as db:
            self.seq = events.head(db)
            self.labels = documents.living(db, library.library_id)

    def words(self, labels: Labels) -> Iterator[tuple[Labels, TermCounts]]:
        for page in _paged(labels):
            with self._damage.collecting(TEXT) as left_out, self._database.read_transaction() as db:
                found = list(documents.texts(db, documents.kept(db, page), left_out))
            for its_labels, titles, texts in found:
                yield its_labels, terms_of(self._library, titles, texts)


def _paged(labels: Labels) -> Iterator[Labels]:
    for start in range(0, len(labels), documents.PAGE_ROWS):
        yield labels[start : start + documents.PAGE_ROWS]


class _LibrarySource:
    """The store as the source of a LiveIndex (index/source.py)."""

    def __init__(self, database: Database, damage: Damage, folder: Path, library: Library) -> None:
        self._database = database
        self._damage = damage
        self._library = library
        self.path = folder / f"{library.library_id}.index"
        self.identity = {"log": database.log_id, "library": library.library_id}
        self.text_path = folder / f"{library.library_id}.text"
        self.text_identity = {**self.identity, "language": library.language, "analysis": ANALYSIS_VERSION}

    @contextlib.contextmanager
    def read(self) -> Iterator[_Stored]:
        yield _Stored(self._database, self._damage, self._library.library_id)

    @contextlib.contextmanager
    def read_text(self) -> Iterator[_StoredText]:
        yield _StoredText(self._database, self._damage, self._library)

    def rebuilt(self, report: Rebuilt) -> None:
        parameters = dict(report.spec.parameters)
        data = {"vectors": report.vectors, "seconds": round(report.seconds, 3), "reason": report.reason}
        self._database.submit(
            lambda tx: libraries.rebuilt(tx, self._library.library_id, report.spec.kind, parameters, data)
        ).result()
        log.info("index built", extra={"library": self._library.name, "kind": report.spec.kind, **data})

    @property
    def promise(self) -> float:
        return self._database.catalogue.by_id.get(self._library.library_id, self._library).recall  # it may have changed

    def recall_changed(self, report: dict[str, Any]) -> None:
        def logged(done: Future[int | None]) -> None:
            if (error := done.exception()) is not None:
                log.error("recall not logged", exc_info=error, extra={"library": self._library.name})
            elif done.result() is not None:
                log.info("recall promise %s", "met" if report["met"] else "missed", extra=about)

        about = {"library": self._library.name, **{key: report[key] for key in libraries.RECALL_FIELDS}}
        work = self._database.submit(lambda tx: libraries.recall_changed(tx, self._library.library_id, report))
        work.add_done_callback(logged)


class Indexes:
    """LiveIndexes by library id."""

    def __init__(self, database: Database, damage: Damage, folder: Path) -> None:
        self._database = database
        self._damage = damage
        self._folder = folder
        self._pools = make_pools()
        self._registry = LibraryRegistry(self._make_current, self._apply, self._drop)
        self.second = SecondIndexes(database, damage, folder, self._pools, self._report)
        self._known: set[int] = set()  # libraries that had chunks at the start, or since

    def open(self) -> None:
        """Removes snapshots of deleted libraries."""
        current = self._database.catalogue.by_name.values()
        self._known = {library.library_id for library in current if library.chunks}
        alive = {f"{each.library_id}.{what}" for each in current for what in ("index", "text", "second.index")}
        for path in [*self._folder.glob("*.index*"), *self._folder.glob("*.text*")]:
            if path.name.removesuffix(".new").removesuffix(".damaged") not in alive or path.suffix == ".new":
                path.unlink(missing_ok=True)

    def of(self, library: Library) -> LiveIndex:
        """The library's LiveIndex. The library must have a dimension. Raises VecError `not_found` if it was deleted."""
        return self._registry.of(library)

    def apply(self, commit: Commit) -> None:
        """Applies a commit to all LiveIndexes. On the writer's thread, in commit order."""
        self._registry.apply(commit)
        self.second.apply(commit)

    def _make_current(self, library: Library) -> LiveIndex:
        """Makes a LiveIndex for the current state of the library: the caller's may be older, with another index."""
        return self._make(self._database.catalogue.by_id[library.library_id])

    def _make(self, library: Library) -> LiveIndex:
        spec = spec_of(library)
        source = _LibrarySource(self._database, self._damage, self._folder, library)
        self._known.add(library.library_id)
        return LiveIndex(spec, self._pools, source, self._discard)

    def takes_terms(self, library: Library) -> bool:
        """Whether an index in memory will need the terms of a write."""
        return self._registry.get(library.library_id) is not None or library.library_id not in self._known

    def _apply(
        self, library: Library, live: LiveIndex | None, changes: list[Change], commit: Commit
    ) -> LiveIndex | None:
        """Applies changes. A library that gets its first chunks gets a LiveIndex, which need not be loaded."""
        for change in changes:
            if change.second is not None:
                continue
            if live is None and library.library_id not in self._known and len(change.labels):
                live = self._make(library)
                live.begin_empty(change.seq - 1, library.embedder_label)
            if live is not None:
                live.write(_write(library, change))
        return live

    def _drop(self, library: Library, live: LiveIndex | None) -> None:
        if live is not None:
            live.close(gone(library))
        for what in ("index", "text"):
            (self._folder / f"{library.library_id}.{what}").unlink(missing_ok=True)

    def loaded(self, library: Library) -> LiveIndex | None:
        """The library's LiveIndex, if it is in memory."""
        return self._registry.get(library.library_id)

    def describe(self, library: Library) -> dict[str, Any]:
        """The state of the library's index in memory, for `vec status`."""
        live = self.loaded(library)
        damaged = self._damage.labels(library)
        described: dict[str, Any] = {"state": "unloaded"} if live is None else live.describe()
        if library.second is not None:
            second = self.second.loaded(library)
            described["second"] = {"state": "unloaded"} if second is None else second.describe()
        return {**described, **({"damaged": len(damaged)} if damaged else {})}

    def stop_building(self) -> None:
        """Cancels builds, which may take minutes, and starts no others; searches and writes continue."""
        for live in self._all():
            live.stop_building()

    def stop(self) -> None:
        """Cancels background tasks; searches and writes continue."""
        for live in self._all():
            live.close()

    def close(self) -> None:
        """Closes all LiveIndexes, and saves snapshots with enough new rows. Blocks."""
        self.stop()
        self._pools.close()
        for live in self._all():
            try:
                live.save()
            except OSError as error:
                log.error("snapshot not saved", exc_info=error)

    def _all(self) -> list[LiveIndex]:
        return [*self._registry.all(), *self.second.all()]

    def _discard(self, failed: LiveIndex) -> None:
        self._report(failed)
        self._registry.discard(failed)

    def _report(self, failed: LiveIndex) -> None:
        if failed.failure is not None and failed.failure.code not in (Code.NOT_FOUND, Code.SHUTTING_DOWN):
            details = {"kind": failed.spec.kind, "reason": str(failed.failure)}
            # Errors of the store or the disk need no traceback; any other may be a bug.
            bug = failed.failure if failed.failure.code == Code.INDEX_FAILED else None
            log.error("index failed", exc_info=bug, extra=details)


def spec_of(library: Library) -> Spec:
    """The index configuration of a library, whose dimension must be known."""
    assert library.dimension is not None
    return Spec(library.dimension, library.metric, library.index, library.parameters)


def _write(library: Library, change: Change) -> Write:
    firsts = np.array([label for label, *_ in change.documents], np.int64)
    terms = partial(terms_of_change, library, change)
    replaced = None if change.replaced is None else Replaced(change.replaced, library.embedder_label)
    return Write(change.seq, change.labels, change.vectors, change.removed, firsts, terms, replaced)
