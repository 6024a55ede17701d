"""The parts of an inverted index: batches of new rows, the tail that collects them, and immutable segments.

A *posting* is a term, a row and a count. The *count* is the sum of the weights of the term's occurrences in the row, at
most 255: an occurrence in the title weighs more than one in the text. The *length* of a row is the sum of the weights
of all its terms.

    TermCounts  the terms of a batch, from `prepare`; independent of an index, so any thread can make it
    Tail        postings by row, in insertion order; a search compares all its terms
    Segment     postings by term (CSR): the postings of a term are adjacent, and its rows ascend

Rules: the arrays of a segment never change; only masks and caches do. So `merge` may read segments on another thread,
given copies of their masks. Not thread-safe otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..rows import Bools, Floats, Labels, Rows
from .term_dictionary import Ids

Counts = npt.NDArray[np.uint8]
Terms = Sequence[str] | None
N = TypeVar("N", bound=np.generic)

_COUNT_MAX = 255
#: Postings of one step of a merge; bounds its temporary memory.
_SLAB_POSTINGS = 1 << 20
#: Sets are merged in a bitmap if its bits are at most this multiple of their members.
_BITMAP_SHARE = 16
#: A term in more than this share of the rows gets a dense array of counts, at its first lookup.
_DENSE_SHARE = 1 / 8
#: Looking up one row among the rows of a term takes as long as scanning this number of them.
LOOKUP_POSTINGS = 16


class Weights(NamedTuple):
    """The weight of one occurrence of a term; positive integers, so that counts and lengths are exact."""

    title: int = 2
    text: int = 1


class Postings(NamedTuple):
    """The postings of a term, or of several terms as if they were one. `rows`, int32, ascend; `counts`, uint8, are
    their counts; `living` is the number of living rows."""

    rows: Ids
    counts: Counts
    living: int
    count_max: int
    length_min: float
    place: int | None = None  # of the term in its segment


@dataclass(frozen=True, slots=True)
class TermCounts:
    """Rows to add. `places`: their places among the prepared rows, ascending; rows without text are left out.

    The postings are by row: `rows` (ascending), `terms` (numbers of `vocabulary`) and `counts`.
    """

    vocabulary: list[str]
    places: npt.NDArray[np.int64]
    lengths: Floats
    rows: Ids
    terms: Ids
    counts: Counts

    def only(self, kept: Sequence[int]) -> TermCounts:
        """Only these prepared rows, ascending, as if no others had been prepared."""
        wanted = np.asarray(kept, np.int64)
        chosen = np.isin(self.places, wanted)
        numbers = np.cumsum(chosen) - 1
        postings = chosen[self.rows]
        return TermCounts(
            self.vocabulary,
            np.searchsorted(wanted, self.places[chosen]),
            self.lengths[chosen],
            numbers[self.rows[postings]].astype(np.int32),
            self.terms[postings],
            self.counts[postings],
        )


def prepare(
    titles: Sequence[Terms],
    texts: Sequence[Terms],
    weights: Weights = Weights(),
    forms: Sequence[Sequence[str]] | None = None,
) -> TermCounts:
    """Counts the terms of each row's title and text, for `InvertedIndex.add`. A pure function, for any thread.

    A row with neither (None twice) is left out. A row with empty lists is added, but no search finds it. `forms` are
    additional terms of each row that do not count for its length.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    places = np.array([at for at, both in enumerate(zip(titles, texts, strict=True)) if both != (None, None)], np.int64)
    lengths = np.zeros(len(places), np.int64)
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for lists, weight in ((titles, weights.title), (texts, weights.text)):
        its = [lists[at] or () for at in places.tolist()]
        sizes = np.fromiter(map(len, its), np.int64, len(its))
        lengths += weight * sizes
        if lists is texts and forms is not None:
            its = [[*terms, *forms[at]] for terms, at in zip(its, places.tolist(), strict=True)]
            sizes = np.fromiter(map(len, its), np.int64, len(its))
        terms = np.fromiter(map(numbers.__getitem__, chain.from_iterable(its)), np.int64, int(sizes.sum()))
        found.append((np.repeat(np.arange(len(its)), sizes), terms))
    # One number per occurrence: row, term, whether it is in the title. Sorted, occurrences of a posting are adjacent.
    title, text = (rows * len(numbers) + terms for rows, terms in found)
    keys = np.concatenate((2 * title + 1, 2 * text))
    keys.sort()
    occurrences = np.where(keys & 1, weights.title, weights.text)
    keys >>= 1
    first = starts(keys)
    counts = np.add.reduceat(occurrences, first) if len(keys) else occurrences
    rows, terms = np.divmod(keys[first], max(1, len(numbers)))
    return TermCounts(
        list(numbers),
        places,
        lengths.astype(np.float32),
        rows.astype(np.int32),
        terms.astype(np.int32),
        np.minimum(counts, _COUNT_MAX).astype(np.uint8),
    )


class Tail:
    """The newest rows. A search reads all of its postings, so it is kept short."""

    def __init__(self, postings: int) -> None:
        self.rows = Rows()
        self._lengths: Floats = np.empty(1_024, np.float32)
        self._rows: Ids = np.empty(postings, np.int32)
        self._terms: Ids = np.empty(postings, np.int32)
        self._counts: Counts = np.empty(postings, np.uint8)
        self.postings = 0

    @property
    def lengths(self) -> Floats:
        return self._lengths[: self.rows.count]

    @property
    def memory_bytes(self) -> int:
        return self.rows.memory_bytes + 4 * self.rows.count + 9 * self.postings

    def add(self, labels: Labels, batch: TermCounts, terms: Ids) -> None:
        """`terms`: those of the batch, by their numbers in the index."""
        rows, postings = self.rows.count, self.postings
        self.rows.append(labels)
        self._lengths = _grown(self._lengths, self.rows.count)
        self._lengths[rows : self.rows.count] = batch.lengths
        self.postings += len(terms)
        self._rows = _grown(self._rows, self.postings)
        self._terms = _grown(self._terms, self.postings)
        self._counts = _grown(self._counts, self.postings)
        np.add(batch.rows, np.int32(rows), out=self._rows[postings : self.postings])
        self._terms[postings : self.postings] = terms
        self._counts[postings : self.postings] = batch.counts

    def remove(self, labels: Labels) -> Ids:
        """Masks these labels, which are different; returns the rows that were alive until now."""
        return _masked(self.rows, labels)

    def find(self, terms: Ids) -> list[Postings]:
        known, found = self._terms[: self.postings], []
        for term in terms.tolist():
            at = (known == term).nonzero()[0]
            found.append(_postings(self, self._rows[at], self._counts[at]))
        return found

    def sizes(self, terms: Ids) -> Labels:
        """How many postings each term has, in rows alive or masked."""
        known = np.sort(self._terms[: self.postings])
        return np.searchsorted(known, terms, "right") - np.searchsorted(known, terms)

    def find_any(self, terms: Ids) -> Postings:
        """The rows of any of the terms, which ascend, as if they were one."""
        known = self._terms[: self.postings]
        at = np.isin(known, terms).nonzero()[0]
        return _united(self, self._rows[at], self._counts[at])

    def counts_of(self, postings: Postings, rows: npt.NDArray[np.intp]) -> Counts:
        return _looked_up(postings, rows)

    def sealed(self) -> Segment:
        """A segment of the living rows."""
        count = self.postings
        rows, terms, counts = self._rows[:count], self._terms[:count], self._counts[:count]
        alive = self.rows.alive
        if self.rows.dead:
            keep = alive[rows]
            rows, terms, counts = _renumbered(alive)[rows[keep]], terms[keep], counts[keep]
        order = np.argsort((terms.astype(np.int64) << 32) | rows)
        terms = terms[order]
        first = starts(terms)
        offsets = np.append(first, len(terms))
        return Segment(self.rows.labels[alive], self.lengths[alive], terms[first], offsets, rows[order], counts[order])


class Segment:
    """Postings by term. `terms` ascend; the postings of each are those from its entry of `offsets` to the next."""

    def __init__(self, labels: Labels, lengths: Floats, terms: Ids, offsets: Labels, rows: Ids, counts: Counts) -> None:
        self.rows = Rows(len(labels))
        self.rows.append(labels)
        self.lengths = lengths
        self.terms = terms
        self.offsets = offsets
        self.posting_rows = rows
        self.posting_counts = counts
        # By term, the bounds of its contribution to a score: its highest count, and the length of its shortest row.
        self._count_max: Counts = np.empty(len(terms), np.uint8)
        self._length_min: Floats = np.empty(len(terms), np.float32)
        for first, last in _slabs(offsets):
            start, stop = int(offsets[first]), int(offsets[last])
            inside = offsets[first:last] - start
            np.maximum.reduceat(counts[start:stop], inside, out=self._count_max[first:last])
            np.minimum.reduceat(lengths.take(rows[start:stop]), inside, out=self._length_min[first:last])
        self._removed: Ids = np.empty(0, np.int32)  # rows, in the order in which they were masked
        self._dead: dict[
            int, tuple[int, int]
        ] = {}  # by term: how many of `_removed` were examined, and how many of its rows are dead
        self._dense: dict[int, Counts] = {}

    @property
    def postings(self) -> int:
        return len(self.posting_rows)

    @property
    def size(self) -> int:
        """The cost of merging it."""
        return max(self.postings, self.rows.count)

    @property
    def memory_bytes(self) -> int:
        arrays: tuple[npt.NDArray[Any], ...] = (
            self.lengths, self.terms, self.offsets, self.posting_rows, self.posting_counts, self._count_max,
            self._length_min, self._removed, *self._dense.values(),
        )  # fmt: skip
        return self.rows.memory_bytes + sum(each.nbytes for each in arrays)

    def remove(self, labels: Labels) -> Ids:
        """Masks these labels, which are different; returns the rows that were alive until now."""
        rows = _masked(self.rows, labels)
        if len(rows):
            self._removed = np.concatenate((self._removed, rows))
        return rows

    def find(self, terms: Ids) -> list[Postings]:
        found = []
        for place, start, stop in zip(*(each.tolist() for each in self._ranges(terms)), strict=True):
            rows, counts = self.posting_rows[start:stop], self.posting_counts[start:stop]
            if stop == start:
                found.append(Postings(rows, counts, 0, 0, 0.0))
                continue
            living = stop - start - self._dead_among(place, rows)
            bounds = int(self._count_max[place]), float(self._length_min[place])
            found.append(Postings(rows, counts, living, *bounds, place))
        return found

    def sizes(self, terms: Ids) -> Labels:
        """How many postings each term has, in rows alive or masked."""
        _, begins, ends = self._ranges(terms)
        return ends - begins

    def find_any(self, terms: Ids) -> Postings:
        """The rows of any of the terms, which ascend, as if they were one."""
        _, begins, ends = self._ranges(terms)
        sizes = ends - begins
        at = np.arange(int(sizes.sum())) + np.repeat(begins - np.cumsum(sizes) + sizes, sizes)
        return _united(self, self.posting_rows[at], self.posting_counts[at])

    def counts_of(self, postings: Postings, rows: npt.NDArray[np.intp]) -> Counts:
        """The counts of these rows; 0 for rows without the term."""
        if postings.place is None or len(postings.rows) <= _DENSE_SHARE * self.rows.count:
            return _looked_up(postings, rows)
        dense = self._dense.get(postings.place)
        if dense is None:
            dense = self._dense[postings.place] = np.zeros(self.rows.count, np.uint8)
            dense[postings.rows] = postings.counts
        return dense.take(rows)

    def _ranges(self, terms: Ids) -> tuple[Labels, Labels, Labels]:
        """For each term: its place, and the begin and end of its postings."""
        if not len(self.terms):
            nothing = np.zeros(len(terms), np.int64)
            return nothing, nothing, nothing
        places = np.minimum(np.searchsorted(self.terms, terms), len(self.terms) - 1)
        begins = self.offsets[places]
        return places, begins, np.where(self.terms[places] == terms, self.offsets[places + 1], begins)

    def _dead_among(self, place: int, rows: Ids) -> int:
        """How many rows of a term are masked. Cached; only rows that were masked since are looked up."""
        if not len(self._removed):
            return 0
        seen, dead = self._dead.get(place, (0, 0))
        unseen = self._removed[seen:]
        if len(unseen):
            if LOOKUP_POSTINGS * len(unseen) < len(rows):
                at = np.minimum(np.searchsorted(rows, unseen), len(rows) - 1)
                dead += int(np.count_nonzero(rows[at] == unseen))
            else:
                dead = len(rows) - int(np.count_nonzero(self.rows.alive.take(rows)))
            self._dead[place] = len(self._removed), dead
        return dead


def merge(sources: Sequence[tuple[Segment, Bools]]) -> Segment:
    """Merges the living rows of several segments, as given by these masks. The labels ascend from segment to segment.
    Any thread, as long as the masks do not change."""
    parts = [_living(segment, alive) for segment, alive in sources]
    terms, places = _union([segment.terms for segment, _ in sources])
    sizes = np.zeros(len(terms), np.int64)
    for place, (_, _, its_sizes) in zip(places, parts, strict=True):
        sizes[place] += its_sizes
    offsets = np.zeros(len(terms) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    merged_rows, merged_counts = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint8)
    following = offsets[:-1].copy()  # where each term's next posting goes
    base = 0
    for place, (rows, counts, its_sizes), (_, alive) in zip(places, parts, sources, strict=True):
        its_offsets = np.zeros(len(its_sizes) + 1, np.int64)
        np.cumsum(its_sizes, out=its_offsets[1:])
        shifts = following[place] - its_offsets[:-1]
        for first, last in _slabs(its_offsets):
            start, stop = int(its_offsets[first]), int(its_offsets[last])
            at = np.arange(start, stop) + np.repeat(shifts[first:last], its_sizes[first:last])
            merged_rows[at] = rows[start:stop] + np.int32(base)
            merged_counts[at] = counts[start:stop]
        following[place] += its_sizes
        base += int(np.count_nonzero(alive))
    used = sizes > 0
    return Segment(
        np.concatenate([segment.rows.labels[alive] for segment, alive in sources]),
        np.concatenate([segment.lengths[alive] for segment, alive in sources]),
        terms[used],
        np.append(offsets[:-1][used], offsets[-1]),
        merged_rows,
        merged_counts,
    )


def _union(sets: Sequence[Ids]) -> tuple[Ids, list[npt.NDArray[np.integer]]]:
    """The union of ascending sets, ascending; and the places of the members of each set in it."""
    every = np.concatenate(sets)
    last = int(every.max(initial=-1))
    if last > _BITMAP_SHARE * len(every):
        every.sort()
        union = every[starts(every)]
        return union, [np.searchsorted(union, each) for each in sets]
    present = np.zeros(last + 1, np.bool_)
    present[every] = True
    numbers = _renumbered(present)
    return present.nonzero()[0].astype(np.int32), [numbers.take(each) for each in sets]


def _living(segment: Segment, alive: Bools) -> tuple[Ids, Counts, Labels]:
    """The postings of living rows, with the rows renumbered; and the number of them for each term."""
    sizes = np.diff(segment.offsets)
    if alive.all():
        return segment.posting_rows, segment.posting_counts, sizes
    keep = alive.take(segment.posting_rows)
    if len(sizes):
        sizes = np.add.reduceat(keep, segment.offsets[:-1], dtype=np.int64)
    return _renumbered(alive).take(segment.posting_rows[keep]), segment.posting_counts[keep], sizes


def _renumbered(kept: Bools) -> Ids:
    """The new number of each kept element when the others are removed."""
    return np.cumsum(kept, dtype=np.int32) - np.int32(1)


def _masked(rows: Rows, labels: Labels) -> Ids:
    places = rows.find(labels)
    places = places[rows.alive[places]]
    if len(places):
        rows.remove(labels)
    return places.astype(np.int32)


def _postings(part: Tail | Segment, rows: Ids, counts: Counts) -> Postings:
    if not len(rows):
        return Postings(rows, counts, 0, 0, 0.0)
    living = int(np.count_nonzero(part.rows.alive[rows])) if part.rows.dead else len(rows)
    return Postings(rows, counts, living, int(counts.max()), float(part.lengths[rows].min()))


def common(part: Tail | Segment, terms: Sequence[Postings]) -> Postings:
    """The postings of several terms as one term, which a row contains if it contains all; its count is the lowest."""
    fewest = min(terms, key=lambda each: len(each.rows))
    counts = fewest.counts.copy()
    for each in terms:
        if each is not fewest:
            np.minimum(counts, part.counts_of(each, fewest.rows.astype(np.intp)), out=counts)
    kept = counts.nonzero()[0]
    return _postings(part, fewest.rows[kept], counts[kept])


def _united(part: Tail | Segment, rows: Ids, counts: Counts) -> Postings:
    """Merges postings of several terms, in any order, as if they were one term."""
    summed = np.zeros(part.rows.count, np.uint32)
    np.add.at(summed, rows, counts.astype(np.uint32))
    found = summed.nonzero()[0]
    return _postings(part, found.astype(np.int32), np.minimum(summed[found], _COUNT_MAX).astype(np.uint8))


def _looked_up(postings: Postings, rows: npt.NDArray[np.intp]) -> Counts:
    if not len(postings.rows):
        return np.zeros(len(rows), np.uint8)
    known = rows.astype(np.int32)
    at = np.minimum(np.searchsorted(postings.rows, known), len(postings.rows) - 1)
    counts: Counts = postings.counts.take(at)
    counts *= postings.rows.take(at) == known
    return counts


def starts(ordered: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The start of each run of equal numbers."""
    if not len(ordered):
        return np.empty(0, np.int64)
    return np.concatenate((np.zeros(1, np.int64), (ordered[1:] != ordered[:-1]).nonzero()[0] + 1))


def _slabs(offsets: Labels) -> Iterator[tuple[int, int]]:
    """Ranges of terms with about the same number of postings each; no range is empty."""
    if len(offsets) > 1:
        cuts = np.searchsorted(offsets, np.arange(0, int(offsets[-1]), _SLAB_POSTINGS), "right") - 1
        cuts = np.append(np.minimum(cuts, len(offsets) - 2), len(offsets) - 1)
        cuts = cuts[starts(cuts)]
        yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def _grown(array: npt.NDArray[N], count: int) -> npt.NDArray[N]:
    """The array, or a longer copy with space for `count` elements."""
    if count <= len(array):
        return array
    grown = np.empty(max(count, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown
