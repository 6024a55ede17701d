"""Estimates the recall of reranking: how many nearest rows a search missed that compared only the best estimates.

An approximate structure estimates the distances of all rows cheaply, and compares the R rows with the best estimates
exactly. The comparison shows whether R is large enough for this query: the outer half of the R rows gives the mean m
and the standard deviation s of exact distance minus estimate, and how fast the number of rows grows with the distance.
If the expected number of misses among the other rows is too high, R must grow.
"""

from __future__ import annotations

import math

import numpy as np

from ..rows import Floats

#: The weight of the prior deviation in rows, and the growth from which estimates do not distinguish rows.
_PRIOR_ROWS, _GROWTH_MAX = 8, 8.0


def expected_misses(estimates: Floats, distances: Floats, k: int, prior: float) -> float:
    """The expected number of the k nearest rows among those that were not compared.

    `estimates` of shape (R,), ascending, and `distances`, the exact ones of the same rows; k < R. With s the standard
    deviation of their difference in the outer half, a row with an estimate t * s beyond the last compared one is
    among the k nearest with probability Phi(-(z + t)). The number of rows is assumed to grow by exp(b * t), as it does
    from the middle to the end. The integral of the product over t is R * (exp(b²/2 - b z) Phi(b - z) - Phi(-z)).

    Duplicates carry no additional information. So `prior`, the expected deviation, counts as _PRIOR_ROWS rows in
    addition to the distinct ones.
    """
    middle = len(estimates) // 2
    outer = distances[middle:] - estimates[middle:]
    distinct = len(np.unique(distances[middle:]))
    variance = (distinct * float(outer.var()) + _PRIOR_ROWS * prior**2) / (distinct + _PRIOR_ROWS)
    reach = float(estimates[-1]) + float(outer.mean()) - float(np.partition(distances, k - 1)[k - 1])
    width = float(estimates[-1] - estimates[middle])
    tiny = 1e-6 * float(np.abs(distances).max()) + 1e-30  # rounding of the distances themselves
    deviation = max(math.sqrt(variance), tiny)
    z = reach / deviation
    growth = math.log(2) * deviation / max(width, tiny)
    if growth > _GROWTH_MAX:
        return math.inf
    tilted = math.exp(growth**2 / 2 - growth * z) * _below(growth - z)
    return len(estimates) * max(0.0, tilted - _below(-z))


def _below(z: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
