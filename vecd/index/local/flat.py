"""Flat: exact search by a scan of all vectors, stored in blocks. It is an index kind, and the tail of all others.

Rules: labels ascend from block to block. Growing allocates a block and never copies existing rows. A removed row is
masked; a block with a fifth of its rows dead is compacted. Not thread-safe: a LiveIndex owns it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ... import limits
from .. import brute_force
from ..kind import IndexKind
from ..rows import Bools, Floats, Labels, Rows, Selection

_DEAD_SHARE_MAX = 0.2


class _Block:
    """Up to FLAT_BLOCK_ROWS rows. Memory of unused rows is not resident."""

    __slots__ = ("matrix", "rows")

    def __init__(self, dimension: int, rows_max: int) -> None:
        self.matrix: Floats = np.empty((rows_max, dimension), np.float32)
        self.rows = Rows(rows_max)

    @property
    def vectors(self) -> Floats:
        return self.matrix[: self.rows.count]

    @property
    def worn(self) -> bool:
        """Whether it has enough dead rows for compaction to pay."""
        return self.rows.dead > _DEAD_SHARE_MAX * self.rows.count

    def append(self, labels: Labels, vectors: Floats) -> None:
        self.matrix[self.rows.count : self.rows.count + len(labels)] = vectors
        self.rows.append(labels)

    def drop_front(self, count: int) -> None:
        self.rows.drop_front(count)
        self.matrix = self.matrix[count:]


class Flat:
    """Exact k nearest neighbours of float32 vectors."""

    def __init__(self, dimension: int, space: str, block_rows: int = limits.FLAT_BLOCK_ROWS) -> None:
        self.dimension = dimension
        self.space = space
        self._block_rows = block_rows
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        """Rows that are alive."""
        return sum(len(block.rows) for block in self._blocks)

    @property
    def dead(self) -> int:
        """Rows that are masked."""
        return sum(block.rows.dead for block in self._blocks)

    @property
    def memory_bytes(self) -> int:
        """The memory of the rows in use."""
        return sum(block.vectors.nbytes + block.rows.memory_bytes for block in self._blocks)

    @property
    def last_label(self) -> int:
        return self._blocks[-1].rows.last_label if self._blocks else -1

    @property
    def alive(self) -> Labels:
        """The labels of its rows that are alive, ascending."""
        found = [block.rows.labels[block.rows.alive] for block in self._blocks]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def holds(self, labels: Labels) -> Bools:
        """Which of these labels are alive, shape (len(labels),); in any order."""
        found = np.zeros(len(labels), np.bool_)
        for block in self._blocks:
            found |= block.rows.holds(labels)
        return found

    def add(self, labels: Labels, vectors: Floats) -> None:
        """Adds rows: labels of shape (n,), ascending and above all that are there; vectors of shape (n, dimension)."""
        start = 0
        while start < len(labels):
            if not self._blocks or self._blocks[-1].rows.count == len(self._blocks[-1].matrix):
                self._blocks.append(_Block(self.dimension, self._block_rows))
            block = self._blocks[-1]
            stop = min(len(labels), start + len(block.matrix) - block.rows.count)
            block.append(labels[start:stop], vectors[start:stop])
            start = stop

    def remove(self, labels: Labels) -> None:
        """Masks these labels; unknown labels are ignored."""
        for block in self._blocks:
            block.rows.remove(labels)

    def take(self, count: int) -> tuple[Labels, Floats]:
        """Removes up to `count` rows from the front, dead ones included; returns the living ones."""
        if not self._blocks:
            return np.empty(0, np.int64), np.empty((0, self.dimension), np.float32)
        block = self._blocks[0]
        count = min(count, block.rows.count)
        alive = block.rows.alive[:count]
        labels, vectors = block.rows.labels[:count][alive], block.vectors[:count][alive]
        block.drop_front(count)
        if not block.rows.count:
            del self._blocks[0]
        return labels, vectors

    def drop_through(self, label: int) -> None:
        """Removes all rows up to this label (inclusive)."""
        while self._blocks and self._blocks[0].rows.last_label <= label:
            del self._blocks[0]
        if self._blocks:
            block = self._blocks[0]
            block.drop_front(int(np.searchsorted(block.rows.labels, label, "right")))

    @property
    def worn(self) -> bool:
        """Whether a block has enough dead rows for compaction to pay."""
        return any(block.worn for block in self._blocks)

    def maintain(self) -> bool:
        """Compacts one block with many dead rows. Returns whether there may be more to do."""
        worn = next((at for at, block in enumerate(self._blocks) if block.worn), None)
        if worn is not None:
            self._compact(worn)
        return worn is not None

    def _compact(self, at: int) -> None:
        block = self._blocks[at]
        alive = block.rows.alive
        labels, vectors = block.rows.labels[alive], block.vectors[alive]
        before = self._blocks[at - 1] if at else None
        if before is not None and before.rows.count + len(labels) <= len(before.matrix):
            before.append(labels, vectors)
            del self._blocks[at]
        elif len(labels):
            self._blocks[at] = _Block(self.dimension, self._block_rows)
            self._blocks[at].append(labels, vectors)
        else:
            del self._blocks[at]

    def sample(self, places: Labels) -> Floats:
        """The vectors of the living rows with these places among all living rows."""
        found = []
        start = 0
        for block in self._blocks:
            inside = places[(places >= start) & (places < start + len(block.rows))] - start
            found.append(block.vectors[block.rows.alive.nonzero()[0][inside]])
            start += len(block.rows)
        return np.concatenate(found) if found else np.empty((0, self.dimension), np.float32)

    def search(self, queries: Floats, k: int, selection: Selection | None = None) -> tuple[Floats, Labels]:
        """The k best of each query: scores and labels of shape (n, min(k, matching rows)), in no order."""
        scores, labels = [np.empty((len(queries), 0), np.float32)], [np.empty((len(queries), 0), np.int64)]
        for block in self._blocks:
            allowed = block.rows.allowed(selection)
            its_scores, rows = brute_force.nearest(block.vectors, queries, min(k, allowed.count), allowed, self.space)
            scores.append(its_scores)
            labels.append(block.rows.labels[rows])
        return np.concatenate(scores, axis=1), np.concatenate(labels, axis=1)


KIND: Final = IndexKind("a scan of all vectors; exact", exact=True)
