"""Estimates how many of the k nearest rows a search missed that re-ranked only the rows with the best estimates.

An approximate structure estimates the distances of all rows cheaply and compares the R rows with the best estimates
exactly. What the comparison shows tells whether R is enough, for this very query: among the R rows, the outer half says
how far exact distances lie from estimates there, about m, give or take s; and how fast the number of rows grows towards
larger distances. If too many are to be expected among those that were not compared, R has to grow.
"""

from __future__ import annotations

import math

import numpy as np

from ..rows import Floats

#: As how many rows the prior deviation counts, and from which growth on estimates do not tell rows apart.
_PRIOR_ROWS, _GROWTH_MAX = 8, 8.0


def expected_misses(estimates: Floats, distances: Floats, k: int, prior: float) -> float:
    """How many of the k nearest rows are to be expected among those that were not compared.

    `estimates` of shape (R,), ascending, and `distances`, the exact ones of the same rows; k < R. With s the standard
    deviation of their difference in the outer half, a row that is estimated at t * s beyond the last one compared is
    among the k nearest with probability Phi(-(z + t)). Rows are taken to grow in number by exp(b * t), as they do from
    the middle to the end. The integral of the product over t is R * (exp(b²/2 - b z) Phi(b - z) - Phi(-z)).

    Copies of one row say as much as one of them. So `prior`, the deviation to be expected, counts as _PRIOR_ROWS rows
    beside the different ones.
    """
    middle = len(estimates) // 2
    outer = distances[middle:] - estimates[middle:]
    different = len(np.unique(distances[middle:]))
    variance = (different * float(outer.var()) + _PRIOR_ROWS * prior**2) / (different + _PRIOR_ROWS)
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
