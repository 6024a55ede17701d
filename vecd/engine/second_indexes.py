"""Indexes of the second stage: a LiveIndex of vectors beside that of each library with a second embedder.

As the first one (indexes.py) it is made at the first search and then follows all commits. It holds the chunks that have
their second vectors. Their labels ascend, because the stage processes chunks in that order, so it grows as any index
does. It knows all documents of the library, to group chunks by document, and has no full text.

It is made again when the stage starts again. Its snapshot is `ID.second.index`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..index.live_index import LiveIndex
from ..index.pools import Pools
from ..index.requests import Write
from ..index.rows import Floats, Labels
from ..index.source import Rebuilt, StoredText
from ..index.structure import Spec
from ..store import documents, events, libraries
from ..store import second_stage as store
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Change, Commit
from .damage import VECTOR, Damage
from .library_registry import LibraryRegistry, gone

log = logging.getLogger("vecd.index")


class _Stored:
    """The second vectors of a library as of one commit."""

    def __init__(self, database: Database, damage: Damage, library_id: int, dimension: int) -> None:
        self._database, self._damage, self.dimension = database, damage, dimension
        with database.read_transaction() as db:
            self.seq = events.head(db)
            self.labels, self.firsts, self.generation = store.labels(db, library_id)

    def pages(self, labels: Labels) -> Iterator[tuple[Labels, Floats]]:
        for start in range(0, len(labels), documents.PAGE_ROWS):
            page = labels[start : start + documents.PAGE_ROWS]
            with self._damage.collecting(VECTOR) as left_out, self._database.read_transaction() as db:
                found = store.vectors(db, page, self.dimension, left_out)
            yield found


class _Source:
    """The store as the source of a LiveIndex (index/source.py)."""

    text_path = None

    def __init__(self, database: Database, damage: Damage, folder: Path, library: Library) -> None:
        assert library.second_dimension is not None
        self._database, self._damage, self._library = database, damage, library
        self._dimension = library.second_dimension
        self.path = path_of(folder, library.library_id)
        self.identity = {
            "log": database.log_id, "library": library.library_id, "second": library.second_generation,
        }  # fmt: skip
        self.text_identity: dict[str, Any] = {}

    @contextlib.contextmanager
    def read(self) -> Iterator[_Stored]:
        yield _Stored(self._database, self._damage, self._library.library_id, self._dimension)

    def read_text(self) -> contextlib.AbstractContextManager[StoredText]:
        raise AssertionError("the second stage has no full text")

    def rebuilt(self, report: Rebuilt) -> None:
        about = {"vectors": report.vectors, "seconds": round(report.seconds, 3), "reason": report.reason}
        log.info("second index built", extra={"library": self._library.name, "kind": report.spec.kind, **about})

    @property
    def promise(self) -> float:
        return self._database.catalogue.by_id.get(self._library.library_id, self._library).recall

    def recall_changed(self, report: dict[str, Any]) -> None:
        about = {key: report[key] for key in libraries.RECALL_FIELDS}
        log.info(
            "second index: recall promise %s", "met" if report["met"] else "missed",
            extra={"library": self._library.name, **about},
        )  # fmt: skip


class SecondIndexes:
    """LiveIndexes of second stages, by library id."""

    def __init__(
        self,
        database: Database,
        damage: Damage,
        folder: Path,
        pools: Pools,
        on_failure: Callable[[LiveIndex], None],
    ) -> None:
        """`on_failure` is told of an index that cannot answer any more."""
        self._database, self._damage, self._folder, self._pools = database, damage, folder, pools
        self._on_failure = on_failure
        self._registry: LibraryRegistry[LiveIndex] = LibraryRegistry(self._make_current, self._apply, self._drop)

    def of(self, library: Library) -> LiveIndex | None:
        """The library's second index; None while it has no second vectors. Raises VecError `not_found`."""
        now = self._database.catalogue.by_id[library.library_id]
        return None if now.second is None or now.second_dimension is None else self._registry.of(library)

    def loaded(self, library: Library) -> LiveIndex | None:
        """The library's second index, if it is in memory."""
        return self._registry.get(library.library_id)

    def all(self) -> list[LiveIndex]:
        return self._registry.all()

    def apply(self, commit: Commit) -> None:
        """Applies a commit to all of them. On the writer's thread, in commit order."""
        self._registry.apply(commit)

    def _make_current(self, library: Library) -> LiveIndex:
        now = self._database.catalogue.by_id[library.library_id]
        source = _Source(self._database, self._damage, self._folder, now)
        return LiveIndex(spec_of(now), self._pools, source, self._discard)

    def _discard(self, failed: LiveIndex) -> None:
        self._registry.discard(failed)
        self._on_failure(failed)

    def _apply(
        self, library: Library, live: LiveIndex | None, changes: list[Change], commit: Commit
    ) -> LiveIndex | None:
        for change in changes:
            if live is not None and change.second is not None and change.second.begun:
                self._drop(library, live)
                live = None
            elif live is not None:
                live.write(_write(live, change))
        return live

    def _drop(self, library: Library, live: LiveIndex | None) -> None:
        if live is not None:
            live.close(gone(library))
        path_of(self._folder, library.library_id).unlink(missing_ok=True)


def spec_of(library: Library) -> Spec:
    """The index of a library's second stage, whose dimension must be known: of the library's kind and metric, with its
    parameters as far as every dimension allows them."""
    assert library.second_dimension is not None
    return Spec(library.second_dimension, library.metric, library.index, library.parameters)


def path_of(folder: Path, library_id: int) -> Path:
    """The snapshot of a library's second index."""
    return folder / f"{library_id}.second.index"


def _write(live: LiveIndex, change: Change) -> Write:
    if change.second is not None:
        none = np.empty(0, np.int64)
        return Write(change.seq, change.second.labels, change.second.vectors, [], none, always=True)
    firsts = np.array([label for label, *_ in change.documents], np.int64)
    nothing = np.empty((0, live.spec.dimension), np.float32)
    return Write(change.seq, np.empty(0, np.int64), nothing, change.removed, firsts, always=True)
