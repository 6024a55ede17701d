"""A batch of an ingest stream, sans I/O: lines in, documents of one request out, and its answer to outcomes of lines.

Rules: a rejected line affects no other; the outcomes of a batch are in the order of its lines. The command line and the
gateway share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from .. import limits
from ..errors import VecError
from .mapping import DocumentMapping
from .ndjson import Line, document

#: Bytes of input of one batch, so that its frame stays well below the protocol's limit.
BATCH_BYTES_MAX = limits.FRAME_BYTES_MAX // 4
#: Documents of one batch, by default.
BATCH_DOCUMENTS = 512
#: Batches in flight: one being prepared, one being committed, one in transit, and one spare.
WINDOW = 4
#: An incomplete batch is sent after this time without input.
IDLE_S = 0.05

#: The outcomes of a document, in the order of the summary.
STATUSES = ("added", "updated", "unchanged", "deleted", "failed")


class Place(NamedTuple):
    """The location of a line: its index in the whole input (from 0), its file, and its number in the file (from 1)."""

    order: int
    file: str
    number: int


class Outcome(NamedTuple):
    """What became of one line: the daemon's outcome of its document (`id`, `status`, `seq`), or an error."""

    place: Place
    document: dict[str, Any] | None  # in wire format; None if the line is none
    outcome: Mapping[str, Any] | None
    error: VecError | None


@dataclass(slots=True)
class IngestBatch:
    """Documents of one request, and the rejected lines between them."""

    documents: list[Any] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)  # of the documents
    refused: list[tuple[Place, VecError]] = field(default_factory=list)  # lines that are not valid documents
    size: int = 0  # bytes of input
    pending: Any = None  # the request, once it is sent

    @property
    def empty(self) -> bool:
        return not self.documents and not self.refused

    def is_full(self, documents_max: int) -> bool:
        return len(self.documents) >= documents_max or len(self.refused) >= documents_max

    def has_room(self, line: Line) -> bool:
        return not self.documents or self.size + line.size <= BATCH_BYTES_MAX

    def add(self, line: Line, order: int, mapping: DocumentMapping | None = None) -> bool:
        """Takes a line; false if it is blank. `order` is its index in the whole input. With a mapping, the line is an
        object that the mapping turns into a document."""
        place = Place(order, line.file, line.number)
        try:
            found = document(line, mapping)
        except VecError as error:
            # Without the traceback, whose frames hold the line and this batch.
            self.refused.append((place, error.with_traceback(None)))
            return True
        if found is None:
            return False
        self.documents.append(found)
        self.places.append(place)
        self.size += line.size
        return True

    def refuse(self, error: VecError) -> None:
        """Rejects the only document, which does not fit in a frame."""
        assert len(self.documents) == 1
        self.refused.append((self.places[0], error))
        self.documents, self.places = [], []

    def halves(self) -> tuple[Self, Self]:
        """Two batches for one that does not fit in a frame."""
        middle = len(self.documents) // 2
        last = self.places[middle - 1]
        kind = type(self)
        return (
            kind(self.documents[:middle], self.places[:middle], [each for each in self.refused if each[0] < last]),
            kind(self.documents[middle:], self.places[middle:], [each for each in self.refused if each[0] > last]),
        )

    def errors(self, answer: Mapping[str, Any]) -> list[tuple[Place, VecError]]:
        """The rejected lines, those that the daemon rejected among them, in order."""
        refused = list(self.refused)
        for told in answer.get("errors", ()):
            told = dict(told)
            refused.append((self.places[told.pop("index")], VecError.from_wire(told)))
        refused.sort(key=lambda pair: pair[0])
        return refused

    def outcomes(self, answer: Mapping[str, Any], refused: list[tuple[Place, VecError]]) -> list[Outcome]:
        """The outcome of each line, in order; the answer is one with `detail`, and `refused` are its `errors`."""
        documents = self.documents
        found = [
            Outcome(self.places[each["index"]], documents[each["index"]], each, None)
            for each in answer.get("documents", ())
        ]
        if refused:
            given = dict(zip(self.places, documents, strict=True))
            found += [Outcome(place, given.get(place), None, error) for place, error in refused]
            found.sort(key=lambda outcome: outcome.place)
        return found
