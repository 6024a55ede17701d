"""MaxScore: the k best rows of one part of an inverted index by BM25, exact, without scoring every row.

The score of a row is the sum, over the query's terms, of

    w * count / (count + k1 * (1 - b + b * length / average length))    w = (k1 + 1) * ln(1 + (N - n + 0.5) / (n + 0.5))

N is how many rows are alive, n how many of them have the term. Terms come rare to common. A term's share is at most
that of its highest count in its shortest row. What the terms that are left can add, in sum, is compared with the k-th
best score so far:

    as long as they could lift a row that has none of the terms before, all rows of the next term are scored
    after that, the terms are looked up for the rows that can still be among the best, which become ever fewer

Scores are float32. A row's shares are computed and added in the order of the terms whichever way it is reached, so
that its score is the same to the last bit. Source: Turtle and Flood, "Query evaluation: strategies and optimizations"
(1995), on whole arrays instead of one row at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..rows import Allowed, Floats, Labels
from .segments import LOOKUP_POSTINGS, Counts, Postings, Segment, Tail, starts

Places = npt.NDArray[np.intp]  # rows, as numpy indexes

#: What a bound keeps out is at least this share below the k-th score: sums of float32 are exact enough for it.
_SLACK = 1e-4
_TINY = np.finfo(np.float32).tiny  # every score is above it
#: Rows touched, as a share of all, from which on going over all of them is cheaper than sorting those.
_SCANNED_SHARE = 1 / 32


class Scale(NamedTuple):
    """BM25's numbers for one query."""

    weights: list[np.float32]  # w of each term
    fixed: np.float32  # k1 * (1 - b)
    slope: np.float32  # k1 * b / average length


def scale(living: Sequence[int], rows: int, length: int, k1: float, b: float, unit: int) -> Scale:
    """`living`: in how many rows each term is; `rows` and their total `length`; `unit`: the count of one occurrence in
    a text."""
    weights = [(k1 + 1) * math.log1p((rows - each + 0.5) / (each + 0.5)) for each in living]
    return Scale(
        [np.float32(each) for each in weights],
        np.float32(unit * k1 * (1 - b)),
        np.float32(unit * k1 * b * rows / length),
    )


class Best:
    """The k best of all parts so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.scores: Floats = np.empty(0, np.float32)
        self.labels: Labels = np.empty(0, np.int64)

    @property
    def bar(self) -> float:
        """The k-th score; a row below it is not among the best. 0 if there are not k yet."""
        return float(self.scores[-1]) if len(self.scores) == self.k else 0.0

    def add(self, scores: Floats, labels: Labels) -> None:
        scores, labels = np.concatenate((self.scores, scores)), np.concatenate((self.labels, labels))
        order = np.lexsort((labels, -scores))[: self.k]
        self.scores, self.labels = scores[order], labels[order]


class Scan:
    """One query in one part. `scratch`: float32 zeros, one for each row; they are zeros again afterwards."""

    def __init__(
        self,
        part: Segment | Tail,
        postings: Sequence[Postings],
        scale: Scale,
        allowed: Allowed,
        scratch: Floats,
        best: Best,
    ) -> None:
        self._part, self._postings, self._scale, self._allowed = part, postings, scale, allowed
        self._scratch, self._best = scratch, best
        self._bar = best.bar
        bounds = [self._bound(place) for place in range(len(postings))]
        #: What the terms from this one on can add to a row.
        self._rest = [sum(bounds[place:]) for place in range(len(bounds) + 1)]

    def run(self, must: Sequence[int]) -> None:
        """Adds what it finds to the best. `must`: the terms that a row has to have."""
        if self._rest[0] < self._least:
            return
        rows, place = self._given(must), 0
        if rows is None:
            rows, scores, place = self._score_all()
        else:
            scores = np.zeros(len(rows), np.float32)
        if place < len(self._postings):
            rows, scores = self._look_up(rows, scores, place)
        self._keep_best(rows, scores)

    @property
    def _least(self) -> float:
        """What a row needs at least to be among the best."""
        return self._bar * (1 - _SLACK)

    def _given(self, must: Sequence[int]) -> Places | None:
        """The only rows that can be found, if it is known which, and they are few beside the postings."""
        mask = self._allowed.mask
        if must:
            rarest, *others = sorted((self._postings[place] for place in must), key=lambda each: len(each.rows))
            rows = (rarest.rows if mask is None else rarest.rows[mask.take(rarest.rows)]).astype(np.intp)
            for each in others:
                rows = rows[self._counts(each, rows) > 0]
            return rows
        postings = sum(len(each.rows) for each in self._postings)
        if mask is not None and self._allowed.count * LOOKUP_POSTINGS * len(self._postings) < postings:
            return self._allowed.ids
        return None

    def _score_all(self) -> tuple[Places, Floats, int]:
        """Scores all rows of the first terms, as long as the rest can lift a row that has none of them. Returns the
        rows that can be among the best, ascending, their scores, and how many terms that were."""
        mask = self._allowed.mask
        scratch = self._scratch[: self._part.rows.count]
        touched: list[Places] = []
        count = place = 0
        try:
            while place < len(self._postings) and self._rest[place] >= self._least:
                postings = self._postings[place]
                # numpy indexes with its own integers: converted once, not at each use.
                rows, counts = postings.rows.astype(np.intp), postings.counts
                if mask is not None:
                    keep = mask.take(rows)
                    rows, counts = rows[keep], counts[keep]
                scores = self._shares(place, counts, self._norms(rows))
                if count:
                    scores += scratch.take(rows)
                scratch[rows] = scores
                touched.append(rows)
                count += len(rows)
                place += 1
                if 0 < self._rest[place] < self._rest[0] / 2:  # no row has more yet than the terms before can add
                    self._raise_bar(scores)
            least = max(np.float32(self._least - self._rest[place]), _TINY)
            if count > _SCANNED_SHARE * len(scratch):
                found = (scratch >= least).nonzero()[0]
            else:
                found = np.concatenate(touched) if touched else np.empty(0, np.intp)
                found = np.sort(found[scratch.take(found) >= least])
                found = found[starts(found)]
            return found, scratch.take(found), place
        finally:
            if count > _SCANNED_SHARE * len(scratch):
                scratch.fill(0)
            else:
                for rows in touched:
                    scratch[rows] = 0

    def _look_up(self, rows: Places, scores: Floats, place: int) -> tuple[Places, Floats]:
        """Adds what the terms from `place` on have for these rows, which ascend; drops those that cannot be among the
        best."""
        norms = self._norms(rows)
        for at in range(place, len(self._postings)):
            postings = self._postings[at]
            if not len(postings.rows):
                continue
            scores += self._shares(at, self._counts(postings, rows), norms)
            self._raise_bar(scores)
            least = np.float32(self._least - self._rest[at + 1])
            if least > 0:
                keep = (scores >= least).nonzero()[0]
                if len(keep) < len(rows):
                    rows, scores, norms = rows.take(keep), scores.take(keep), norms.take(keep)
        return rows, scores

    def _keep_best(self, rows: Places, scores: Floats) -> None:
        k = self._best.k
        found = (scores >= max(np.float32(self._least), _TINY)).nonzero()[0]
        rows, scores = rows.take(found), scores.take(found)
        if len(rows) > k:
            bar = np.partition(scores, len(scores) - k)[len(scores) - k]
            above, equal = (scores > bar).nonzero()[0], (scores == bar).nonzero()[0]
            keep = np.concatenate((above, equal[: k - len(above)]))  # rows ascend
            rows, scores = rows[keep], scores[keep]
        self._best.add(scores, self._part.rows.labels[rows])

    def _raise_bar(self, scores: Floats) -> None:
        """Takes into account that rows have these scores at least."""
        k = self._best.k
        if self._bar:
            scores = scores[scores > self._bar]
        if len(scores) >= k:
            self._bar = max(self._bar, float(np.partition(scores, len(scores) - k)[len(scores) - k]))

    def _counts(self, postings: Postings, rows: Places) -> Counts:
        return self._part.counts_of(postings, rows)

    def _norms(self, rows: Places) -> Floats:
        norms = self._part.lengths.take(rows)
        norms *= self._scale.slope
        norms += self._scale.fixed
        return norms

    def _shares(self, place: int, counts: Counts, norms: Floats) -> Floats:
        shares = counts.astype(np.float32)
        below = shares + norms
        shares *= self._scale.weights[place]
        shares /= below
        return shares

    def _bound(self, place: int) -> float:
        """The highest share that the term can have in a row."""
        count, length = np.float32(self._postings[place].count_max), np.float32(self._postings[place].length_min)
        if not count:
            return 0.0
        return float(count * self._scale.weights[place] / (count + (length * self._scale.slope + self._scale.fixed)))
