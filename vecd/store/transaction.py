"""Transaction: the write transaction that statements run in; and Commit: what the rest of the program learns of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import apsw
import numpy as np
import numpy.typing as npt

from .catalogue import Catalogue

if TYPE_CHECKING:
    from .jobs import Job


class Moment(NamedTuple):
    """The state after one commit. A document is part of it if its label is not above `label`, and it has not been
    removed, or was removed after `seq`."""

    seq: int  # the log's head
    label: int  # the last label given out
    catalogue: Catalogue


#: The row of a document: label, id, title, metadata (JSON), digest (hex), chunks.
NewDocument = tuple[int, str, str | None, str, str, int]


class Words(Protocol):
    """The words of some chunks, as an index takes them; opaque here."""

    def only(self, rows: list[int]) -> Words:
        """Those of these chunks, by their places, which ascend."""


@dataclass(slots=True)
class Change:
    """What a commit did to one library's vectors."""

    library_id: int
    seq: int  # the last seq of the change
    labels: npt.NDArray[np.int64]  # added, ascending
    vectors: npt.NDArray[np.float32]  # shape (len(labels), dimension), as they were given
    removed: list[int]  # labels that are dead now
    documents: list[NewDocument] = field(default_factory=list)  # added, by label
    texts: list[str | None] = field(default_factory=list)  # of the chunks that were added
    words: Words | None = None  # of the same, if they were made already
    dropped: bool = False  # the whole library is gone


@dataclass(frozen=True, slots=True)
class JobChange:
    """A job's move: from a state (None: it is new) to what it is now (None: it is forgotten)."""

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
    """What work on the writer thread may touch: the connection, the counters, the catalogue, the lists of changes."""

    db: apsw.Connection
    time_us: int  # the time of all its events; before an earlier transaction's only if the clock was set back
    seq: int  # the last seq given out
    label: int  # the last label given out
    catalogue: Catalogue
    horizon: int = 0  # the last seq that was trimmed away
    gave_back: bool = False  # pages at the file's end were freed, for the next checkpoint to cut off
    changes: list[Change] = field(default_factory=list)
    jobs: list[JobChange] = field(default_factory=list)

    def take_seqs(self, count: int) -> int:
        """Gives out `count` seqs; returns the first."""
        first = self.seq + 1
        self.seq += count
        return first
