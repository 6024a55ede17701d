"""The catalogue: an immutable copy in memory of the table of libraries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import apsw
import orjson

from .. import limits
from ..errors import Code, VecError, nearest

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Library:
    """A library. Everything but the counts, the index and the recall is pinned when it is made (the dimension by the
    first vector at the latest).

    `chunk_chars` is the length of a chunk that a document's `text` is cut into, in characters.
    """

    library_id: int
    name: str
    dimension: int | None
    metric: str
    index: str
    embedder: str
    chunk_chars: int
    documents: int = 0
    chunks: int = 0
    created_us: int = 0
    deleted: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)  # the index's
    recall: float = limits.RECALL  # the share of the nearest that approximate searches are to find; 1: all are exact
    language: str = "english"  # whose word endings full text leaves off; "none": no language's
    recall_missed: bool = False  # whether the last `index.recall` event says that searches find less

    def described(self) -> dict[str, Any]:
        """What an event and `vec library show` say of it."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "metric": self.metric,
            "index": self.index,
            "parameters": self.parameters,
            "embedder": self.embedder,
            "chunk_chars": self.chunk_chars,
            "recall": self.recall,
            "language": self.language,
        }


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All libraries: the living by name, and all that ever were by id (events refer to them)."""

    by_name: dict[str, Library]
    by_id: dict[int, Library]

    def find(self, name: str) -> Library:
        """Raises VecError `not_found` with the nearest name there is."""
        library = self.by_name.get(name)
        if library is None:
            close = nearest(name, list(self.by_name))
            hint = f"did you mean {close!r}?" if close else f"create it with `vec library create {name}`"
            raise VecError(Code.NOT_FOUND, f"library {name!r} does not exist", hint, library=name)
        return library

    def replaced(self, library: Library) -> Catalogue:
        """A copy in which `library` stands in its own place."""
        by_id = {**self.by_id, library.library_id: library}
        by_name = dict(self.by_name)
        if library.deleted:
            by_name.pop(library.name, None)
        else:
            by_name[library.name] = library
        return Catalogue(by_name, by_id)


def read_catalogue(db: apsw.Connection) -> Catalogue:
    rows = db.execute(
        "SELECT library_id, name, dimension, metric, index_kind, embedder, chunk_chars, documents, chunks, created_us,"
        " deleted_seq IS NOT NULL, index_parameters, recall, language, recall_missed FROM libraries"
    )
    by_id = {}
    for *row, parameters, recall, language, missed in rows:
        by_id[int(row[0])] = replace(
            Library(*row),
            parameters=orjson.loads(parameters),
            recall=recall,
            language=language,
            recall_missed=bool(missed),
        )
    return Catalogue({each.name: each for each in by_id.values() if not each.deleted}, by_id)
