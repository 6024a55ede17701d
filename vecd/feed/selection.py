"""Views: which events a watcher wants, and how much of each. Watchers with equal views are sent the same bytes.

What an event tells of a document comes from the rows that the event refers to: the document as it was after that
change and before it, whatever has become of it since.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import orjson

from .. import limits
from ..errors import Code, VecError, nearest
from ..filters import attributes
from ..filters.language import Filter
from ..store import documents, events
from ..store.catalogue import Library
from ..store.events import Event, Row

if TYPE_CHECKING:
    import apsw

#: A version of a document: the label of its first chunk, and how many it has.
Version = tuple[int, int]

#: A row of which something is wanted, its library's name, and whether the document has left what the filter lets
#: through: it was, and is not any more.
Chosen = tuple[Row, str | None, bool]

#: Bytes of a chunk in a message beside its text, its vector and its document's id, about.
_CHUNK_BYTES = 64
#: Bytes of a chunk's event, and of its id in the document's, beside the ids and the library's name, at most.
_EVENT_BYTES = 130
#: Bytes of metadata on the wire for each of its JSON, at most: `0.1,` is nine.
_METADATA_BYTES = 3


@dataclass(frozen=True, slots=True)
class EventSelection:
    """Which events, and how much of each."""

    libraries: frozenset[str] | None = None  # None: all, and events of none
    types: frozenset[str] | None = None  # None: all
    where: Filter = ()  # which documents' events; with one, only events of documents
    payload: bool = False  # events of documents carry the document as it was after the change
    replaced: bool = False  # … and what the change replaced or removed
    vectors: bool = False  # … with the chunks' vectors

    @property
    def reads_metadata(self) -> bool:
        return bool(self.where) or self.payload

    @property
    def cost(self) -> int:
        """What it costs to select for the view, compared with others: the tests of its filters."""
        return sum(where.count for where in self.where)

    def wants(self, kind: str) -> bool:
        return self.types is None or kind in self.types


def types_of(patterns: Iterable[str]) -> frozenset[str] | None:
    """The types that these names and globs mean; None (all) for none of them. Raises VecError `invalid_request`."""
    found: set[str] = set()
    for pattern in patterns:
        matching = fnmatch.filter(events.ALL_TYPES, pattern)
        if not matching:
            close = nearest(pattern, events.ALL_TYPES)
            hint = f"did you mean {close!r}?" if close else f"types: {', '.join(events.ALL_TYPES)}"
            raise VecError(Code.INVALID_REQUEST, f"no event is of type {pattern!r}", hint, field="types")
        found.update(matching)
    return frozenset(found) or None


def select(
    view: EventSelection, rows: Sequence[Row], libraries: Mapping[int, Library], versions: Versions
) -> list[Chosen]:
    """Of these rows those of which the view may want something. `versions` are theirs, for the view's filters."""
    passing = versions.passing(view.where) if view.where else None
    # The end of a library is the end of all documents in it, for those who keep what the filter lets through; who did
    # not name it wants documents' events alone.
    wants_ends = view.types is not None and view.wants(events.TYPE_NAMES[events.LIBRARY_DELETED])
    if passing is not None and not passing and not wants_ends:
        return []  # as for most idle watches
    found = []
    for row in rows:
        library = libraries.get(row.library_id) if row.library_id is not None else None
        name = library.name if library is not None else None
        if view.libraries is not None and name not in view.libraries:
            continue
        if view.types is not None and not any(kind in view.types for kind in _kinds(row)):
            continue
        found.append((row, name, False))
    if passing is None:
        return found
    ends = [each for each in found if wants_ends and each[0].type == events.LIBRARY_DELETED]
    return sorted(filtered(passing, found) + ends, key=lambda each: each[0].seq)


def _kinds(row: Row) -> Iterator[str]:
    yield row.type_name
    if row.removed:
        yield events.CHUNK_DELETED
    if row.added:
        yield events.CHUNK_ADDED


class Versions:
    """The documents of some rows, as they are after their changes and as they were before, for these views' filters.

    They are looked at once, however many the views are."""

    def __init__(self, views: Iterable[EventSelection], rows: Iterable[Row]) -> None:
        fields = {field for view in views for where in view.where for field in where.fields}
        self._some: dict[int, attributes.Row] = {}  # by label
        for row in rows if fields else ():
            for label, chunks, title, metadata in (
                (row.label, row.added, row.title, row.metadata),
                (row.old_label, row.removed, row.old_title, row.old_metadata),
            ):
                if label is not None:
                    self._some[label] = attributes.Row(label, chunks, row.id or "", title, metadata or "{}")
        self._attributes = attributes.Some(fields, self._some.values())

    def passing(self, where: Filter) -> set[int]:
        """The labels of those that the filter lets through."""
        return set(compress(self._some, self._attributes.passing(where)))


def filtered(passing: Container[int | None], found: Iterable[Chosen]) -> list[Chosen]:
    """An event passes with a document that passes, as it is after the change or as it was before: whoever keeps what
    the filter lets through must hear when something leaves."""
    kept = []
    for row, name, _ in found:
        now, before = row.label in passing, row.old_label in passing
        if now or before:
            kept.append((row, name, before and not now and row.label is not None))
    return kept


def compose(
    view: EventSelection, chosen: Sequence[Chosen], after: int, stop: int, db: apsw.Connection
) -> list[list[Event]]:
    """The wanted events behind `after` (exclusive), up to `stop` (inclusive), a list for each of the chosen rows."""
    payloads = Payloads(view, [row for row, _, _ in chosen], db) if view.payload else None
    composed = []
    for row, name, left in chosen:
        expanded = events.expand(row, name)
        if left:
            expanded[0]["data"]["left"] = True
        if payloads is not None and row.id is not None:
            payloads.add(row, expanded)
        if view.types is not None or row.seq <= after or row.last_seq > stop:
            expanded = [each for each in expanded if after < each["seq"] <= stop and view.wants(each["type"])]
        composed.append(expanded)
    return composed


def pieces(view: EventSelection, chosen: Sequence[Chosen], db: apsw.Connection) -> Iterator[Sequence[Chosen]]:
    """The chosen rows, in pieces whose payloads make messages of a moderate size: at least one row each."""
    if not view.payload or not chosen:
        yield chosen
        return
    sizes = Sizes(view, [row for row, _, _ in chosen], db)
    start = size = 0
    for place, (row, _, _) in enumerate(chosen):
        its = sizes.of(row)
        if size + its > limits.PAYLOAD_BYTES and place > start:
            yield chosen[start:place]
            start, size = place, 0
        size += its
    yield chosen[start:]


def _versions(view: EventSelection, row: Row) -> Iterator[Version]:
    """The versions of the document that the view wants of the row."""
    if row.label is not None:
        yield row.label, row.added
    if row.old_label is not None and (view.replaced or not _wants_documents(view)):
        yield row.old_label, row.removed


def _wants_documents(view: EventSelection) -> bool:
    """Whether documents' own events are wanted: then these carry the payload, and otherwise the chunks' do."""
    return view.types is None or any(kind.startswith("document.") for kind in view.types)


class Sizes:
    """How many bytes the payloads of rows take."""

    def __init__(self, view: EventSelection, rows: Sequence[Row], db: apsw.Connection) -> None:
        self._view = view
        versions = [version for row in rows for version in _versions(view, row)]
        self._by_label = dict(zip((label for label, _ in versions), documents.sizes(db, versions), strict=True))

    def of(self, row: Row) -> int:
        return sum(self.of_version(row, version) for version in _versions(self._view, row))

    def of_version(self, row: Row, version: Version) -> int:
        texts, vectors = self._by_label[version[0]]
        around = version[1] * (_CHUNK_BYTES + 2 * _bytes(row.id))
        metadata = _METADATA_BYTES * _bytes(row.metadata if version[0] == row.label else row.old_metadata)
        return texts + (vectors if self._view.vectors else 0) + around + metadata


class Payloads:
    """Puts documents, as they were, into their events. Damaged ones are left out."""

    def __init__(self, view: EventSelection, rows: Sequence[Row], db: apsw.Connection) -> None:
        self._view = view
        self._documents = _wants_documents(view)
        self._sizes = Sizes(view, rows, db)
        versions = [version for row in rows for version in _versions(view, row)]
        self._contents = documents.contents(db, versions, vectors=view.vectors, sound_only=True)
        for label in documents.damaged(db, self._contents):
            del self._contents[label]

    def add(self, row: Row, expanded: list[Event]) -> None:
        """Into the events of one row; where chunks' events are wanted without their documents', into those."""
        size = len(expanded) * (_EVENT_BYTES + _bytes(expanded[0]["library"]) + 3 * _bytes(row.id))
        if not self._documents:
            too_large = size + self._sizes.of(row) > limits.PAYLOAD_BYTES_MAX
            for event in expanded[1:]:
                label = row.label if event["type"] == events.CHUNK_ADDED else row.old_label
                assert label is not None
                if too_large or label not in self._contents:
                    event["data"]["omitted"] = ["text"]
                else:
                    self._add_chunk(event["data"], label)
            return
        self.add_document(row, expanded[0]["data"], size)

    def add_document(self, row: Row, data: dict[str, Any], size: int = 0) -> None:
        """Into the data of a document's own event, beside which so many bytes go into the same frame."""
        for key, label, chunks, title, metadata in (
            ("document", row.label, row.added, row.title, row.metadata),
            ("replaced", row.old_label, row.removed, row.old_title, row.old_metadata),
        ):
            if label is None or (key == "replaced" and not self._view.replaced):
                continue
            size += self._sizes.of_version(row, (label, chunks))
            if size > limits.PAYLOAD_BYTES_MAX or label not in self._contents:
                data.setdefault("omitted", []).append(key)  # together they would fit no frame; or it is damaged
                continue
            data[key] = self._document(row.id or "", label, title, metadata)

    def _document(self, document_id: str, label: int, title: str | None, metadata: str | None) -> dict[str, Any]:
        texts, vectors = self._contents[label]
        return documents.whole(document_id, title, orjson.loads(metadata or "{}"), texts, vectors)

    def _add_chunk(self, data: dict[str, Any], label: int) -> None:
        texts, vectors = self._contents[label]
        data["text"] = texts[data["position"]]
        if vectors is not None:
            data["vector"] = vectors[data["position"]]


def _bytes(text: str | None) -> int:
    return len((text or "").encode())
