"""The interface of a LiveIndex to the store: where it reads vectors and terms, and reports rebuilds and recall.

Protocols only; engine/indexes.py implements them.
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
        """The terms of these chunks, a bounded number at a time. Damaged chunks are left out."""


class TextSource(Protocol):
    """Where terms are read, and where the snapshot of full text is stored."""

    @property
    def text_path(self) -> Path | None:
        """The path of the snapshot of full text; None for none."""

    @property
    def text_identity(self) -> dict[str, Any]:
        """Identifies the library and its text analysis: a snapshot with another identity is not used."""

    def read_text(self) -> AbstractContextManager[StoredText]: ...


class Stored(Protocol):
    """A library's living vectors as of one seq."""

    @property
    def seq(self) -> int: ...

    @property
    def labels(self) -> Labels:
        """Ascending."""

    @property
    def dimension(self) -> int | None:
        """Of the vectors, which may have changed since the index was configured; None: it has not."""

    @property
    def generation(self) -> int:
        """Grows whenever the vectors of labels are replaced. A structure of an earlier generation is not used."""

    @property
    def firsts(self) -> Labels:
        """The labels of the first chunks of documents, ascending."""

    def pages(self, labels: Labels) -> Iterator[tuple[Labels, Floats]]:
        """The vectors of these labels as ingested, a bounded number at a time. Damaged ones are left out."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A structure has been built and is in use. `reason`: growth, compaction, drift, requested or damaged."""

    spec: Spec
    vectors: int
    seconds: float
    reason: str


class Source(TextSource, Protocol):
    """Where a LiveIndex reads vectors and terms, and reports."""

    @property
    def path(self) -> Path | None:
        """The path of the snapshot; None for none."""

    @property
    def identity(self) -> dict[str, Any]:
        """Identifies the library: a snapshot with another identity is not used."""

    def read(self) -> AbstractContextManager[Stored]: ...

    @property
    def promise(self) -> float:
        """The promised recall of approximate searches; may change at any time."""

    def rebuilt(self, report: Rebuilt) -> None:
        """Logs a rebuild. Blocks until it is durable. Raises VecError."""

    def recall_changed(self, report: dict[str, Any]) -> None:
        """Logs a change of whether the promise is met; `report` is that of RecallMonitor. Does not block."""
