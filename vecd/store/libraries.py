"""Libraries: SQL that changes them. A transaction makes a new catalogue, and the commit publishes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import apsw
import numpy as np
import orjson

from ..errors import Code, VecError
from ..parameters import without_parameters
from . import connectors, events, rename
from .catalogue import Library
from .transaction import Change, Transaction


def create(tx: Transaction, wanted: Library) -> tuple[Library, int]:
    """Creates the library, with id, counts and time filled in; returns it and the seq of its event.

    Raises VecError `exists`.
    """
    if wanted.name in tx.catalogue.by_name:
        raise VecError(Code.EXISTS, f"library {wanted.name!r} already exists", library=wanted.name)
    rename.forget_former_name(tx, wanted.name)
    library_id = max(tx.catalogue.by_id, default=0) + 1
    library = replace(wanted, library_id=library_id, documents=0, chunks=0, created_us=tx.time_us, deleted=False)
    tx.db.execute(
        "INSERT INTO libraries (library_id, name, dimension, metric, index_kind, index_parameters, embedder,"
        " chunk_chars, chunk_overlap, created_us, recall, language, second, second_dimension, mapping)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (library_id, library.name, library.dimension, library.metric, library.index,
         orjson.dumps(library.parameters).decode(), library.embedder, library.chunk_chars, library.chunk_overlap,
         tx.time_us, library.recall, library.language, library.second, library.second_dimension,
         orjson.dumps(library.mapping).decode()),
    )  # fmt: skip
    tx.catalogue = tx.catalogue.replaced(library)
    if library.mapping:
        connectors.renew_sources(tx, library.name)
    seq = events.append(tx, events.LIBRARY_CREATED, library_id, orjson.dumps(library.described()).decode())
    return library, seq


def state(db: apsw.Connection, seq: int) -> list[tuple[int, str]]:
    """The libraries that existed at that seq, which must not be before the log's horizon: id and name, by id."""
    rows = db.execute(
        "SELECT library_id, name FROM libraries WHERE (deleted_seq IS NULL OR deleted_seq > ?1) AND library_id NOT IN"
        " (SELECT library_id FROM events WHERE seq > ?1 AND type = ?2) ORDER BY library_id",
        (seq, events.LIBRARY_CREATED),
    )
    return [(int(library_id), str(name)) for library_id, name in rows]


def alive(db: apsw.Connection, library_id: int) -> bool:
    """Whether the library exists in this connection's snapshot."""
    sql = "SELECT EXISTS (SELECT 1 FROM libraries WHERE library_id = ? AND deleted_seq IS NULL)"
    return bool(db.execute(sql, (library_id,)).get)


def embedded_by(db: apsw.Connection, library_id: int, embedder: str) -> bool:
    """Whether, in this connection's snapshot, an embedder made all stored vectors that were not ingested."""
    sql = "SELECT EXISTS (SELECT 1 FROM libraries WHERE library_id = ? AND embedder = ? AND switch_job IS NULL)"
    return bool(db.execute(sql, (library_id, embedder)).get)


def pin_dimension(tx: Transaction, library: Library, dimension: int) -> Library:
    """The library with its dimension set. Raises VecError `dimension_mismatch` if it has another one."""
    if library.dimension == dimension:
        return library
    if library.dimension is not None:
        raise mismatch(library, dimension)
    library = replace(library, dimension=dimension)
    tx.db.execute("UPDATE libraries SET dimension = ? WHERE library_id = ?", (dimension, library.library_id))
    tx.catalogue = tx.catalogue.replaced(library)
    return library


def set_mapping(tx: Transaction, name: str, mapping: Mapping[str, str]) -> Library:
    """Sets the rules by which JSON becomes documents of the library; returns its new version.

    Sources that have no rules of their own follow: what they have read by the earlier rules is refused. Raises VecError
    `not_found`.
    """
    library = replace(tx.catalogue.find(name, to="manage"), mapping=dict(mapping))
    tx.db.execute(
        "UPDATE libraries SET mapping = ? WHERE library_id = ?",
        (orjson.dumps(library.mapping).decode(), library.library_id),
    )
    tx.catalogue = tx.catalogue.replaced(library)
    connectors.renew_sources(tx, name)
    return library


def count(
    tx: Transaction, library: Library, documents: int, chunks: int, second_chunks: int = 0, second_refused: int = 0
) -> Library:
    """Adds to a library's counts; returns the new version of the library."""
    library = replace(
        library,
        documents=library.documents + documents,
        chunks=library.chunks + chunks,
        second_chunks=library.second_chunks + second_chunks,
        second_refused=library.second_refused + second_refused,
    )
    tx.db.execute(
        "UPDATE libraries SET documents = ?, chunks = ?, second_chunks = ?, second_refused = ? WHERE library_id = ?",
        (library.documents, library.chunks, library.second_chunks, library.second_refused, library.library_id),
    )
    tx.catalogue = tx.catalogue.replaced(library)
    return library


def rebuilt(tx: Transaction, library_id: int, kind: str, parameters: dict[str, Any], details: Mapping[str, Any]) -> int:
    """Records the library's new index, and logs that it was built; the event also has `details`. Returns its seq.

    Raises VecError `not_found` if the library is deleted.
    """
    library = living(tx, library_id)
    if (library.index, library.parameters) != (kind, parameters):
        library = replace(library, index=kind, parameters=parameters)
        tx.db.execute(
            "UPDATE libraries SET index_kind = ?, index_parameters = ? WHERE library_id = ?",
            (kind, orjson.dumps(library.parameters).decode(), library_id),
        )
        tx.catalogue = tx.catalogue.replaced(library)
    data = {"kind": kind, "parameters": parameters, **details}
    return events.append(tx, events.INDEX_REBUILT, library_id, orjson.dumps(data).decode())


#: The fields of an `index.recall` event: the promise (the target recall), whether it is met, and the recall of the
#: measured queries. All but the promise are null if the promise is new.
RECALL_FIELDS: Final = ("promise", "met", "queries", "mean", "p5", "worst", "effort")


def promise(tx: Transaction, library_id: int, recall: float) -> int | None:
    """Sets the target recall of the library's searches; returns the seq of the event, None if nothing changes.

    Raises VecError `not_found` if the library is deleted.
    """
    library = living(tx, library_id)
    if library.recall == recall:
        return None
    tx.db.execute("UPDATE libraries SET recall = ? WHERE library_id = ?", (recall, library_id))
    tx.catalogue = tx.catalogue.replaced(replace(library, recall=recall))
    data = {**dict.fromkeys(RECALL_FIELDS), "promise": recall}
    return events.append(tx, events.INDEX_RECALL, library_id, orjson.dumps(data).decode())


def recall_changed(tx: Transaction, library_id: int, data: Mapping[str, Any]) -> int | None:
    """Records whether the recall promise is met (`data` has the keys RECALL_FIELDS, and perhaps more). Returns the seq
    of the event; None if that has not changed, or the library is deleted."""
    library = tx.catalogue.by_id[library_id]
    missed = not data["met"]
    if library.deleted or library.recall_missed == missed:
        return None
    tx.db.execute("UPDATE libraries SET recall_missed = ? WHERE library_id = ?", (missed, library_id))
    tx.catalogue = tx.catalogue.replaced(replace(library, recall_missed=missed))
    fields = {key: data[key] for key in RECALL_FIELDS}
    return events.append(tx, events.INDEX_RECALL, library_id, orjson.dumps(fields).decode())


def begin_switch(tx: Transaction, library: Library, wanted: Library, job_id: int) -> Library:
    """Sets the first stage's embedder, its dimension and the chunk length, as in `wanted`, and notes that the documents
    are to be replaced by a job's drafts; returns the new version of the library."""
    changed = wanted.embedder != library.embedder
    library = replace(
        library,
        embedder=wanted.embedder,
        dimension=wanted.dimension,
        chunk_chars=wanted.chunk_chars,
        chunk_overlap=wanted.chunk_overlap,
        switch_job=job_id,
        embedder_label=tx.label if changed else library.embedder_label,
    )
    tx.db.execute(
        "UPDATE libraries SET embedder = ?, dimension = ?, chunk_chars = ?, chunk_overlap = ?, switch_job = ?,"
        " embedder_label = ? WHERE library_id = ?",
        (
            library.embedder, library.dimension, library.chunk_chars, library.chunk_overlap, job_id,
            library.embedder_label, library.library_id,
        ),
    )  # fmt: skip
    tx.catalogue = tx.catalogue.replaced(library)
    return library


def end_switch(tx: Transaction, library: Library) -> None:
    """Notes that all documents have been replaced."""
    tx.db.execute("UPDATE libraries SET switch_job = NULL WHERE library_id = ?", (library.library_id,))
    tx.catalogue = tx.catalogue.replaced(replace(library, switch_job=None))


def delete(tx: Transaction, name: str) -> tuple[Library, int]:
    """Deletes a library with all its documents, as one event; returns it and the event's seq.

    Its rows are kept while the log refers to them; they count as removed because the library is. Raises VecError
    `not_found`.
    """
    library = replace(tx.catalogue.find(name, to="delete"), deleted=True)
    data = {"name": library.name, "documents": library.documents, "chunks": library.chunks}
    seq = events.append(tx, events.LIBRARY_DELETED, library.library_id, orjson.dumps(data).decode())
    tx.db.execute("UPDATE libraries SET deleted_seq = ? WHERE library_id = ?", (seq, library.library_id))
    tx.catalogue = tx.catalogue.replaced(library)
    nothing = np.empty(0, np.int64), np.empty((0, 0), np.float32)
    tx.changes.append(Change(library.library_id, seq, *nothing, removed=[], dropped=True))
    return library, seq


def living(tx: Transaction, library_id: int) -> Library:
    """The library. Raises VecError `not_found` if it is deleted."""
    library = tx.catalogue.by_id[library_id]
    if library.deleted:
        raise VecError(Code.NOT_FOUND, f"library {library.name!r} has been deleted", library=library.name)
    return library


def mismatch(library: Library, dimension: int, wanted: int | None = None) -> VecError:
    """The error for a vector of the wrong dimension, naming both dimensions. `wanted` is the expected one if the
    library has none yet."""
    made_by = (
        ""
        if library.embedder == "none"
        else f" (from its embedder, {without_parameters(library.second or library.embedder)[0]})"
    )
    wanted = wanted or library.dimension
    return VecError(
        Code.DIMENSION_MISMATCH,
        f"library {library.name!r} holds {wanted}-dimension vectors{made_by}, and this one has {dimension}",
        "for your own vectors, create another library: `vec library create NAME --embedder none`",
        field="vector",
    )
