"""The protocol of an index structure, and the specification and effort that it is given.

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
    """How hard an approximate search tries."""

    recall: float  # the share of the k nearest that it is to find, 0 < recall <= 1
    factor: float = 1.0  # >= 1; measured: how much more than a structure's own default is needed to keep it
    ef: int | None = None  # set by the user; replaces what recall and factor would choose
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
        """Called once, when a new structure has all its first rows."""

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> Hits | Future[Hits]:
        """The k best of each query among the allowed rows, in no order: scores and labels of shape (n, k).

        k is at most allowed.count. The hits are of the rows present when `search` is called, even if the structure
        answers later through a future. `allowed` and its mask may change after `search` returns: an asynchronous
        structure copies what it still needs. A future that raises fails these searches only, not the index; a future
        may be cancelled when nobody waits for its hits any more.
        """

    def score(self, query: Floats, rows: Labels) -> Floats:
        """The scores of these rows, by their numbers, as `search` gives them; shape (len(rows),)."""

    def sample(self, places: Labels) -> Floats:
        """The vectors of the living rows with these places among all living rows."""

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        """What a snapshot keeps, without copying; None for a kind that is built as fast as it is read."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The index that a library wants."""

    dimension: int
    metric: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> str:
        return "l2" if self.metric == "l2" else "ip"
