"""InvertedIndex: an in-memory inverted index for BM25, exact and searchable right after each write.

New rows go to a *tail*; a full tail becomes an immutable *segment*. Small segments are merged at once, so that sizes
fall by at least `_RATIO` from one segment to the next and there are few of them. A large merge is a plan:

    plan = index.merge_due()      the owner; None if nothing is due
    plan.run()                    any thread; reads only immutable data
    index.adopt(plan)             the owner; applies the removals since merge_due

An answer depends only on the living rows, not on tail, segments, merges or restarts. Document frequencies, the number
of rows and their average length count living rows only. Scores are float32; each is the sum of the same numbers in the
same order: rare terms first, equally rare ones by name. Equal scores are ordered by label.

maxscore.py searches a part (the tail or a segment) without scoring every row.

Rules: knows arrays and terms; no SQL, no text analysis. Not thread-safe: its owner is an actor, which alone adds,
removes and searches. `prepare`, `MergePlan.run` and `Frozen.arrays` are for other threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ..rows import Bools, Floats, Labels, Selection
from . import maxscore, term_dictionary
from .maxscore import Best, Scale
from .segments import Postings, Segment, Tail, TermCounts, Weights, common, merge, starts
from .term_dictionary import Ids, TermDictionary

_TAIL_POSTINGS = 1 << 14
#: Postings of a merge up to which `add` does it at once, in a millisecond or two; larger merges are plans.
_MERGED_AT_ONCE = 1 << 17
_RATIO = 3
_DEAD_SHARE_MAX = 0.2
#: The maximum number of terms that a prefix expands to. A search reads the postings of all of them.
_PREFIX_TERMS_MAX = 128


@dataclass(frozen=True, slots=True)
class Bm25Parameters:
    """The parameters of BM25. Raises ValueError for those that can make a score NaN.

    `b` is low because there are many titles and short chunks (tests/bench/relevance.py: nDCG@10 0.445,
    with 0.75 0.435).
    `weights` are built into the postings; `k1` and `b` can change at the next start.
    """

    k1: float = 1.2
    b: float = 0.5
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        if not (0 < self.k1 < math.inf and 0 <= self.b < 1):
            raise ValueError(f"BM25 needs k1 > 0 and 0 <= b < 1, not k1={self.k1} and b={self.b}")
        if min(self.weights) < 1:
            raise ValueError(f"title and text need weights of 1 or more, not {tuple(self.weights)}")


@dataclass(frozen=True, slots=True)
class TermQuery:
    """A query. It matches rows that contain any of it. Repeated terms count once.

    `required`: groups of terms that a row must all contain; they score as words do. `prefixes`: each stands for the
    terms that begin with it, as if they were one term; if there are more than 128, for the most frequent ones.
    `units`: each stands for several terms, as if they were one term, which a row contains if it contains all of them.
    """

    words: Sequence[str] = ()
    required: Sequence[Sequence[str]] = ()
    prefixes: Sequence[str] = ()
    units: Sequence[Sequence[str]] = ()


class MergePlan:
    """A merge to run on another thread."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.sources: list[tuple[Segment, Bools]] = [(each, each.rows.alive.copy()) for each in segments]
        self.merged: Segment | None = None

    @property
    def postings(self) -> int:
        return sum(segment.postings for segment, _ in self.sources)

    def run(self) -> None:
        self.merged = merge(self.sources)


class Frozen:
    """An immutable copy of an index, for a snapshot."""

    def __init__(self, sources: Sequence[tuple[Segment, Bools]], terms: list[str], weights: Weights) -> None:
        self._sources = sources
        self._terms = terms
        self._weights = weights

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its living rows and their terms, for `InvertedIndex.restore`. Any thread."""
        merged = merge(self._sources) if self._sources else Tail(0).sealed()
        used = np.zeros(len(self._terms), np.bool_)
        used[merged.terms] = True
        names, places = term_dictionary.encode(self._terms, used)
        return {
            "labels": merged.rows.labels,
            "lengths": merged.lengths,
            "offsets": merged.offsets,
            "rows": merged.posting_rows,
            "counts": merged.posting_counts,
            "terms": names,
            "term_places": places,
            "weights": np.array(self._weights, np.int64),
        }


class InvertedIndex:
    """Rows of terms, ranked by BM25."""

    def __init__(
        self,
        ranking: Bm25Parameters | None = None,
        tail_postings: int = _TAIL_POSTINGS,
        merged_at_once: int = _MERGED_AT_ONCE,
    ) -> None:
        self.ranking = ranking or Bm25Parameters()
        self._tail_postings = tail_postings
        self._merged_at_once = merged_at_once
        self._vocabulary = TermDictionary()
        self._segments: list[Segment] = []  # labels ascend from one to the next
        self._tail = Tail(tail_postings)
        self._count = 0  # living rows
        self._length = 0  # sum of their lengths
        self._plan: MergePlan | None = None
        self._scores: Floats = np.zeros(0, np.float32)  # scratch space, zero between searches

    def __len__(self) -> int:
        """Rows that are alive."""
        return self._count

    @property
    def dead(self) -> int:
        """Rows that are masked, but not yet removed."""
        return sum(part.rows.dead for part in self._parts)

    @property
    def segments(self) -> int:
        return len(self._segments)

    @property
    def last_label(self) -> int:
        """-1 if there are no rows."""
        return max((part.rows.last_label for part in self._parts), default=-1)

    @property
    def alive(self) -> Labels:
        """The labels of the rows that are alive, ascending."""
        found = [part.rows.labels[part.rows.alive] for part in self._parts]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    @property
    def memory_bytes(self) -> int:
        parts = sum(part.memory_bytes for part in self._parts)
        return parts + self._vocabulary.memory_bytes + self._scores.nbytes

    @property
    def _parts(self) -> list[Segment | Tail]:
        return [*self._segments, self._tail] if self._tail.rows.count else [*self._segments]

    # --- writing ----------------------------------------------------------------------------------------------------

    def add(self, labels: Labels, batch: TermCounts) -> None:
        """Adds prepared rows. `labels`, shape (n,), are those of all n prepared rows, ascending and above all present
        ones; labels of rows without text are ignored."""
        labels = labels[batch.places]
        if not len(labels):
            return
        assert labels[0] > self.last_label
        terms = self._vocabulary.number(batch.vocabulary)[batch.terms]
        self._tail.add(labels, batch, terms)
        self._count += len(labels)
        self._length += int(batch.lengths.sum(dtype=np.float64))
        if max(self._tail.postings, self._tail.rows.count) >= self._tail_postings:
            self._seal()

    def remove(self, labels: Labels) -> None:
        """Masks these labels; unknown labels are ignored."""
        labels = np.sort(labels)
        labels = labels[starts(labels)]
        for part in self._parts:
            rows = part.remove(labels)
            self._count -= len(rows)
            self._length -= int(part.lengths[rows].sum(dtype=np.float64))

    def keep_only(self, labels: Labels) -> None:
        """Masks all labels except these, which ascend."""
        alive = self.alive
        self.remove(alive[~np.isin(alive, labels, assume_unique=True)])

    # --- merging ----------------------------------------------------------------------------------------------------

    def merge_due(self) -> MergePlan | None:
        """The next merge; None if nothing is due, or if the last plan was neither adopted nor discarded."""
        if self._plan is not None:
            return None
        start = stop = 0
        for end in range(len(self._segments), 0, -1):
            start, stop = self._mergeable(0, end), end
            rows = self._segments[start].rows
            if stop - start > 1 or rows.dead > _DEAD_SHARE_MAX * rows.count:
                self._plan = MergePlan(self._segments[start:stop])
                return self._plan
        return None

    def adopt(self, plan: MergePlan) -> None:
        """Replaces the sources of a plan that has run by its result."""
        assert plan is self._plan
        assert plan.merged is not None
        self._plan, merged = None, plan.merged
        removed = [segment.rows.labels[alive & ~segment.rows.alive] for segment, alive in plan.sources]
        merged.remove(np.concatenate(removed))
        at = self._segments.index(plan.sources[0][0])
        assert self._segments[at : at + len(removed)] == [segment for segment, _ in plan.sources]
        self._segments[at : at + len(removed)] = [merged] if len(merged.rows) else []
        self._merge_small()

    def discard(self, plan: MergePlan) -> None:
        """Discards a plan that will not be adopted."""
        assert plan is self._plan
        self._plan = None

    def _seal(self) -> None:
        if len(self._tail.rows):
            self._segments.append(self._tail.sealed())
        self._tail = Tail(self._tail_postings)
        self._merge_small()

    def _merge_small(self) -> None:
        first = 0
        if self._plan is not None:
            first = self._segments.index(self._plan.sources[-1][0]) + 1
        start = self._mergeable(first, len(self._segments), self._merged_at_once)
        if len(self._segments) - start > 1:
            plan = MergePlan(self._segments[start:])
            plan.run()
            assert plan.merged is not None
            self._segments[start:] = [plan.merged]

    def _mergeable(self, first: int, end: int, postings_max: float = math.inf) -> int:
        """The first segment, from `first` on, to merge with the segment before `end`."""
        if first >= end:
            return end
        start, size = end - 1, self._segments[end - 1].size
        while start > first:
            before = self._segments[start - 1].size
            if before >= _RATIO * size or before + size > postings_max:
                break
            start, size = start - 1, size + before
        return start

    # --- snapshots --------------------------------------------------------------------------------------------------

    def freeze(self) -> Frozen:
        """An immutable copy of the current state."""
        sources: list[tuple[Segment, Bools]] = [(each, each.rows.alive.copy()) for each in self._segments]
        if len(self._tail.rows):
            tail = self._tail.sealed()
            sources.append((tail, tail.rows.alive))
        return Frozen(sources, self._vocabulary.terms, self.ranking.weights)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self.freeze().arrays()

    @classmethod
    def restore(cls, arrays: Mapping[str, npt.NDArray[Any]], ranking: Bm25Parameters | None = None) -> InvertedIndex:
        """Restores an index from `Frozen.arrays`. Raises ValueError if they are inconsistent, or were made with other
        weights."""
        made = cls(ranking)
        _check(arrays, made.ranking.weights)
        made._vocabulary = term_dictionary.decode(arrays["terms"], arrays["term_places"])
        if len(made._vocabulary) != len(arrays["offsets"]) - 1:
            raise ValueError("its terms do not match its postings")
        if len(arrays["labels"]):
            terms = np.arange(len(made._vocabulary), dtype=np.int32)
            its = (arrays[name] for name in ("offsets", "rows", "counts"))
            made._segments.append(Segment(arrays["labels"], arrays["lengths"], terms, *its))
        made._count = len(arrays["labels"])
        made._length = int(arrays["lengths"].sum(dtype=np.float64))
        return made

    def terms_of(self, labels: Labels) -> dict[int, dict[str, int]]:
        """The rows of these labels that are in segments: label -> term -> count. Slow, for checks: it reads all
        postings."""
        terms = self._vocabulary.terms
        found: dict[int, dict[str, int]] = {}
        for segment in self._segments:
            rows = segment.rows.find(labels)
            found |= {label: {} for label in segment.rows.labels[rows].tolist()}
            wanted = np.zeros(segment.rows.count, np.bool_)
            wanted[rows] = True
            postings = np.flatnonzero(wanted[segment.posting_rows])
            places = np.searchsorted(segment.offsets, postings, "right") - 1
            for posting, place in zip(postings.tolist(), places.tolist(), strict=True):
                label = int(segment.rows.labels[segment.posting_rows[posting]])
                found[label][terms[segment.terms[place]]] = int(segment.posting_counts[posting])
        return found

    # --- searching --------------------------------------------------------------------------------------------------

    def search(self, query: TermQuery, k: int, selection: Selection | None = None) -> tuple[Floats, Labels]:
        """The k best living rows that match the query and the selection: scores and labels of shape (m,), m <= k, best
        first, equal scores by ascending label."""
        best = Best(k)
        looked_up = self._look_up(query) if k > 0 else None
        if looked_up is None:
            return best.scores, best.labels
        postings, scale, must = looked_up
        parts = sorted(zip(self._parts, postings, strict=True), key=lambda pair: -pair[0].rows.count)
        for part, its in parts:
            allowed = part.rows.allowed(selection)
            if allowed.count:
                maxscore.Scan(part, its, scale, allowed, self._zeros(part.rows.count), best).run(must)
        return best.scores, best.labels

    def _look_up(self, query: TermQuery) -> tuple[list[list[Postings]], Scale, list[int]] | None:
        """By part, the postings of the terms that are in a living row, rare terms first; and the places of the required
        terms among them. None if no row can match."""
        required = set(chain.from_iterable(query.required))
        words, prefixes = [*required.union(query.words)], [*set(query.prefixes)]
        ids = self._numbers(words)
        expanded = [self._expanded(prefix) for prefix in prefixes]
        units = [*dict.fromkeys(map(tuple, query.units))]
        known = [self._numbers(unit) for unit in units]
        found = [
            [*part.find(ids), *map(part.find_any, expanded), *(common(part, part.find(each)) for each in known)]
            for part in self._parts
        ]
        living = [sum(postings.living for postings in each) for each in zip(*found, strict=True)]
        names = [
            *((0, word) for word in words),
            *((1, prefix) for prefix in prefixes),
            *((2, "\0".join(unit)) for unit in units),
        ]
        terms = sorted(
            (each, *name, place) for place, (each, name) in enumerate(zip(living, names, strict=False)) if each
        )
        must = [at for at, (_, kind, name, _) in enumerate(terms) if kind == 0 and name in required]
        if not terms or len(must) < len(required):
            return None
        ranking = self.ranking
        scale = maxscore.scale(
            [each for each, *_ in terms], self._count, self._length, ranking.k1, ranking.b, ranking.weights.text
        )
        return [[its[place] for *_, place in terms] for its in found], scale, must

    def _numbers(self, terms: Sequence[str]) -> Ids:
        """The numbers of terms; -1 for unknown terms."""
        numbers = map(self._vocabulary.find, terms)
        return np.array([-1 if number is None else number for number in numbers], np.int32)

    def _expanded(self, prefix: str) -> Ids:
        """The numbers of the terms that begin with `prefix`, ascending. Of very many terms, those in the most living
        rows, equally frequent ones by name."""
        ids = self._vocabulary.beginning_with(prefix)
        if len(ids) <= _PREFIX_TERMS_MAX:
            return ids
        parts = self._parts
        # `sizes` include dead rows, so they are upper bounds: terms are counted until no other can be among the best.
        sizes = sum((part.sizes(ids) for part in parts), np.zeros(len(ids), np.int64))
        order = np.argsort(-sizes, kind="stable")
        ids, sizes = ids[order], sizes[order]
        counted: list[tuple[int, str, int]] = []
        for start in range(0, len(ids), _PREFIX_TERMS_MAX):
            if len(counted) >= _PREFIX_TERMS_MAX and -counted[_PREFIX_TERMS_MAX - 1][0] > sizes[start]:
                break
            some = ids[start : start + _PREFIX_TERMS_MAX]
            living = [
                sum(postings.living for postings in each) for each in zip(*(p.find(some) for p in parts), strict=True)
            ]
            names = map(self._vocabulary.name, some.tolist())
            counted += [
                (-count, name, number) for count, name, number in zip(living, names, some.tolist(), strict=True)
            ]
            counted.sort()
        return np.array(sorted(number for *_, number in counted[:_PREFIX_TERMS_MAX]), np.int32)

    def _zeros(self, count: int) -> Floats:
        if len(self._scores) < count:
            self._scores = np.zeros(max(count, 2 * len(self._scores)), np.float32)
        return self._scores


def _check(arrays: Mapping[str, npt.NDArray[Any]], weights: Weights) -> None:
    dtypes = {
        "labels": np.int64, "lengths": np.float32, "offsets": np.int64, "rows": np.int32, "counts": np.uint8,
        "terms": np.uint8, "term_places": np.int64, "weights": np.int64,
    }  # fmt: skip
    if arrays.keys() != dtypes.keys() or any(arrays[name].dtype != dtype for name, dtype in dtypes.items()):
        raise ValueError("it does not have the arrays of an inverted index")
    if arrays["weights"].tolist() != list(weights):
        raise ValueError("its counts were made with other weights of title and text")
    labels, lengths, offsets, rows, counts = (
        arrays[each] for each in ("labels", "lengths", "offsets", "rows", "counts")
    )
    sound = (
        len(lengths) == len(labels)
        and labels.min(initial=0) >= 0
        and (np.diff(labels) > 0).all()
        and np.isfinite(lengths).all()
        and (lengths == np.floor(lengths)).all()
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(rows) == len(counts)
        and (np.diff(offsets) > 0).all()
        and rows.min(initial=0) >= 0
        and rows.max(initial=-1) < len(labels)
        and counts.min(initial=1) >= 1
    )
    if not sound:
        raise ValueError("its arrays are inconsistent")
    ascending = np.diff(rows) > 0
    ascending[offsets[1:-1] - 1] = True  # from one term to the next
    if not ascending.all():
        raise ValueError("its postings are inconsistent")
