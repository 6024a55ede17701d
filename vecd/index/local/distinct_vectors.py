"""DistinctVectors: finds rows with equal vectors, so that a graph has one node per distinct vector.

A *node* is a distinct vector; each row belongs to one node. Nodes are numbered in the order of their first rows. Equal
vectors are found by a hash of their bytes and compared byte by byte. In rare cases, hash
collisions prevent a merge of equal vectors: this costs a node, but no hit.

Memory: 8 bytes per row, 16 to 24 bytes per node, and 8 bytes for each row that is not the first of its node. Not
thread-safe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..rows import Bools, Labels

_Codes = npt.NDArray[Any]
#: Rows that are hashed at a time: their products fit in the CPU cache.
_HASHED_AT_ONCE = 1_024
_TABLE_SLOTS_MIN = 1_024
#: The maximum load of the hash table.
_LOAD_MAX = 0.5
#: The maximum number of probes per vector. Vectors with longer probe sequences are not merged.
_PROBES_MAX = 64


class _Grown:
    """A one-dimensional array that grows at its end."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._held: npt.NDArray[Any] = np.empty(1_024, dtype)
        self.count = 0

    @property
    def array(self) -> npt.NDArray[Any]:
        return self._held[: self.count]

    def append(self, values: npt.NDArray[Any]) -> None:
        total = self.count + len(values)
        if total > len(self._held):
            grown = np.empty(max(total, 2 * len(self._held)), self._held.dtype)
            grown[: self.count] = self.array
            self._held = grown
        self._held[self.count : total] = values
        self.count = total


class DistinctVectors:
    """The node of each row, and the rows of each node."""

    def __init__(self) -> None:
        self._node_of = _Grown(np.int32)
        self._first = _Grown(np.int32)  # by node, its first row
        self._hashes = _Grown(np.uint64)  # by node
        self._others: Labels = np.empty(0, np.int64)  # node << 32 | row of all rows but the first, ascending
        self._table: npt.NDArray[np.int32] = np.full(_TABLE_SLOTS_MIN, -1, np.int32)  # nodes, by open addressing
        self._random = np.random.default_rng()  # a different seed in each process: collisions cannot be prepared
        self._factors: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    @property
    def nodes(self) -> int:
        """The number of distinct vectors."""
        return self._first.count

    @property
    def has_duplicates(self) -> bool:
        """Whether a node has more than one row."""
        return len(self._others) > 0

    @property
    def node_of(self) -> npt.NDArray[np.int32]:
        """The node of each row."""
        return self._node_of.array

    @property
    def memory_bytes(self) -> int:
        arrays = (self._node_of.array, self._first.array, self._hashes.array, self._others, self._table)
        return sum(array.nbytes for array in arrays)

    def add(self, codes: _Codes, stored: _Codes) -> Bools:
        """Adds rows. `codes`, shape (n, d), are their vectors; `stored`, shape (nodes, d), those of the present nodes.

        Returns which rows are the first of a new node: the caller stores these, in this order.
        """
        hashes = self._hashed(codes)
        nodes = self._found(hashes, codes, stored)
        unknown = np.flatnonzero(nodes < 0)
        new = np.zeros(len(codes), np.bool_)
        if len(set(hashes[unknown].tolist())) == len(unknown):  # usual; np.unique takes longer
            new[unknown] = True
            nodes[unknown] = self.nodes + np.arange(len(unknown))
        else:
            _, first, group = np.unique(hashes[unknown], return_index=True, return_inverse=True)
            leader = unknown[first[group]]
            follows = leader != unknown
            follows[follows] = (codes[unknown[follows]] == codes[leader[follows]]).all(axis=1)
            fresh = unknown[~follows]
            new[fresh] = True
            nodes[fresh] = self.nodes + np.arange(len(fresh))
            nodes[unknown[follows]] = nodes[leader[follows]]
        start = self._node_of.count
        rows = np.arange(start, start + len(codes), dtype=np.int64)
        if not new.all():
            others = np.sort(nodes[~new] << 32 | rows[~new])
            self._others = np.insert(self._others, np.searchsorted(self._others, others), others)
        self._node_of.append(nodes)
        self._first.append(rows[new])
        self._hashes.append(hashes[new])
        self._enter(self.nodes - int(np.count_nonzero(new)))
        return new

    def restore(self, node_of: npt.NDArray[np.int32], stored: _Codes) -> None:
        """Restores the node of each row, for stored vectors of shape (nodes, d); there must be no rows yet.

        Raises ValueError unless nodes are numbered in the order of their first rows and each has one.
        """
        highest = np.maximum.accumulate(node_of) if len(node_of) else node_of
        steps = np.diff(highest, prepend=-1)
        if node_of.min(initial=0) < 0 or steps.max(initial=0) > 1 or int(steps.sum()) != len(stored):
            raise ValueError("its rows do not match its vectors")
        rows = np.arange(len(node_of), dtype=np.int64)
        self._node_of.append(node_of)
        self._first.append(rows[steps == 1])
        others = steps == 0
        self._others = np.sort(node_of[others].astype(np.int64) << 32 | rows[others])
        self._hashes.append(self._hashed(stored))
        self._enter(0)

    def find(self, code: _Codes, stored: _Codes) -> int | None:
        """The node with this vector, shape (d,); None if there is none."""
        node = int(self._found(self._hashed(code[None]), code[None], stored)[0])
        return None if node < 0 else node

    def mask(self, rows: Bools) -> Bools:
        """By node, whether a mask of rows contains one of its rows."""
        if not self.has_duplicates:
            return rows
        found = np.zeros(self.nodes, np.bool_)
        found[self.node_of[rows]] = True
        return found

    def rows_of(self, nodes: Labels, k: int, mask: Bools | None) -> tuple[Labels, Labels]:
        """The rows of these nodes that are in the mask of rows (None: all), at most k of them: in the order of the
        nodes, and ascending within one. Returns places in `nodes` and row numbers, both of shape (at most k,)."""
        starts = np.searchsorted(self._others, nodes << 32)
        stops = np.searchsorted(self._others, (nodes + 1) << 32)
        firsts = self._first.array[nodes].astype(np.int64)
        places: list[int] = []
        rows: list[int] = []
        for place, (first, start, stop) in enumerate(zip(firsts, starts, stops, strict=True)):
            if len(rows) >= k:
                break
            its = (
                np.append(first, self._others[start:stop] & 0xFFFF_FFFF) if stop > start else firsts[place : place + 1]
            )
            its = its if mask is None else its[mask[its]]
            its = its[: k - len(rows)]
            rows += its.tolist()
            places += [place] * len(its)
        return np.array(places, np.int64), np.array(rows, np.int64)

    # --- the table --------------------------------------------------------------------------------------------------

    def _hashed(self, codes: _Codes) -> npt.NDArray[np.uint64]:
        """Multiply-shift hashing: the words of a vector times random odd factors (Dietzfelbinger and others, 1997)."""
        words = codes.view(np.uint16 if codes.dtype.itemsize == 2 else np.uint32)
        if len(self._factors) != words.shape[1]:
            self._factors = self._random.integers(0, 2**63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
        hashes = np.empty(len(codes), np.uint64)
        for start in range(0, len(codes), _HASHED_AT_ONCE):
            piece = words[start : start + _HASHED_AT_ONCE].astype(np.uint64)
            hashes[start : start + len(piece)] = piece @ self._factors
        return hashes

    def _slots(self, hashes: npt.NDArray[np.uint64]) -> Labels:
        """The first slot of each hash: its highest bits, which depend on all words."""
        return (hashes >> np.uint64(65 - len(self._table).bit_length())).astype(np.int64)

    def _found(self, hashes: npt.NDArray[np.uint64], codes: _Codes, stored: _Codes) -> Labels:
        """The nodes with these vectors, -1 for none."""
        found = np.full(len(codes), -1, np.int64)
        pending, slots = np.arange(len(codes)), self._slots(hashes)
        for _ in range(_PROBES_MAX):
            there = self._table[slots]
            taken = there >= 0
            pending, slots, there = pending[taken], slots[taken], there[taken]
            if not len(pending):
                break
            same = self._hashes.array[there] == hashes[pending]
            same[same] = (stored[there[same]] == codes[pending[same]]).all(axis=1)
            found[pending[same]] = there[same]
            pending, slots = pending[~same], (slots[~same] + 1) & (len(self._table) - 1)
        return found

    def _enter(self, start: int) -> None:
        """Inserts the nodes from `start` on into the table; all of them if it must grow."""
        if self.nodes > _LOAD_MAX * len(self._table):
            self._table = np.full(1 << (int(self.nodes / _LOAD_MAX) - 1).bit_length(), -1, np.int32)
            start = 0
        nodes = np.arange(start, self.nodes, dtype=np.int32)
        slots = self._slots(self._hashes.array[start:])
        for _ in range(_PROBES_MAX):
            if not len(nodes):
                break
            free = self._table[slots] < 0
            self._table[slots[free]] = nodes[free]  # if several nodes hash to a slot, the last one gets it
            left = self._table[slots] != nodes
            nodes, slots = nodes[left], (slots[left] + 1) & (len(self._table) - 1)
