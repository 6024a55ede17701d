"""Transactions of the writer: what statements receive, and what `on_commit` publishes to the rest of the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import apsw
import numpy as np
import numpy.typing as npt

from .catalogue import Catalogue

if TYPE_CHECKING:
    from .jobs import Job


class Moment(NamedTuple):
    """The state after one commit. It contains each document with a label up to `label` (inclusive) that has not been
    removed, or was removed after `seq`."""

    seq: int  # the log's head
    label: int  # the last label assigned
    catalogue: Catalogue


#: The row of a document: label, id, title, metadata (JSON), digest (hex), chunks.
NewDocument = tuple[int, str, str | None, str, str, int]


class Words(Protocol):
    """The index terms of some chunks, as a full-text index takes them; opaque here."""

    def only(self, rows: list[int]) -> Words:
        """The terms of the chunks at these positions, which ascend."""


#: Returns vectors by label, as an index takes them; opaque here.
Vectors = Callable[[], Any]


@dataclass(slots=True)
class Change:
    """What a commit changed in one library."""

    library_id: int
    seq: int  # the last seq of the change
    labels: npt.NDArray[np.int64]  # added, ascending
    vectors: npt.NDArray[np.float32]  # shape (len(labels), dimension), unchanged from the request
    removed: list[int]  # labels of removed chunks
    documents: list[NewDocument] = field(default_factory=list)  # added, by label
    texts: list[str | None] = field(default_factory=list)  # of the added chunks
    words: Words | None = None  # of the added chunks; None: not computed yet
    dropped: bool = False  # the whole library is deleted
    replaced: Vectors | None = None  # the vectors of all chunks that there were before it; None: they are as they were
    second: SecondChange | None = None  # of the second stage; it has no seq of its own


class SecondChange(NamedTuple):
    """What a commit changed in the second stage of a library: chunks that got their vectors. With `begun`, the stage
    has started again, perhaps with another embedder or none, and vectors of before no longer count."""

    labels: npt.NDArray[np.int64]  # ascending, from above those of earlier changes
    vectors: npt.NDArray[np.float32]  # shape (len(labels), second_dimension)
    begun: bool = False


class JobChange(NamedTuple):
    """A transition of a job: from a state (None: the job is new) to its current row (None: the job is deleted)."""

    job_id: int
    before: str | None
    job: Job | None


@dataclass(slots=True)
class Commit:
    """A transaction that is on disk."""

    seq: int  # the log's head after it
    catalogue: Catalogue
    changes: list[Change]
    jobs: list[JobChange]


@dataclass(slots=True)
class Transaction:
    """The context of a write on the writer thread: connection, counters, catalogue, lists of changes."""

    db: apsw.Connection
    time_us: int  # of all its events; earlier than the previous transaction's only if the clock was set back
    seq: int  # the last seq assigned
    label: int  # the last label assigned
    catalogue: Catalogue
    horizon: int = 0  # the last seq that was trimmed away
    gave_back: bool = False  # pages at the file's end were freed: the next checkpoint truncates the file
    changes: list[Change] = field(default_factory=list)
    jobs: list[JobChange] = field(default_factory=list)

    def take_seqs(self, count: int) -> int:
        """Assigns `count` seqs; returns the first."""
        first = self.seq + 1
        self.seq += count
        return first
