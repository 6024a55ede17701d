"""What a structure is, and what a library wants of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from .rows import Allowed, Floats, Labels, Rows


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard an approximate search tries."""

    recall: float  # the share of the k nearest that it is to find, 0 < recall <= 1; 1 asks for all of them
    factor: float = 1.0  # >= 1, measured: how much more than a structure's own default it takes to keep that recall
    ef: int | None = None  # asked for by hand: replaces what recall and factor would choose
    exact: bool = False  # compare with every allowed row, whatever the rest says


class Structure(Protocol):
    """What finds vectors faster than looking at all of them does. Not thread-safe: a LiveIndex owns it."""

    rows: Rows
    #: Whether rows can be added to it in small steps; one that cannot is built anew.
    grows: bool

    @property
    def memory_bytes(self) -> int: ...

    def extend(self, labels: Labels, vectors: Floats) -> None:
        """Adds rows: labels of shape (n,), ascending and above all that are there; vectors of shape (n, dimension)."""

    def finish(self) -> None:
        """Called once, when a new structure has all its first rows."""

    def search(self, queries: Floats, k: int, allowed: Allowed, ef: int | None, exact: bool) -> tuple[Floats, Labels]:
        """The k best of each query among the allowed rows, in no order: scores and labels of shape (n, k).

        k is at most allowed.count. `ef` is the effort of an approximate search; None: what the kind thinks best.
        """

    def sample(self, places: Labels) -> Floats:
        """The vectors of the living rows with these places among all living rows."""

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        """What a snapshot keeps, without copying; None for a kind that is made as fast as it is read."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What index a library wants."""

    dimension: int
    metric: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> str:
        return "l2" if self.metric == "l2" else "ip"
