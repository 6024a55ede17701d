"""A real LiveIndex that holds a collection, and what happens to it: deletes, updates, rebuilds, restarts.

The tail, draining, builds, snapshots and masks are those of the daemon. Rows are numbered in the order in which they
were written, so row r has the label r + 1 and its vector never changes; `alive` says which rows are still there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from tests.support.index_source import Driven, MemorySource
from vecd.index.policy import Tuning
from vecd.index.requests import SearchOptions
from vecd.index.rows import Bools, Floats, Labels
from vecd.index.structure import Spec

from .data import Collection, Numbers, Random
from .truth import Rows, Truth

#: Longest time that building an index may take.
_WAIT_S: Final = 3_600.0


class Choice:
    """What a filter lets through: rows by a mask of shape (rows,)."""

    def __init__(self, basis: object, mask: Bools) -> None:
        self.basis = basis
        self.mask: Bools = np.append(mask, False)
        self.documents = int(mask.sum())
        self.last_label = len(mask)

    def numbers(self, labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return (labels - 1).astype(np.int32)


class Subject:
    """One index, through its life."""

    def __init__(self, collection: Collection, spec: Spec, folder: Path, rows_min: int, seed: int) -> None:
        self.collection = collection
        self.spec = spec
        # Searches follow one another within milliseconds, as under load; `settle` waits until they have paused.
        self.tuning = Tuning(rows_min=rows_min, save_rows_at_stop=1, quiet_s=0.05)
        self._source = MemorySource(spec, folder / f"{collection.name}-{spec.kind}-{spec.metric}")
        self._random: Random = np.random.default_rng(seed)
        self._written: list[Floats] = []
        self._truth: Truth | None = None
        self.alive: Bools = np.empty(0, np.bool_)
        self.groups: Numbers = np.empty(0, np.int64)
        self._basis = object()
        self.driven = Driven(self._source, self.tuning)

    @property
    def coarse(self) -> float:
        """By how much its scores may differ from exact ones: a float16 has eleven bits."""
        return 2e-3 if self.spec.parameters.get("vectors") == "float16" else 0.0

    @property
    def truth(self) -> Truth:
        if self._truth is None:
            self._truth = Truth(np.concatenate(self._written), self.spec.metric)
        return self._truth

    def vectors(self, rows: Rows) -> Floats:
        found: Floats = np.concatenate(self._written)[rows]
        return found

    def write(self, vectors: Floats, groups: Numbers, replaced: Rows | None = None) -> None:
        """Adds rows; those that they replace are deleted in the same commit."""
        gone = np.empty(0, np.int64) if replaced is None else replaced
        self.driven.write(vectors if len(vectors) else None, (gone + 1).tolist())
        if len(vectors):
            self._written.append(vectors)
        self.alive = np.append(self.alive, np.ones(len(vectors), np.bool_))
        self.alive[gone] = False
        self.groups = np.append(self.groups, groups)
        self._truth = None
        self._basis = object()

    def search(self, query: Floats, k: int, mask: Bools | None, ef: int | None = None) -> tuple[Rows, Floats, float]:
        """Rows and scores, best first, and the milliseconds that it took."""
        select = None
        if mask is not None:
            choice = Choice(self._basis, mask)

            def select() -> Choice:
                return choice

        started = time.perf_counter()
        found = self.driven.live.search(query, SearchOptions(k, ef, select=select), wake=False)
        self.driven.live.turn()
        scores, labels = found.result(_WAIT_S)
        return labels - 1, scores, (time.perf_counter() - started) * 1e3

    def settle(self) -> None:
        """All maintenance is done."""
        self.driven.live.settle().result(_WAIT_S)

    # --- its life ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """All at once, then built."""
        self.write(self.collection.vectors, self.collection.groups)
        self.settle()

    def delete_groups(self, share: float) -> Numbers:
        """Deletes whole groups, large ones first, up to a share of the rows: holes that no search may end in.

        Returns the rows that went.
        """
        numbers, sizes = np.unique(self.groups[self.alive], return_counts=True)
        order = np.argsort(-sizes, kind="stable")
        left, chosen = int(share * self.alive.sum()), []
        for number, size in zip(numbers[order].tolist(), sizes[order].tolist(), strict=True):
            if size <= left:
                chosen.append(number)
                left -= size
        gone = np.flatnonzero(self.alive & np.isin(self.groups, chosen))
        self.write(np.empty((0, self.spec.dimension), np.float32), np.empty(0, np.int64), gone)
        self.settle()
        return gone

    def update(self, share: float, deleted: float = 0.0) -> None:
        """Replaces a share of the rows by new vectors of the same distribution, in small commits, and deletes some."""
        chosen = self._random.permutation(np.flatnonzero(self.alive))
        updated, gone = np.split(chosen[: int((share + deleted) * len(chosen))], [int(share * len(chosen))])
        fresh = self.collection.fresh(len(updated), self._random)
        for start in range(0, len(updated), 500):
            part = updated[start : start + 500]
            self.write(fresh[start : start + len(part)], self.groups[part], part)
        if len(gone):
            self.write(np.empty((0, self.spec.dimension), np.float32), np.empty(0, np.int64), gone)
        self.settle()

    def refill(self) -> None:
        """Adds new vectors until there are as many as at the beginning: fewer might be few enough for a scan."""
        missing = len(self.collection.vectors) - int(self.alive.sum())
        groups = self._random.choice(self.groups[self.alive], missing)
        self.write(self.collection.fresh(missing, self._random), groups)
        self.settle()

    def rebuild(self) -> None:
        self.driven.live.rebuild().result(_WAIT_S)
        self.settle()

    def restart(self, *, snapshot: bool) -> None:
        """Stops and loads again; `snapshot`: from a snapshot, or else from the vectors alone."""
        self.driven.stop(save=snapshot)
        if not snapshot and self._source.path is not None:
            self._source.path.unlink(missing_ok=True)
        self.driven = Driven(self._source, self.tuning)
        self.settle()

    def stop(self) -> None:
        self.driven.stop()
