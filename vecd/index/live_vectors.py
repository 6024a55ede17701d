"""LiveVectors: the vectors of a library while they change, in a structure, a tail and tombstones.

Labels only grow, so the structure holds all living labels up to its last, and the tail (exact, any size) all above. New
rows go to the tail; removed rows are masked where they are. `drain` moves rows from the front of the tail into the
structure; `swap` replaces the structure.

Not thread-safe: one thread at a time calls it. It starts no work, waits for nothing, and reads the clock only to time a
drain.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from .. import limits
from . import brute_force, builder, native
from .builder import Loaded
from .futures import then
from .kinds import KINDS
from .local.flat import Flat
from .requests import Write
from .rows import Allowed, Bools, DocumentMap, Floats, Labels, Selection
from .structure import Effort, Hits, Spec, Structure


class LiveVectors:
    """The vectors of one library."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.structure: Structure | None = None
        self.tail = Flat(spec.dimension, spec.space)
        self.documents = DocumentMap(np.empty(0, np.int64))
        #: Living vectors; also right while rows move from the tail to the structure.
        self.count = 0
        self._last_label = -1  # the highest label ever added
        self._removed: list[Labels] = []  # since `note_removals`
        self._notes_removals = False
        self._row_s = {1: 0.0003, native.CORES: 0.0002}  # of draining one row, by the cores in use

    @property
    def exact(self) -> bool:
        """Whether every search is exact at the moment."""
        return self.structure is None or KINDS[self.spec.kind].exact

    @property
    def alive(self) -> Labels:
        """All living labels, ascending."""
        if self.structure is None:
            return self.tail.alive
        rows = self.structure.rows
        return np.concatenate((rows.labels[rows.alive], self.tail.alive))

    def holds(self, labels: Labels) -> Bools:
        """Which of these labels are alive, shape (len(labels),); in any order."""
        found = self.tail.holds(labels)
        if self.structure is not None:
            found |= self.structure.rows.holds(labels)
        return found

    def describe(self) -> dict[str, Any]:
        """Counts of rows and bytes. May be called from any thread; the figures may be a turn old."""
        structure, tail = self.structure, self.tail
        rows = structure.rows if structure is not None else None
        return {
            "vectors": self.count,
            "structure": len(rows) if rows is not None else 0,
            "tail": len(tail),
            "dead": tail.dead + (rows.dead if rows is not None else 0),
            "memory_bytes": tail.memory_bytes + (structure.memory_bytes if structure is not None else 0),
        }

    # --- searching --------------------------------------------------------------------------------------------------

    def prepared(self, queries: Floats) -> Floats:
        """Queries, shape (n, dimension), as `search` needs them."""
        return np.ascontiguousarray(builder.prepared(self.spec, queries))

    def allowed(self, selection: Selection | None) -> Allowed | None:
        """The structure's rows that a search may find; None without a structure."""
        return None if self.structure is None else self.structure.rows.allowed(selection)

    def search(
        self, queries: Floats, k: int, selection: Selection | None, allowed: Allowed | None, effort: Effort
    ) -> Hits | Future[Hits]:
        """The k best of each query: scores and labels of shape (n, min(k, matching rows)), best first, of the current
        state. `queries` as `prepared` returns them, `allowed` as the method of that name. A future if the structure is
        asynchronous."""
        from_structure: Hits | Future[Hits] | None = None
        if self.structure is not None:
            assert allowed is not None
            with native.threads_for(len(queries)):
                from_structure = self.structure.search(queries, min(k, allowed.count), allowed, effort)
        found = []
        if len(self.tail) or from_structure is None:
            found.append(self.tail.search(queries, k, selection))
        if from_structure is None:
            return self._best(found, k)
        if not isinstance(from_structure, Future):
            return self._best([from_structure, *found], k)
        return then(from_structure, lambda first: self._best([first, *found], k))

    def _best(self, found: list[Hits], k: int) -> Hits:
        """Merges several hits of the same queries to the k best. Any thread."""
        scores, labels = found[0]
        if len(found) > 1:
            scores = np.concatenate([each[0] for each in found], axis=1)
            labels = np.concatenate([each[1] for each in found], axis=1)
        scores, labels = brute_force.best(scores, labels, k)
        if self.spec.space == "l2":
            scores = -np.sqrt(np.maximum(-scores, 0))
        return scores, labels

    def sample(self, count: int, seed: int) -> Floats:
        """Up to `count` of the structure's living vectors, shape (n, dimension)."""
        if self.structure is None or not len(self.structure.rows):
            return np.empty((0, self.spec.dimension), np.float32)
        places = np.random.default_rng(seed).integers(0, len(self.structure.rows), count)
        return self.structure.sample(np.unique(places))

    # --- changing ---------------------------------------------------------------------------------------------------

    def adopt(self, loaded: Loaded) -> None:
        """Takes over the loaded vectors."""
        self.structure, self.tail = loaded.structure, loaded.tail
        self.spec = replace(self.spec, dimension=loaded.tail.dimension)
        self.documents = DocumentMap(loaded.firsts)
        self._last_label = loaded.tail.last_label
        if loaded.structure is not None:
            self._last_label = max(self._last_label, loaded.structure.rows.last_label)
        self._recount()

    def apply(self, write: Write) -> Labels:
        """Removes and adds the rows of a write; returns the removed labels. Rows that the structure has already are
        skipped: it is built from the store, which may be ahead of the posted writes."""
        removed = np.array(write.removed, np.int64)
        if len(removed):
            self._remove(removed)
            if self._notes_removals:
                self._removed.append(removed)
        new = int(np.searchsorted(write.labels, self._last_label, "right"))
        if new < len(write.labels):
            self.tail.add(write.labels[new:], builder.prepared(self.spec, write.vectors[new:]))
            self._last_label = int(write.labels[-1])
        self.documents.add(write.labels if write.firsts is None else write.firsts)
        self.documents.remove(removed)
        self._recount()
        return removed

    def replace(self, vectors: Flat) -> None:
        """Replaces all vectors, also by those of another dimension: by these, prepared as `builder.prepared` does, of
        which only those remain that are alive. There is no structure afterwards. It takes over `vectors`."""
        gone = np.setdiff1d(vectors.alive, self.alive, assume_unique=True)
        self.structure, self.tail = None, vectors
        self.spec = replace(self.spec, dimension=vectors.dimension)
        vectors.remove(gone)
        self._recount()

    def note_removals(self, noted: bool) -> None:
        """Starts or stops to note removed labels, for a `swap`."""
        self._notes_removals = noted
        self._removed.clear()

    def drain(self, budget_s: float, cores: int) -> None:
        """Moves about as many rows into the structure as fit into `budget_s` seconds; `cores`: 1 or all."""
        assert self.structure is not None
        labels, vectors = self.tail.take(max(1, int(budget_s / self._row_s[cores])))
        if len(labels):
            started = time.perf_counter()
            with native.threads(cores):
                self.structure.extend(labels, vectors)
            row_s = (time.perf_counter() - started) / len(labels)
            self._row_s[cores] += 0.2 * (row_s - self._row_s[cores])

    def swap(self, spec: Spec, structure: Structure | Flat, last_label: int) -> int:
        """Replaces the structure, and drops the rows of the tail up to the last label that the new one covers. A Flat
        becomes the front of the tail, and there is no structure. Returns the rows of the new structure."""
        tail = self.tail
        tail.drop_through(last_label)
        if isinstance(structure, Flat):
            while len(tail):
                structure.add(*tail.take(limits.FLAT_BLOCK_ROWS))
            self.structure, self.tail = None, structure
            rows = len(structure)
        else:
            self.structure, self.tail = structure, tail
            rows = len(structure.rows)
        for removed in self._removed:
            self._remove(removed)
        self._recount()
        self._last_label = max(self._last_label, last_label)
        self.spec = spec
        return rows

    def _remove(self, labels: Labels) -> None:
        self.tail.remove(labels)
        if self.structure is not None:
            self.structure.rows.remove(labels)

    def _recount(self) -> None:
        self.count = len(self.tail) + (len(self.structure.rows) if self.structure is not None else 0)
