"""What is right: an exact search in numpy float64 by the definition of each metric, without the project's code.

Scores decide, not labels: a hit whose exact score equals the k-th best within the rounding of float32 is right, so
equal vectors are no misses.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

#: Eight times the unit roundoff of float32: what adding up a few hundred products in float32 can move a score by,
#: relative to the product of the lengths.
ROUNDING: Final = 8 * 2.0**-24


class Judgement(NamedTuple):
    """Of one answer."""

    recall: float  # the share of the k best that was found
    first: bool  # whether the best of all was found
    broken: str | None  # what no approximation excuses: a row twice, a forbidden row, a wrong score, too few hits


class Truth:
    """The exact scores of vectors of shape (n, dimension); higher is better. Those of l2 are negative squares."""

    def __init__(self, vectors: Floats, metric: str) -> None:
        self._rows = vectors.astype(np.float64)
        self._metric = metric
        self._lengths: Doubles = np.sqrt(np.square(self._rows).sum(axis=1))
        if metric == "cosine":
            self._rows /= np.where(self._lengths > 0, self._lengths, 1)[:, None]

    def scores(self, queries: Floats) -> Doubles:
        """Of shape (len(queries), n)."""
        asked = queries.astype(np.float64)
        lengths = np.sqrt(np.square(asked).sum(axis=1))
        if self._metric == "cosine":
            asked /= np.where(lengths > 0, lengths, 1)[:, None]
        products: Doubles = asked @ self._rows.T
        if self._metric == "l2":
            products *= 2
            products -= np.square(lengths)[:, None]
            products -= np.square(self._lengths)[None]
        return products

    def judge(
        self, query: Floats, scores: Doubles, k: int, allowed: Bools, found: Rows, told: Floats, coarse: float = 0.0
    ) -> Judgement:
        """`scores`: the query's of all rows; `found` and `told`: the rows and scores of the answer, best first;
        `coarse`: by how much told scores may differ from exact ones, beside rounding."""
        among = np.where(allowed, scores, -np.inf)
        wanted = min(k, int(np.count_nonzero(allowed)))
        best = np.argpartition(among, len(among) - wanted)[len(among) - wanted :]
        best = best[np.argsort(-among[best])]
        slack = self._slack(query, best[[0, -1]])
        inside = found[(found >= 0) & (found < len(scores))]
        right = among[np.unique(inside)]
        hits = min(wanted, int(np.count_nonzero(right >= among[best[-1]] - slack[1])))
        first = bool((right >= among[best[0]] - slack[0]).any())
        return Judgement(hits / wanted, first, self._broken(query, scores, wanted, allowed, found, told, coarse))

    def _slack(self, query: Floats, rows: Rows) -> Doubles:
        """By how much rounding can move the scores of these rows, shape (len(rows),)."""
        lengths = self._lengths[rows]
        if self._metric == "cosine":
            return np.full(len(rows), ROUNDING)
        asked = float(np.linalg.norm(query.astype(np.float64)))
        scale: Doubles = asked * lengths if self._metric == "dot" else np.square(asked + lengths)
        return ROUNDING * scale

    def _broken(
        self, query: Floats, scores: Doubles, wanted: int, allowed: Bools, found: Rows, told: Floats, coarse: float
    ) -> str | None:
        if len(found) != wanted:
            return f"{len(found)} hits of {wanted}"
        if len(np.unique(found)) != len(found):
            return "a hit twice"
        if found.min() < 0 or found.max() >= len(scores) or not allowed[found].all():
            return "a hit that is deleted or filtered away"
        own = told.astype(np.float64)
        if self._metric == "l2":
            own = -np.square(own)
        exact = scores[found]
        wrong = np.abs(own - exact) > 4 * self._slack(query, found) + coarse * np.maximum(1, np.abs(exact))
        if wrong.any():
            at = int(wrong.argmax())
            return f"the hit at rank {at + 1} is given the score {own[at]!r} and has {exact[at]!r}"
        return None
