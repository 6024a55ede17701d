"""The protocols by which a LiveIndex reads vectors and terms from the store, and reports builds and recall.

Protocols only: the store's side of them is in engine/indexes.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .fulltext.segments import TermCounts
from .rows import Floats, Labels
from .structure import Spec


class StoredText(Protocol):
    """A library's living chunks as of one seq."""

    @property
    def seq(self) -> int: ...

    @property
    def labels(self) -> Labels:
        """Ascending."""

    def words(self, labels: Labels) -> Iterator[tuple[Labels, TermCounts]]:
        """The words of these chunks, a bounded number at a time."""


class TextSource(Protocol):
    """Where the words come from, and where a snapshot of them is kept."""

    @property
    def text_path(self) -> Path | None:
        """The snapshot's; None: it has none."""

    @property
    def text_identity(self) -> dict[str, Any]:
        """Of the library and of how its text is analysed: another snapshot is not ours."""

    def read_text(self) -> AbstractContextManager[StoredText]: ...


class Stored(Protocol):
    """A library's living vectors as of one seq."""

    @property
    def seq(self) -> int: ...

    @property
    def labels(self) -> Labels:
        """Ascending."""

    @property
    def firsts(self) -> Labels:
        """Those of them that are the first of their documents, ascending."""

    def pages(self, labels: Labels) -> Iterator[tuple[Labels, Floats]]:
        """The vectors of these labels, a bounded number at a time, as they were given."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A structure has been built and is in use. `reason`: growth, compaction, drift, requested or damaged."""

    spec: Spec
    vectors: int
    seconds: float
    reason: str


class Source(TextSource, Protocol):
    """Where a LiveIndex's vectors and words come from, and who is told of its structures."""

    @property
    def path(self) -> Path | None:
        """Its snapshot's; None: it has none."""

    @property
    def identity(self) -> dict[str, Any]:
        """Of the library: a snapshot of another is not ours."""

    def read(self) -> AbstractContextManager[Stored]: ...

    @property
    def promise(self) -> float:
        """The recall that approximate searches are to have; it may change at any time."""

    def rebuilt(self, report: Rebuilt) -> None:
        """Blocks until it is logged. Raises VecError."""

    def recall_changed(self, report: dict[str, Any]) -> None:
        """Whether the promise is met is known now, or has changed: what RecallMonitor.report says. Does not block."""
