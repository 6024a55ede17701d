"""The verbs of documents that are there: get, list, count, delete. (Writing them is ingest.py.)"""

from __future__ import annotations

import asyncio
from typing import Any

from ..store import documents as store
from ..store.documents import Batch, Document, Entry, Outcome
from ..store.events import chunk_id
from ..store.transaction import Transaction
from . import ingest
from .core import Engine
from .draft import NO_VECTORS
from .libraries import find
from .turns import Turn


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
        found = store.page(db, library.library_id, after, count)
    return [{"id": each.id, "title": each.title, "metadata": each.metadata, "chunks": each.chunks} for each in found]


def count(engine: Engine, name: str) -> dict[str, Any]:
    library = find(engine, name)
    return {"library": library.name, "documents": library.documents, "chunks": library.chunks}


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
        future = engine.database.submit(write, len(ids))
    outcomes, seq = await asyncio.wrap_future(future)
    missing = [outcome.id for outcome in outcomes if outcome.seq is None]
    return {"deleted": len(outcomes) - len(missing), "missing": len(missing), "missing_ids": missing, "seq": seq}


def _whole(document: Document) -> dict[str, Any]:
    chunks: list[dict[str, Any]] = [
        {"chunk_id": chunk_id(document.id, position), "text": text}
        for position, text in enumerate(document.texts or ())
    ]
    for chunk, vector in zip(chunks, document.vectors or (), strict=False):
        chunk["vector"] = vector
    return {"id": document.id, "title": document.title, "metadata": document.metadata, "chunks": chunks}
