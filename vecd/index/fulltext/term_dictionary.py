"""TermDictionary: numbers the terms of an inverted index, from 0 in insertion order.

It looks up the number of a term, and the numbers of all terms with a prefix. For prefixes, terms are kept in sorted
runs. A few thousand new terms make a run, and runs of similar size are merged up to a maximum: no single call sorts
much, and a prefix costs two binary searches per run.

Rules: numbers never change, and a term remains until a restart, even if no row has it any more. The dict has only
strings and integers, and the runs are tuples, so Python's garbage collector does not traverse them. Not thread-safe:
the index that owns it is an actor.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress, pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]

_RUN_TERMS_MIN = 2_048
_RUN_TERMS_MAX = 16_384
#: Memory of a term besides its string and its dict entry: an integer object, two pointers, its number in a run.
_TERM_BYTES = 28 + 8 + 8 + 4
_ERRORS = "surrogatepass"  # a term is any Python string


class TermDictionary:
    """Term -> number."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._names: list[str] = []
        self._runs: list[tuple[tuple[str, ...], Ids]] = []  # sorted terms and their numbers
        self._recent: list[str] = []  # in no run yet
        self._string_bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def terms(self) -> list[str]:
        """All terms; the place of a term is its number."""
        return list(self._names)

    @property
    def memory_bytes(self) -> int:
        return sys.getsizeof(self._ids) + self._string_bytes + _TERM_BYTES * len(self._ids)

    def find(self, term: str) -> int | None:
        return self._ids.get(term)

    def name(self, number: int) -> str:
        """The term with this number."""
        return self._names[number]

    def number(self, terms: Sequence[str]) -> Ids:
        """The numbers of these terms, shape (len(terms),); a new term gets the next one."""
        found = list(map(self._ids.get, terms))
        if None in found:
            new = list(dict.fromkeys(term for term, known in zip(terms, found, strict=True) if known is None))
            self._ids.update(zip(new, range(len(self._ids), len(self._ids) + len(new)), strict=True))
            self._names += new
            self._string_bytes += sum(map(sys.getsizeof, new))
            self._recent += new
            if len(self._recent) >= _RUN_TERMS_MIN:
                self._push(self._recent)
                self._recent = []
            found = list(map(self._ids.__getitem__, terms))
        return np.array(found, np.int32)

    def beginning_with(self, prefix: str) -> Ids:
        """The numbers of all terms that begin with `prefix`, ascending."""
        found = [np.array([self._ids[term] for term in self._recent if term.startswith(prefix)], np.int32)]
        for terms, ids in self._runs:
            first = bisect_left(terms, prefix)
            found.append(ids[first : bisect_right(terms, prefix, first, key=lambda term: term[: len(prefix)])])
        return np.sort(np.concatenate(found))

    def _push(self, terms: list[str]) -> None:
        while self._runs and len(self._runs[-1][0]) <= min(len(terms), _RUN_TERMS_MAX // 2):
            terms = [*self._runs.pop()[0], *terms]
        terms.sort()
        self._runs.append((tuple(terms), np.array(list(map(self._ids.__getitem__, terms)), np.int32)))


def encode(terms: Sequence[str], used: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The terms that are `used`: their concatenated UTF-8 bytes, and the offset of each, and the end."""
    pieces = [term.encode("utf-8", _ERRORS) for term in compress(terms, used.tolist())]
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    return np.frombuffer(b"".join(pieces), np.uint8), offsets


def decode(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> TermDictionary:
    """The inverse of `encode`. Raises ValueError for arrays that `encode` cannot have made."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of its terms are inconsistent")
    raw, places = data.tobytes(), offsets.tolist()
    made = TermDictionary()
    made.number([raw[a:b].decode("utf-8", _ERRORS) for a, b in pairwise(places)])
    if len(made) != len(places) - 1:
        raise ValueError("a term occurs twice")
    return made
