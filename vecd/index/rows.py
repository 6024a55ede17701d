"""Rows of a structure: their labels, tombstones, and the mask of a filter.

Rules: labels ascend, so a label's place is a binary search. A row is never moved, only masked; compaction makes new
Rows. Not thread-safe: the owner of the structure owns them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .native import faiss

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: The factor for k when the chunks found belong to too few documents.
DEEPER: Final = 4


class Selection(Protocol):
    """The documents that match a filter, as of one seq: a mask over numbered documents."""

    @property
    def basis(self) -> object:
        """Document numbers mean the same in all selections with the same basis."""

    @property
    def mask(self) -> Bools:
        """By document number; one more element at the end, False, for labels of unknown documents (number -1)."""

    @property
    def last_label(self) -> int:
        """Labels above this one belong to documents that the selection does not know."""

    @property
    def documents(self) -> int:
        """The number of living documents that match."""

    def numbers(self, labels: Labels) -> npt.NDArray[np.int32]:
        """The number of each label's document, -1 for none; labels ascend."""


class Allowed:
    """The rows that a search may find: `count` of them, by `mask` (None: all)."""

    def __init__(self, count: int, mask: Bools | None) -> None:
        self.count = count
        self.mask = mask

    @cached_property
    def ids(self) -> Labels:
        """Their row numbers."""
        assert self.mask is not None
        return self.mask.nonzero()[0]

    @cached_property
    def selector(self) -> Any:
        """For faiss. Keeps the bitmap that it points to alive."""
        if self.mask is None:
            return None
        self._bits = np.packbits(self.mask, bitorder="little")
        return faiss().IDSelectorBitmap(len(self.mask), faiss().swig_ptr(self._bits))


class Rows:
    """Labels of shape (count,), int64, ascending; `alive` of the same shape."""

    def __init__(self, capacity: int = 1_024) -> None:
        self._labels: Labels = np.empty(capacity, np.int64)
        self._alive: Bools = np.ones(capacity, np.bool_)
        self.count = 0
        self.dead = 0
        self._basis: object = None
        self._numbers: npt.NDArray[np.int32] = np.empty(0, np.int32)  # documents of the first rows
        self._consecutive = False  # the numbers are consecutive, so a slice of a mask can be copied

    def __len__(self) -> int:
        """Rows that are alive."""
        return self.count - self.dead

    @property
    def labels(self) -> Labels:
        return self._labels[: self.count]

    @property
    def alive(self) -> Bools:
        return self._alive[: self.count]

    @property
    def last_label(self) -> int:
        """-1 if there are no rows."""
        return int(self._labels[self.count - 1]) if self.count else -1

    @property
    def memory_bytes(self) -> int:
        return 9 * self.count + 4 * len(self._numbers)

    def append(self, labels: Labels) -> None:
        """Adds rows at the end; labels ascend, from above the last."""
        assert not len(labels) or labels[0] > self.last_label
        total = self.count + len(labels)
        if total > len(self._labels):
            capacity = max(total, 2 * len(self._labels))
            grown, alive = np.empty(capacity, np.int64), np.ones(capacity, np.bool_)
            grown[: self.count], alive[: self.count] = self.labels, self.alive
            self._labels, self._alive = grown, alive
        self._labels[self.count : total] = labels
        self._alive[self.count : total] = True
        self.count = total

    def find(self, labels: Labels) -> Labels:
        """The rows of those labels that are here."""
        if not self.count or not len(labels):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self.labels, labels), self.count - 1)
        found: Labels = places[self.labels[places] == labels]
        return found

    def holds(self, labels: Labels) -> Bools:
        """Which of these labels are alive, shape (len(labels),); in any order."""
        if not self.count:
            return np.zeros(len(labels), np.bool_)
        places = np.minimum(np.searchsorted(self.labels, labels), self.count - 1)
        held: Bools = (self.labels[places] == labels) & self.alive[places]
        return held

    def remove(self, labels: Labels) -> None:
        """Masks these labels; unknown labels are ignored."""
        places = self.find(labels)
        self._alive[places] = False
        self.dead = self.count - int(np.count_nonzero(self.alive)) if len(places) else self.dead

    def keep_only(self, labels: Labels) -> None:
        """Masks all labels except these, which ascend."""
        self._alive[: self.count] = False
        self._alive[self.find(labels)] = True
        self.dead = self.count - int(np.count_nonzero(self.alive))

    def drop_front(self, count: int) -> None:
        """Removes the first rows."""
        self._labels, self._alive = self._labels[count:], self._alive[count:]
        self._numbers = self._numbers[count:]
        self.count -= count
        self.dead = self.count - int(np.count_nonzero(self.alive))

    def allowed(self, selection: Selection | None) -> Allowed:
        """The rows that are alive and that the selection contains."""
        if selection is None:
            return Allowed(len(self), self.alive if self.dead else None)
        self._number(selection)
        mask = np.zeros(self.count, np.bool_)
        known = min(len(self._numbers), int(np.searchsorted(self.labels, selection.last_label, "right")))
        if self._consecutive and known:
            mask[:known] = selection.mask[self._numbers[0] : self._numbers[0] + known]
        else:  # number -1 is the mask's last, which is False
            np.take(selection.mask, self._numbers[:known], out=mask[:known], mode="wrap")
        if self.dead:
            mask &= self.alive
        return Allowed(int(np.count_nonzero(mask)), mask)

    def _number(self, selection: Selection) -> None:
        """Extends `_numbers` to the labels that the selection knows."""
        if selection.basis is not self._basis:
            self._basis, self._numbers = selection.basis, np.empty(0, np.int32)
        start = len(self._numbers)
        stop = int(np.searchsorted(self.labels, selection.last_label, "right"))
        if stop > start:
            self._numbers = np.concatenate((self._numbers, selection.numbers(self.labels[start:stop])))
            following = np.arange(self._numbers[0], self._numbers[0] + stop, dtype=np.int32)
            self._consecutive = self._numbers[0] >= 0 and np.array_equal(self._numbers, following)


class Ranked(NamedTuple):
    """Chunks, best first: scores, labels, and the labels of the first chunks of their documents, of shape (m,) each."""

    scores: Floats
    labels: Labels
    documents: Labels


class DocumentMap:
    """The document of each chunk: the labels of the documents' first chunks, ascending, dead ones included."""

    def __init__(self, firsts: Labels) -> None:
        self._firsts = firsts
        self._count = self.living = len(firsts)

    def add(self, firsts: Labels) -> None:
        """Adds documents; known ones are ignored. The labels ascend."""
        known = int(self._firsts[self._count - 1]) if self._count else -1
        firsts = firsts[np.searchsorted(firsts, known, "right") :]
        total = self._count + len(firsts)
        if total > len(self._firsts):
            grown = np.empty(max(total, 2 * len(self._firsts), 1_024), np.int64)
            grown[: self._count] = self._firsts[: self._count]
            self._firsts = grown
        self._firsts[self._count : total] = firsts
        self._count = total
        self.living += len(firsts)

    def remove(self, labels: Labels) -> None:
        """Counts documents as dead, by the labels of their chunks."""
        firsts = self._firsts[: self._count]
        if len(labels) and len(firsts):
            places = np.minimum(np.searchsorted(firsts, labels), len(firsts) - 1)
            self.living -= int(np.count_nonzero(firsts[places] == labels))

    def of(self, labels: Labels) -> Labels:
        """The labels of the first chunks of their documents; every label must belong to a known document."""
        firsts = self._firsts[: self._count]
        found: Labels = firsts[np.searchsorted(firsts, labels, "right") - 1]
        return found

    def best(
        self,
        scores: Floats,
        labels: Labels,
        k: int,
        selection: Selection | None,
        deeper: Callable[[int], tuple[Floats, Labels]],
    ) -> Ranked:
        """The k best documents, each by its best chunk; fewer only if no more are selected. `scores` and `labels` are
        those of the k best chunks, best first, fewer only if there are no more; `deeper` finds more of them."""
        asked = k
        while (ranked := self.ranked(scores, labels, k, asked, selection)) is None:
            asked *= DEEPER
            scores, labels = deeper(asked)
        return ranked

    def ranked(self, scores: Floats, labels: Labels, k: int, asked: int, selection: Selection | None) -> Ranked | None:
        """As `best`, of the `asked` best chunks (asked >= k); None if these are of too few documents."""
        documents = self.of(labels)
        first = np.sort(np.unique(documents, return_index=True)[1])[:k]
        if len(first) < k and len(labels) >= asked:
            k = min(k, self.living if selection is None else selection.documents)
        if len(first) >= k or len(labels) < asked:
            return Ranked(scores[first], labels[first], documents[first])
        return None
