"""Vectors in memory: numpy and faiss; no SQL, no sockets, no event loop.

flat.py    exact search over blocks of a matrix
live.py    LiveIndex: what makes a structure real-time, once, for every kind
"""

from __future__ import annotations

from typing import Final

#: How a score is made of a query q and a stored vector v; higher is always better.
METRICS: Final[dict[str, str]] = {
    "cosine": "the cosine of the angle between them, from -1 to 1",
    "dot": "their inner product",
    "l2": "their Euclidean distance, negated: 0 is the same vector",
}

#: The longest a vector may be: two of them, squared and added, are still a float32.
LENGTH_MAX: Final = 9e18

#: The kinds of structure a library can have.
KINDS: Final[tuple[str, ...]] = ("flat",)
