"""MaxScore: exact top-k search by BM25 in one part of an inverted index, without scoring every row.

The score of a row is the sum, over the query's terms, of

    w * count / (count + k1 * (1 - b + b * length / average length))    w = (k1 + 1) * ln(1 + (N - n + 0.5) / (n + 0.5))

N is the number of living rows, n the number of those with the term. Terms are processed from rare to common. The
contribution of a term is at most that of its highest count in its shortest row. The sum of these bounds over the
remaining terms is compared with the k-th best score so far:

    while a row without any earlier term could still be among the best, all rows of the next term are scored
    after that, each term is looked up only for the rows that can still be among the best

Scores are float32. The contributions to a row are always added in the order of the terms, so its score is the same to
the last bit. Source: Turtle and Flood, "Query evaluation: strategies and optimizations" (1995), on whole arrays instead
of one row at a time.
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

#: A row is excluded only if its bound is below the k-th score by this fraction, which exceeds float32 rounding.
_SLACK = 1e-4
_TINY = np.finfo(np.float32).tiny  # every score is above it
#: The share of scored rows from which a scan of all rows is cheaper than sorting the scored ones.
_SCANNED_SHARE = 1 / 32


class Scale(NamedTuple):
    """The precomputed factors of BM25 for one query."""

    weights: list[np.float32]  # w of each term
    fixed: np.float32  # k1 * (1 - b)
    slope: np.float32  # k1 * b / average length


def scale(living: Sequence[int], rows: int, length: int, k1: float, b: float, unit: int) -> Scale:
    """`living`: the number of living rows with each term; `rows` and their total `length`; `unit`: the count of one
    occurrence in a text."""
    weights = [(k1 + 1) * math.log1p((rows - each + 0.5) / (each + 0.5)) for each in living]
    return Scale(
        [np.float32(each) for each in weights],
        np.float32(unit * k1 * (1 - b)),
        np.float32(unit * k1 * b * rows / length),
    )


class Best:
    """The k best rows of all parts so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.scores: Floats = np.empty(0, np.float32)
        self.labels: Labels = np.empty(0, np.int64)

    @property
    def threshold(self) -> float:
        """The k-th score, or 0 if there are fewer than k. A row with a lower score is not among the best."""
        return float(self.scores[-1]) if len(self.scores) == self.k else 0.0

    def add(self, scores: Floats, labels: Labels) -> None:
        scores, labels = np.concatenate((self.scores, scores)), np.concatenate((self.labels, labels))
        order = np.lexsort((labels, -scores))[: self.k]
        self.scores, self.labels = scores[order], labels[order]


class Scan:
    """One query in one part. `scratch`: float32 zeros, one per row; zero again afterwards."""

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
        self._threshold = best.threshold
        bounds = [self._bound(place) for place in range(len(postings))]
        #: By term, the maximum that it and the later terms can add to a row.
        self._rest = [sum(bounds[place:]) for place in range(len(bounds) + 1)]

    def run(self, must: Sequence[int]) -> None:
        """Adds the rows that it finds to the best. `must`: the terms that a row must contain."""
        if self._rest[0] < self._least:
            return
        rows, place = self._candidates(must), 0
        if rows is None:
            rows, scores, place = self._score_all()
        else:
            scores = np.zeros(len(rows), np.float32)
        if place < len(self._postings):
            rows, scores = self._look_up(rows, scores, place)
        self._keep_best(rows, scores)

    @property
    def _least(self) -> float:
        """The minimum score of a row to be among the best."""
        return self._threshold * (1 - _SLACK)

    def _candidates(self, must: Sequence[int]) -> Places | None:
        """The only rows that can match, if they are known and few compared with the postings; else None."""
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
        """Scores all rows of the first terms, while a row without any of them could be among the best. Returns the rows
        that can be among the best, ascending, their scores, and the number of terms."""
        mask = self._allowed.mask
        scratch = self._scratch[: self._part.rows.count]
        touched: list[Places] = []
        count = place = 0
        try:
            while place < len(self._postings) and self._rest[place] >= self._least:
                postings = self._postings[place]
                # numpy indexes with intp: converted once, not at each use.
                rows, counts = postings.rows.astype(np.intp), postings.counts
                if mask is not None:
                    keep = mask.take(rows)
                    rows, counts = rows[keep], counts[keep]
                scores = self._contributions(place, counts, self._norms(rows))
                if count:
                    scores += scratch.take(rows)
                scratch[rows] = scores
                touched.append(rows)
                count += len(rows)
                place += 1
                if 0 < self._rest[place] < self._rest[0] / 2:  # scores are high enough for a useful threshold
                    self._raise_threshold(scores)
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
        """Adds the contributions of the terms from `place` on to these rows, which ascend; drops rows that cannot be
        among the best."""
        norms = self._norms(rows)
        for at in range(place, len(self._postings)):
            postings = self._postings[at]
            if not len(postings.rows):
                continue
            scores += self._contributions(at, self._counts(postings, rows), norms)
            self._raise_threshold(scores)
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
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            above, equal = (scores > kth).nonzero()[0], (scores == kth).nonzero()[0]
            keep = np.concatenate((above, equal[: k - len(above)]))  # rows ascend
            rows, scores = rows[keep], scores[keep]
        self._best.add(scores, self._part.rows.labels[rows])

    def _raise_threshold(self, scores: Floats) -> None:
        """Raises the threshold to the k-th of these scores, which are lower bounds."""
        k = self._best.k
        if self._threshold:
            scores = scores[scores > self._threshold]
        if len(scores) >= k:
            self._threshold = max(self._threshold, float(np.partition(scores, len(scores) - k)[len(scores) - k]))

    def _counts(self, postings: Postings, rows: Places) -> Counts:
        return self._part.counts_of(postings, rows)

    def _norms(self, rows: Places) -> Floats:
        norms = self._part.lengths.take(rows)
        norms *= self._scale.slope
        norms += self._scale.fixed
        return norms

    def _contributions(self, place: int, counts: Counts, norms: Floats) -> Floats:
        scores = counts.astype(np.float32)
        divisors = scores + norms
        scores *= self._scale.weights[place]
        scores /= divisors
        return scores

    def _bound(self, place: int) -> float:
        """The highest contribution of the term to a row."""
        count, length = np.float32(self._postings[place].count_max), np.float32(self._postings[place].length_min)
        if not count:
            return 0.0
        return float(count * self._scale.weights[place] / (count + (length * self._scale.slope + self._scale.fixed)))
