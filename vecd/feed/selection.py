"""Selects events for a watch: by library, by type, and by a filter on the documents that they are about.

Watches with equal selections are sent the same bytes. A filter is answered from the rows that an event refers to: the
document as it was after the change, and as it was before it, whatever has become of it since.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import orjson

from ..errors import Code, VecError, nearest
from ..filters import attributes
from ..filters.expressions import Filter
from ..store import events
from ..store.catalogue import Library
from ..store.events import EventRow


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
        """What it costs to select, compared with other selections: the number of its filters' comparisons."""
        return sum(where.count for where in self.where)

    def wants(self, event_type: str) -> bool:
        return self.types is None or event_type in self.types

    def wants_library(self, library: Library) -> bool:
        """Whether events of this library are wanted; a library that was renamed is wanted by its former names too."""
        wanted = self.libraries
        return wanted is None or library.name in wanted or not wanted.isdisjoint(library.former_names)

    @property
    def wants_chunk_events(self) -> bool:
        return self.types is None or not self.types.isdisjoint((events.CHUNK_ADDED, events.CHUNK_DELETED))

    @property
    def wants_document_events(self) -> bool:
        """Whether events of whole documents are wanted: then these carry the payload, and otherwise the chunks' do."""
        return self.types is None or any(event_type.startswith("document.") for event_type in self.types)


class SelectedRow(NamedTuple):
    """A row of the log of which the selection may want events."""

    row: EventRow
    library: str | None  # its name
    left: bool = False  # the document matched the filter before the change, and does not match it any more


def match_types(patterns: Iterable[str]) -> frozenset[str] | None:
    """The event types that these names and globs match, without those that globs after a `!` match; None (all types) if
    there are no patterns. If all patterns begin with `!`, they are taken from all types.

    Raises VecError `invalid_request` for a pattern that matches none.
    """
    given = list(patterns)
    found = set(events.ALL_TYPES) if given and all(each.startswith("!") for each in given) else set[str]()
    excluded: set[str] = set()
    for pattern in given:
        matching = fnmatch.filter(events.ALL_TYPES, pattern.removeprefix("!"))
        if not matching:
            close = nearest(pattern, events.ALL_TYPES)
            hint = f"did you mean {close!r}?" if close else f"types: {', '.join(events.ALL_TYPES)}"
            raise VecError(Code.INVALID_REQUEST, f"no event type matches {pattern!r}", hint, field="types")
        (excluded if pattern.startswith("!") else found).update(matching)
    if given and found <= excluded:
        raise VecError(Code.INVALID_REQUEST, "the types exclude every event", "leave out one of them", field="types")
    return frozenset(found - excluded) or None


def select(
    selection: EventSelection, rows: Sequence[EventRow], libraries: Mapping[int, Library], documents: ChangedDocuments
) -> list[SelectedRow]:
    """The rows of which the selection may want events, in their order. `documents` are those of the same rows."""
    passing = documents.passing(selection.where) if selection.where else None
    # The end of a library is the end of all its documents, for a watch that keeps a copy of what the filter matches. A
    # watch that did not name that type gets events of documents only.
    wants_ends = selection.types is not None and selection.wants(events.TYPE_NAMES[events.LIBRARY_DELETED])
    if passing is not None and not passing and not wants_ends:
        return []  # as for most idle watches
    found = []
    for row in rows:
        library = libraries.get(row.library_id) if row.library_id is not None else None
        name = library.name if library is not None else None
        if library is None and selection.libraries is not None:
            continue
        if library is not None and not selection.wants_library(library):
            continue
        if selection.types is not None and not any(event_type in selection.types for event_type in _types_of(row)):
            continue
        found.append(SelectedRow(row, name))
    if passing is None:
        return found
    ends = [each for each in found if wants_ends and each.row.type == events.LIBRARY_DELETED]
    return sorted(matching(passing, found) + ends, key=lambda each: each.row.seq)


def _types_of(row: EventRow) -> Iterator[str]:
    yield row.type_name
    if row.removed:
        yield events.CHUNK_DELETED
    if row.added:
        yield events.CHUNK_ADDED


class ChangedDocuments:
    """The documents of some rows, after their changes and before them, as filters see them.

    One instance serves many selections: each field is extracted once for all their filters. A document whose metadata
    is damaged so that it cannot be decoded matches no filter.
    """

    def __init__(self, selections: Iterable[EventSelection], rows: Iterable[EventRow]) -> None:
        fields = {field for selection in selections for where in selection.where for field in where.fields}
        self._by_label: dict[int, attributes.DocumentRow] = {}
        for row in rows if fields else ():
            for label, chunks, title, metadata in (
                (row.label, row.added, row.title, row.metadata),
                (row.old_label, row.removed, row.old_title, row.old_metadata),
            ):
                if label is None:
                    continue
                with contextlib.suppress(orjson.JSONDecodeError):
                    decoded = orjson.loads(metadata or "{}")
                    self._by_label[label] = attributes.DocumentRow(label, chunks, row.id or "", title, decoded)
        self._attributes = attributes.DocumentSet(fields, self._by_label.values())

    def passing(self, where: Filter) -> set[int]:
        """The labels of the documents that match the filter."""
        return set(compress(self._by_label, self._attributes.passing(where)))


def matching(passing: Container[int | None], found: Iterable[SelectedRow]) -> list[SelectedRow]:
    """The rows whose document matches after the change or matched before it: a watch that keeps a copy of what matches
    must learn when a document leaves. `passing` has the labels that match."""
    kept = []
    for row, name, _ in found:
        now, before = row.label in passing, row.old_label in passing
        if now or before:
            kept.append(SelectedRow(row, name, before and not now and row.label is not None))
    return kept
