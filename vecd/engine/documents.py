"""Operations on stored documents: get, list, count, delete. (ingest.py writes them.)

Each answer is of the state at one seq: what takes several transactions reads in a view (read_views.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..filters.attributes import DocumentSelection
from ..filters.expressions import Field, Filter, parse, parse_field, refuse
from ..store import documents as store
from ..store import events, libraries
from ..store.catalogue import Library
from ..store.documents import Document, DocumentBatch, Entry, Outcome
from ..store.transaction import Transaction
from ..write_order import WriteSlot
from . import ingest
from .damage import METADATA
from .engine import Engine
from .libraries import find
from .prepare import NO_VECTORS
from .read_views import AllDocuments, DocumentsByLabel, Listing, ReadView

if TYPE_CHECKING:
    import apsw

#: Documents with damaged metadata that the warnings of an answer name.
_DAMAGE_SHOWN = 3

#: A document as it was found: id, and the digest of its content.
Version = tuple[str, str]


def get(engine: Engine, name: str, ids: list[str], vectors: bool) -> tuple[list[dict[str, Any] | None] | None, int]:
    """The documents with these ids, in their order, None for one that is not there; and the seq of the state. None
    instead of the list if they are too large to be held at once. Blocks.

    Raises VecError `not_found` for a library that is not there.
    """
    with engine.views.open() as view, engine.database.read_transaction() as db:
        found, seq = _found(engine, db, view, name, ids)
        there = [each for each in found if each is not None]
        if store.fill(db, there, vectors=vectors, bytes_max=limits.PAGE_BYTES) < len(there):
            return None, seq
    return [None if each is None else _whole(each) for each in found], seq


def locate(engine: Engine, view: ReadView, name: str, ids: list[str]) -> tuple[list[int | None], int]:
    """The labels of the documents with these ids, in their order, None for one that is not there; and the seq of the
    state. The rows stay while the view is open. Blocks.

    Raises VecError `not_found` for a library that is not there.
    """
    with engine.database.read_transaction() as db:
        found, seq = _found(engine, db, view, name, ids)
    return [None if each is None else each.label for each in found], seq


def read_located(
    engine: Engine, view: ReadView, labels: list[int | None], vectors: bool
) -> list[dict[str, Any] | None]:
    """Of the documents that `locate` found, the first ones, as `get` has them: at least one, and as many as make an
    answer of a moderate size. Blocks. Raises VecError `busy`."""
    with engine.database.read_transaction() as db:
        found = store.at(db, [label for label in labels if label is not None])
        places = {label: place for place, label in reversed([*enumerate(labels)])}
        found.sort(key=lambda document: places[document.label])
        filled = found[: store.fill(db, found, vectors=vectors, bytes_max=limits.PAGE_BYTES)]
    view.check()
    by_label = {document.label: _whole(document) for document in filled}
    page: list[dict[str, Any] | None] = []
    for label in labels:
        if label is None:
            page.append(None)
        elif (document := by_label.pop(label, None)) is not None:
            page.append(document)
        else:
            break  # not read, or asked for twice: that would be twice as large
    assert page or not labels
    return page


def _found(
    engine: Engine, db: apsw.Connection, view: ReadView, name: str, ids: list[str]
) -> tuple[list[Document | None], int]:
    """The documents, without their chunks, as of this transaction; and its seq."""
    library = find(engine, name, view.catalogue)
    if not library.library_id:  # `default`, which nothing had been written to
        return [None] * len(ids), view.seq
    if not libraries.alive(db, library.library_id):
        raise VecError(Code.NOT_FOUND, f"library {name!r} has just been deleted", library=name)
    return store.get(db, library.library_id, ids), events.head(db)


@dataclass(frozen=True, slots=True)
class Sort:
    """The order of a listing: by a field, and by id where that is equal. Documents without the field are last."""

    field: Field
    descending: bool = False

    @classmethod
    def by(cls, name: str, *, descending: bool) -> Sort:
        """By a field as it is written in a filter. Raises VecError `invalid_filter`."""
        return cls(parse_field(name), descending)

    @property
    def where(self) -> Filter:
        """A filter that every document matches, and that names the field."""
        return parse((f"exists {self.field} or not exists {self.field}",))


async def listing(
    engine: Engine, view: ReadView, name: str, where: Filter, sort: Sort | None = None
) -> tuple[Listing, list[str]]:
    """The documents of a library, or those that match a filter, by id or as `sort` says; for `next_page`, while the
    view is open. And warnings.

    Raises VecError `not_found` or `invalid_filter`.
    """
    library = find(engine, name, view.catalogue)
    if sort is not None and library.library_id:
        selection, listed = await engine.read(_sorted, engine, view, library, where, sort)
        await published(engine, selection.seq)
        return listed, _warnings(engine, library, selection, sort)
    if not where:
        return AllDocuments(view, library.library_id), []
    selection = await _select(engine, library, where)
    await published(engine, selection.seq)
    return await engine.read(_picked, engine, view, selection), _warnings(engine, library, selection)


def _warnings(engine: Engine, library: Library, selection: DocumentSelection, sort: Sort | None = None) -> list[str]:
    sort_text = None if sort is None else sort.where[0].text
    damaged = [f"{error.message}; it matches no filter ({error.hint})" for error in _unfiltered(engine, library)]
    sentences = [
        f"{each.message}, so the list is sorted by id" if each.text == sort_text else each.sentence
        for each in selection.warnings
    ]
    return [*sentences, *damaged]


def _unfiltered(engine: Engine, library: Library) -> list[VecError]:
    """Some of the documents that no filter can be evaluated on, because their metadata is damaged."""
    return engine.damage.errors(library, METADATA)[:_DAMAGE_SHOWN]


def refuse_warnings(selection: DocumentSelection) -> None:
    """Raises VecError `invalid_filter` for the first warning: `id != x` would delete everything if the field is missing
    everywhere, which is hardly intended."""
    for warning in selection.warnings:
        refuse(warning.text, warning.column, warning.message, warning.hint)


def listing_blocking(engine: Engine, view: ReadView, library: Library, where: Filter) -> Listing:
    """As `listing`, for a thread that may block. Blocks."""
    if not where:
        return AllDocuments(view, library.library_id)
    return _picked(engine, view, _selected(engine, library, where))


def next_page(engine: Engine, listed: Listing, count: int) -> list[dict[str, Any]]:
    """The next `count` documents of a listing at most, without their chunks' text; none: that was all. Blocks.

    Raises VecError `busy`.
    """
    with engine.database.read_transaction() as db:
        return [_outlined(each) for each in listed.page(db, count)]


def _sorted(
    engine: Engine, view: ReadView, library: Library, where: Filter, sort: Sort
) -> tuple[DocumentSelection, DocumentsByLabel]:
    """Blocks."""
    named = (*where, *sort.where)
    with engine.attribute_cache.hold(library, named) as attributes:
        selection, keys = engine.attribute_cache.load_sorted(library, attributes, named, sort.field)
    with engine.database.read_transaction() as db:
        labels = np.array(store.by_id(db, selection.firsts[selection.matching].tolist()), np.int64)
    order = keys.order(np.searchsorted(selection.firsts, labels), sort.descending)
    seq = max(view.seq, selection.seq)
    return selection, DocumentsByLabel(view, seq, selection.last_label, labels[order].tolist())


def _picked(engine: Engine, view: ReadView, selection: DocumentSelection) -> DocumentsByLabel:
    labels = selection.firsts[selection.matching].tolist()
    with engine.database.read_transaction() as db:
        labels = store.by_id(db, labels)
    return DocumentsByLabel(view, max(view.seq, selection.seq), selection.last_label, labels)


async def count(engine: Engine, name: str, where: Filter) -> dict[str, Any]:
    """How many documents and chunks there are, or how many match a filter, the `seq` of the state, and perhaps
    `warnings`.

    Raises VecError `not_found` or `invalid_filter`.
    """
    moment = engine.database.moment
    library = find(engine, name, moment.catalogue)
    documents, chunks, seq = library.documents, library.chunks, moment.seq
    warnings: list[str] = []
    if where:
        selection = await _select(engine, library, where)
        matching = selection.matching
        documents, chunks = int(np.count_nonzero(matching)), int(selection.chunks[matching].sum())
        seq = max(seq, selection.seq)
        await published(engine, seq)
        warnings = _warnings(engine, library, selection)
    answer = {"library": library.name, "documents": documents, "chunks": chunks, "seq": seq}
    return {**answer, "warnings": warnings} if warnings else answer


async def _select(engine: Engine, library: Library, where: Filter) -> DocumentSelection:
    with engine.attribute_cache.hold(library, where) as attributes:
        return await engine.read(engine.attribute_cache.load, library, attributes, where)


def _selected(engine: Engine, library: Library, where: Filter) -> DocumentSelection:
    """As `_select`. Blocks."""
    with engine.attribute_cache.hold(library, where) as attributes:
        return engine.attribute_cache.load(library, attributes, where)


async def published(engine: Engine, seq: int) -> None:
    """Waits until the head is at least `seq`: a selection may include a commit that is just being published, and no
    answer may have a seq that the log does not have yet."""
    if seq > engine.database.head:
        await asyncio.wrap_future(engine.database.submit(lambda tx: None))


def versions(engine: Engine, library: Library, where: Filter, *, sure: bool) -> tuple[list[Version], list[str]]:
    """What `delete_unchanged` takes: the documents that match a filter, in the order of their ids; and warnings. With
    `sure`, a filter with a field that no document has is refused. Blocks.

    Raises VecError `not_found` or `invalid_filter`.
    """
    with engine.views.open():
        selection = _selected(engine, library, where)
        if sure:
            refuse_warnings(selection)
        return _versions(engine, selection), _warnings(engine, library, selection)


def _versions(engine: Engine, selection: DocumentSelection) -> list[Version]:
    with engine.database.read_transaction() as db:
        return store.versions(db, selection.firsts[selection.matching].tolist())


async def delete(engine: Engine, name: str, ids: list[str], slot: WriteSlot) -> dict[str, Any]:
    """Deletes documents by id: `{"deleted","missing","missing_ids","seq"}`. Many are deleted in several transactions.
    Raises VecError `not_found`, or what the store raises; then some may have been deleted."""
    library = await ingest.library_after_writes(engine, name, slot)

    def write(page: list[str], tx: Transaction) -> tuple[list[Outcome], int]:
        entries = [Entry(index, each, delete=True) for index, each in enumerate(page)]
        return store.write(tx, ingest.current_library(tx, library), DocumentBatch(entries, [], [], NO_VECTORS)), tx.seq

    if not library.library_id:  # `default`, which nothing has been written to
        slot.release()
        return {"deleted": 0, "missing": len(ids), "missing_ids": ids, "seq": engine.database.head}
    pages = [ids[start : start + limits.DELETE_DOCUMENTS] for start in range(0, len(ids), limits.DELETE_DOCUMENTS)]
    async with slot:
        futures = [
            engine.database.submit(partial(write, page), len(page), frees=True, sender=slot.sender)
            for page in pages or [[]]
        ]
    written = await asyncio.gather(*map(asyncio.wrap_future, futures))
    missing = [outcome.id for outcomes, _ in written for outcome in outcomes if outcome.seq is None]
    return {
        "deleted": len(ids) - len(missing), "missing": len(missing), "missing_ids": missing, "seq": written[-1][1],
    }  # fmt: skip


async def delete_where(engine: Engine, name: str, where: Filter, slot: WriteSlot) -> dict[str, Any]:
    """Deletes the documents that match a filter: `{"deleted","missing","missing_ids","seq"}`, and perhaps `warnings`.

    The filter is applied after all earlier writes of this sender. A document that another sender changes before it is
    deleted stays. Many documents are deleted in several transactions. A filter that names a field that no document
    has is refused. Raises VecError.
    """
    library = await ingest.library_after_writes(engine, name, slot)
    deleted, seq = 0, engine.database.head
    warnings: list[str] = []
    if library.library_id:
        async with slot:
            found, warnings = await find_versions(engine, library, where, slot)
            start = 0
            while page := found[start : start + documents_per_delete(engine)]:
                start += len(page)
                work = partial(delete_unchanged, library, page)
                future = engine.database.submit(work, len(page), frees=True, sender=slot.sender)
                gone, seq = await asyncio.wrap_future(future)
                deleted += gone
    answer = {"deleted": deleted, "missing": 0, "missing_ids": [], "seq": seq}
    return {**answer, "warnings": warnings} if warnings else answer


async def find_versions(
    engine: Engine, library: Library, where: Filter, slot: WriteSlot
) -> tuple[list[Version], list[str]]:
    """The documents that match a filter after the sender's earlier writes, by id; and warnings. A filter with a field
    that no document has is refused. Within `async with slot`."""
    behind = engine.database.submit(lambda tx: None, sender=slot.sender)  # the sender's earlier writes
    await asyncio.wrap_future(behind)
    with engine.views.open():
        selection = await _select(engine, library, where)
        refuse_warnings(selection)
        return await engine.read(_versions, engine, selection), _warnings(engine, library, selection)


def documents_per_delete(engine: Engine) -> int:
    """How many documents one transaction of a delete by filter takes."""
    return limits.DELETE_DOCUMENTS_TIGHT if engine.database.tight else limits.DELETE_DOCUMENTS


def delete_unchanged(library: Library, page: list[Version], tx: Transaction) -> tuple[int, int]:
    """On the writer: deletes those documents that still have the content they were found with; returns how many, and
    the seq. (Not the label: a reembed gives every document a new one.)

    Raises VecError `not_found` if the library has been deleted.
    """
    if tx.catalogue.by_id[library.library_id].deleted:
        raise VecError(Code.NOT_FOUND, f"library {library.name!r} has been deleted", library=library.name)
    there = store.present(tx.db, library.library_id, [each_id for each_id, _ in page])
    unchanged = [
        each_id for place, (each_id, digest) in enumerate(page) if place in there and there[place][2] == digest
    ]
    entries = [Entry(index, each_id, delete=True) for index, each_id in enumerate(unchanged)]
    store.write(tx, tx.catalogue.by_id[library.library_id], DocumentBatch(entries, [], [], NO_VECTORS))
    return len(entries), tx.seq


def _outlined(document: Document) -> dict[str, Any]:
    return {"id": document.id, "title": document.title, "metadata": document.metadata, "chunks": document.chunks}


def _whole(document: Document) -> dict[str, Any]:
    return store.whole(
        document.id, document.title, document.metadata, document.texts or (), document.vectors, document.lines
    )
