"""The catalogue: an immutable in-memory copy of the table of libraries. Readers use it instead of the table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import apsw
import orjson

from .. import limits
from ..errors import Code, VecError, nearest
from ..parameters import without_parameters

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Library:
    """A library: a named set of documents with one vector dimension, metric, index and embedder.

    Everything but the counts, the index and the recall is fixed at creation, the dimension at the latest by the first
    vector; a reembed changes the embedder and the chunk length. `chunk_chars` is the maximum length of a chunk of a
    document's `text`, in characters. `embedder` is a reference: a name, and perhaps parameters (parameters.py).

    `embedder` and `dimension` are those of the vectors that a document has as soon as it is written. With a `second`
    embedder, a better and slower one, that is the one that clients know as the library's embedder, and `embedder` its
    first embedder.
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
    parameters: dict[str, Any] = field(default_factory=dict)  # of the index
    recall: float = limits.RECALL  # target recall of approximate searches; 1: all searches are exact
    language: str = "english"  # of the full-text stemmer; "none": no stemming
    recall_missed: bool = False  # whether the last `index.recall` event says that searches miss the target
    switch_job: int | None = None  # the reembed whose drafts replace the documents at the moment; None: none
    mapping: dict[str, str] = field(default_factory=dict)  # rules by which any JSON becomes documents
    chunk_overlap: int = 0  # characters that a chunk may repeat from the one before it
    former_names: frozenset[str] = frozenset()  # before renames; a name that another library has is not among them
    embedder_label: int = 0  # the last label that there was when the embedder was last changed; 0: never
    second: str | None = None  # the embedder of the second stage (second_stage.py); None: there is none
    second_dimension: int | None = None  # of its vectors; None until there is one
    second_label: int = 0  # the second stage has processed all chunks with labels up to here (inclusive)
    second_chunks: int = 0  # current chunks that it has processed
    second_refused: int = 0  # those of them that its embedder has refused
    second_generation: int = 0  # grows whenever `second` is set

    def described(self) -> dict[str, Any]:
        """Its fields in events and in `vec library show`."""
        embedder, embedder_parameters = without_parameters(self.second or self.embedder)
        return {
            "name": self.name,
            "dimension": self.dimension,
            "metric": self.metric,
            "index": self.index,
            "parameters": self.parameters,
            "embedder": embedder,
            "embedder_parameters": embedder_parameters,
            "first_embedder": without_parameters(self.embedder)[0] if self.second else None,
            "chunk_chars": self.chunk_chars,
            "chunk_overlap": self.chunk_overlap,
            "recall": self.recall,
            "language": self.language,
            "mapping": self.mapping,
        }


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All libraries: existing ones by name; existing and deleted ones by id, because events refer to both."""

    by_name: dict[str, Library]
    by_id: dict[int, Library]

    def find(self, name: str, *, to: Literal["use", "manage", "delete"] = "use") -> Library:
        """The library of that name. Raises VecError `not_found`, whose hint depends on what it is for: to delete, no
        other name is suggested; and only to use it, that one creates it."""
        library = self.by_name.get(name)
        if library is None:
            close = nearest(name, list(self.by_name))
            hint = None
            if to != "delete":
                hint = f"create it with `vec library create {name}`" if to == "use" else "see `vec library list`"
                hint = f"did you mean {close!r}?" if close else hint
            if (renamed := self.renamed(name)) is not None:
                hint = f"it was renamed to {renamed.name!r}"
            raise VecError(Code.NOT_FOUND, f"library {name!r} does not exist", hint, library=name)
        return library

    def renamed(self, name: str) -> Library | None:
        """The library that had this name before it was renamed; None if there is none, or another has the name."""
        if name in self.by_name:
            return None
        return next((each for each in self.by_name.values() if name in each.former_names), None)

    def replaced(self, library: Library) -> Catalogue:
        """A copy with this version of `library`."""
        by_id = {**self.by_id, library.library_id: library}
        by_name = dict(self.by_name)
        before = self.by_id.get(library.library_id)
        if before is not None and before.name != library.name:
            del by_name[before.name]
        if library.deleted:
            by_name.pop(library.name, None)
        else:
            by_name[library.name] = library
        return Catalogue(by_name, by_id)


def read_catalogue(db: apsw.Connection) -> Catalogue:
    rows = db.execute(
        "SELECT library_id, name, dimension, metric, index_kind, embedder, chunk_chars, documents, chunks, created_us,"
        " deleted_seq IS NOT NULL, index_parameters, recall, language, recall_missed, switch_job, embedder_label,"
        " second, second_dimension, second_label, second_chunks, second_generation, chunk_overlap, mapping,"
        " second_refused, former_names FROM libraries"
    )
    by_id = {}
    for row in rows:
        parameters, recall, language, missed, switch_job, embedder_label = row[11:17]
        second, second_dimension, second_label, second_chunks, second_generation, chunk_overlap, mapping = row[17:-2]
        by_id[int(row[0])] = replace(
            Library(*row[:11]),
            parameters=orjson.loads(parameters),
            recall=recall,
            language=language,
            recall_missed=bool(missed),
            switch_job=switch_job,
            embedder_label=embedder_label,
            mapping=orjson.loads(mapping),
            chunk_overlap=chunk_overlap,
            second=second,
            second_dimension=second_dimension,
            second_label=second_label,
            second_chunks=second_chunks,
            second_generation=second_generation,
            second_refused=row[-2],
            former_names=frozenset(orjson.loads(row[-1])),
        )
    return Catalogue({each.name: each for each in by_id.values() if not each.deleted}, by_id)
