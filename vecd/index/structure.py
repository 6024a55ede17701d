"""The protocol of an index structure (a graph, codes or a tree), with its parameters and the effort of a search.

A structure may live in another thread, process or machine: then its `search` returns a future instead of hits.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from .rows import Allowed, Floats, Labels, Rows

#: Scores and labels, each of shape (queries, hits of a query). Higher scores are nearer.
Hits = tuple[Floats, Labels]


@dataclass(frozen=True, slots=True)
class Effort:
    """The effort of an approximate search."""

    recall: float  # the fraction of the k nearest to find, 0 < recall <= 1
    factor: float = 1.0  # >= 1; the measured multiple of the default effort that this recall needs
    ef: int | None = None  # set by the user; overrides recall and factor
    exact: bool = False


class Structure(Protocol):
    """Finds the nearest vectors faster than a scan of all of them. Not thread-safe: a LiveIndex owns it and calls it
    from one thread at a time.
    """

    rows: Rows
    #: Whether rows can be added in small steps; a structure that cannot grow is rebuilt instead.
    grows: bool

    @property
    def memory_bytes(self) -> int: ...

    @property
    def worn(self) -> bool:
        """Whether rows that were added after the build fit it so badly that a rebuild pays."""

    def train(self, sample: Floats) -> None:
        """Called once, before the first rows: a random sample of them, of shape (n, dimension)."""

    def extend(self, labels: Labels, vectors: Floats) -> None:
        """Adds rows: labels of shape (n,), ascending and above all present ones; vectors of shape (n, dimension)."""

    def finish(self) -> None:
        """Called once, when a new structure has all its initial rows."""

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> Hits | Future[Hits]:
        """The k best of each query among the allowed rows, in no order: scores and labels of shape (n, k).

        k is at most allowed.count. The hits are of the rows present when `search` is called, even if the structure
        answers later through a future. `allowed` and its mask may change after `search` returns: an asynchronous
        structure copies what it still needs. A future that raises fails these searches only, not the index; a future
        may be cancelled when its hits are not needed any more.
        """

    def score(self, query: Floats, rows: Labels) -> Floats:
        """The scores of these rows, by row number, as `search` returns them; shape (len(rows),)."""

    def sample(self, places: Labels) -> Floats:
        """The vectors of the living rows with these places among all living rows."""

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays for a snapshot, not copied; None for a kind that is built as fast as it is read."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The index configuration of a library."""

    dimension: int
    metric: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> str:
        return "l2" if self.metric == "l2" else "ip"
