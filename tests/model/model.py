"""The reference model of vecd, without disks, threads or sockets: documents by library, events, jobs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Document(NamedTuple):
    """A document: a text and a vector for each chunk, and one number to filter by."""

    texts: tuple[str, ...]
    vectors: tuple[tuple[float, ...], ...]
    n: int


class Event(NamedTuple):
    type: str
    library: str | None
    about: Any  # an id: of the document, the chunk or the job; or the library's name


@dataclass
class Job:
    state: str
    after: int | None = None
    delayed: bool = False  # for longer than any test takes; a retry keeps the delay


@dataclass
class Model:
    seq: int  # the log's head before the first of `events`
    horizon: int  # the last seq that was trimmed away
    events: list[Event] = field(default_factory=list)
    row_ends: list[int] = field(default_factory=list)  # seqs at which a trim may stop
    libraries: dict[str, dict[str, Document]] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return self.seq + len(self.events)

    def log(self, *row: Event) -> None:
        self.events += row
        self.row_ends.append(self.head)

    def create(self, library: str) -> None:
        self.libraries[library] = {}
        self.log(Event("library.created", library, library))

    def drop(self, library: str) -> None:
        del self.libraries[library]
        self.log(Event("library.deleted", library, library))

    def put(self, library: str, document_id: str, new: Document | None) -> str:
        """Writes or (None) deletes a document; returns its status."""
        documents = self.libraries[library]
        old = documents.pop(document_id, None)
        if new == old:
            if new is not None:
                documents[document_id] = new
            return "unchanged"
        if new is not None:
            documents[document_id] = new
        status = "deleted" if new is None else "added" if old is None else "updated"
        row = [Event(f"document.{status}", library, document_id)]
        for kind, version in (("chunk.deleted", old), ("chunk.added", new)):
            chunks = len(version.texts) if version is not None else 0
            row += [Event(kind, library, f"{document_id}#{place}") for place in range(chunks)]
        self.log(*row)
        return status

    def matching(self, library: str, below: int) -> list[str]:
        """The documents with `n < below`, by id."""
        return sorted(each for each, document in self.libraries[library].items() if document.n < below)

    def nearest(self, library: str, query: tuple[float, ...], ids: Iterable[str]) -> dict[str, float]:
        """The cosine score of each chunk of these documents."""
        return {
            f"{each}#{place}": _cosine(query, vector)
            for each in ids
            for place, vector in enumerate(self.libraries[library][each].vectors)
        }

    def worded(self, library: str, word: str) -> set[str]:
        """The chunks that contain the word."""
        return {
            f"{each}#{place}"
            for each, document in self.libraries[library].items()
            for place, text in enumerate(document.texts)
            if word in text.split()
        }

    def trim(self, keep: int) -> int:
        """Keeps at least `keep` events, in whole rows; returns the number of trimmed events."""
        stops = [end for end in self.row_ends if end <= self.head - keep]
        reached = max(self.horizon, stops[-1] if stops else 0)
        gone, self.horizon = reached - self.horizon, reached
        return gone

    def move(self, job_id: int, state: str, *types: str) -> None:
        """Moves a job to a state and logs these events; then moves the jobs that wait for it."""
        self.jobs[job_id].state = state
        for kind in types:
            self.log(Event(f"job.{kind}", None, job_id))
        for child_id, child in self.jobs.items():
            if child.after == job_id and child.state == "pending":
                if state == "cancelled":
                    self.move(child_id, "cancelled", "cancelled")
                elif state == "completed":
                    self.move(child_id, "completed", "started", "completed")


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
