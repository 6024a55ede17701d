"""The verbs of documents that are there: get, list, count, delete. (Writing them is ingest.py.)"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np

from .. import limits
from ..filters.attributes import DocumentSelection
from ..filters.language import refuse
from ..store import documents as store
from ..store.catalogue import Library
from ..store.documents import Batch, Document, Entry, Outcome
from ..store.transaction import Transaction
from . import ingest
from .core import Engine
from .draft import NO_VECTORS
from .libraries import find
from .selections import Filter
from .turns import Turn
from .view import whole


def get(engine: Engine, name: str, ids: list[str], vectors: bool) -> list[dict[str, Any] | None]:
    """The documents with these ids, in their order; None for one that is not there. Blocks.

    Raises VecError `not_found` for a library that is not there.
    """
    library = find(engine, name)
    with engine.database.snapshot() as db:
        found = store.get(db, library.library_id, ids, vectors=vectors)
    return [None if document is None else _whole(document) for document in found]


def page(engine: Engine, name: str, after: str | None, count: int) -> list[dict[str, Any]]:
    """Up to `count` documents without their chunks' text, by id, behind `after` (exclusive). Blocks."""
    library = find(engine, name)
    with engine.database.snapshot() as db:
        return [_outlined(each) for each in store.page(db, library.library_id, after, count)]


def select(engine: Engine, library: Library, where: Filter, *, sure: bool = False) -> list[tuple[int, str]]:
    """As `matching`, for a thread that may block. With `sure` a filter in doubt is refused. Blocks.

    Raises VecError `not_found` or `invalid_filter`.
    """
    with engine.selections.hold(library, where) as attributes:
        selection = engine.selections.load(library, attributes, where)
    if sure:
        refuse_doubts(selection)
    return _by_id(engine, selection.firsts[selection.matching].tolist())


async def matching(
    engine: Engine, name: str, where: Filter, *, sure: bool = False
) -> tuple[list[tuple[int, str]], list[str]]:
    """Label and id of the documents that a filter lets through, in the order of their ids; and warnings. With `sure` a
    filter in doubt is refused.

    Raises VecError `not_found` or `invalid_filter`.
    """
    selection = await _select(engine, find(engine, name), where)
    if sure:
        refuse_doubts(selection)
    found = await engine.read(_by_id, engine, selection.firsts[selection.matching].tolist())
    return found, [doubt.sentence for doubt in selection.doubts]


def refuse_doubts(selection: DocumentSelection) -> None:
    """Raises VecError `invalid_filter` for the first doubt: `id != x` would delete everything if the field is missing
    everywhere, and nobody may have meant that."""
    for doubt in selection.doubts:
        refuse(doubt.text, doubt.column, doubt.message, doubt.hint)


def outlines(engine: Engine, labels: list[int]) -> list[dict[str, Any]]:
    """The documents with these labels without their chunks' text, in their order. Blocks."""
    with engine.database.snapshot() as db:
        return [_outlined(each) for each in store.at(db, labels)]


async def count(engine: Engine, name: str, where: Filter) -> dict[str, Any]:
    """How many documents and chunks there are, or how many a filter lets through."""
    library = find(engine, name)
    documents, chunks = library.documents, library.chunks
    warnings: list[str] = []
    if where:
        selection = await _select(engine, library, where)
        matching = selection.matching
        documents, chunks = int(np.count_nonzero(matching)), int(selection.chunks[matching].sum())
        warnings = [doubt.sentence for doubt in selection.doubts]
    answer = {"library": library.name, "documents": documents, "chunks": chunks}
    return {**answer, "warnings": warnings} if warnings else answer


async def _select(engine: Engine, library: Library, where: Filter) -> DocumentSelection:
    with engine.selections.hold(library, where) as attributes:
        return await engine.read(engine.selections.load, library, attributes, where)


def _by_id(engine: Engine, labels: list[int]) -> list[tuple[int, str]]:
    with engine.database.snapshot() as db:
        return store.by_id(db, labels)


async def delete(engine: Engine, name: str, ids: list[str], turn: Turn) -> dict[str, Any]:
    """Deletes documents by id: `{"deleted","missing","missing_ids","seq"}`. Raises VecError `not_found`."""
    library = await ingest.settled(engine, name, turn)
    entries = [Entry(index, each, delete=True) for index, each in enumerate(ids)]
    batch = Batch(entries, [], [], NO_VECTORS)

    def write(tx: Transaction) -> tuple[list[Outcome], int]:
        return store.write(tx, ingest.same_library(tx, library), batch), tx.seq

    if not library.library_id:  # `default`, which nothing has been written to
        turn.release()
        return {"deleted": 0, "missing": len(ids), "missing_ids": ids, "seq": engine.database.head}
    async with turn:
        future = engine.database.submit(write, len(ids), frees=True)
    outcomes, seq = await asyncio.wrap_future(future)
    missing = [outcome.id for outcome in outcomes if outcome.seq is None]
    return {"deleted": len(outcomes) - len(missing), "missing": len(missing), "missing_ids": missing, "seq": seq}


async def delete_where(engine: Engine, name: str, where: Filter, turn: Turn) -> dict[str, Any]:
    """Deletes the documents that a filter lets through: `{"deleted","missing","missing_ids","seq"}`.

    They are those that match after all that this sender wrote before. One that is changed by somebody else before its
    turn comes is left as it is. Many are deleted in several transactions. A filter that names a field that no document
    has is refused. Raises VecError.
    """
    library = await ingest.settled(engine, name, turn)
    deleted, seq = 0, engine.database.head
    if library.library_id:
        async with turn:
            await asyncio.wrap_future(engine.database.submit(lambda tx: None))  # behind the sender's earlier writes
            found, _ = await matching(engine, name, where, sure=True)
            for start in range(0, len(found), limits.DELETE_DOCUMENTS):
                page = found[start : start + limits.DELETE_DOCUMENTS]
                future = engine.database.submit(partial(delete_unchanged, library, page), len(page), frees=True)
                gone, seq = await asyncio.wrap_future(future)
                deleted += gone
    return {"deleted": deleted, "missing": 0, "missing_ids": [], "seq": seq}


def delete_unchanged(library: Library, page: list[tuple[int, str]], tx: Transaction) -> tuple[int, int]:
    """On the writer: deletes those documents that still have the label they were found with; returns how many, and the
    seq."""
    there = {each_id for _, each_id in store.by_id(tx.db, [label for label, _ in page])}
    entries = [Entry(index, each, delete=True) for index, each in enumerate(sorted(there))]
    store.write(tx, ingest.same_library(tx, library), Batch(entries, [], [], NO_VECTORS))
    return len(entries), tx.seq


def _outlined(document: Document) -> dict[str, Any]:
    return {"id": document.id, "title": document.title, "metadata": document.metadata, "chunks": document.chunks}


def _whole(document: Document) -> dict[str, Any]:
    return whole(document.id, document.title, document.metadata, document.texts or (), document.vectors)
