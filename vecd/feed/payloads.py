"""Puts documents into their events: texts, metadata and vectors, as they were when the event was logged.

A document is immutable and stays while the log refers to it, so a payload is exact however often the document has
changed since. Payloads that would not fit a message are left out, and the event says so (`omitted`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from .. import limits
from ..store import documents, events
from ..store.documents import Content
from ..store.events import Event, EventRow
from .selection import EventSelection, SelectedRow

if TYPE_CHECKING:
    import apsw

#: A version of a document: the label of its first chunk, and how many chunks it has.
Version = tuple[int, int]

#: Bytes of texts and vectors that are kept for other selections of the same round.
_KEPT_BYTES = 8 * limits.MIB
#: Bytes of a chunk in a message beside its text, its vector and its document's id, about.
_CHUNK_BYTES = 80
#: Bytes of a chunk's event, and of its id in the document's, beside the ids and the library's name, at most.
_EVENT_BYTES = 130
#: Bytes of metadata on the wire for each byte of its JSON, at most: `0.1,` is nine.
_METADATA_BYTES = 3


class Contents:
    """The texts and vectors of versions of documents. Those that several selections want are read once, as far as
    _KEPT_BYTES go. Within one read transaction."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._sizes: dict[int, tuple[int, int]] = {}  # by label: of the texts, and of the vectors
        self._kept: dict[tuple[int, bool], Content | None] = {}  # by label, and whether with vectors; None: damaged
        self._left_bytes = _KEPT_BYTES

    def sizes(self, versions: Sequence[Version]) -> Mapping[int, tuple[int, int]]:
        """By label: the bytes of the texts and of the vectors, of these versions at least."""
        missing = [version for version in dict.fromkeys(versions) if version[0] not in self._sizes]
        if missing:
            self._sizes.update(zip((label for label, _ in missing), documents.sizes(self._db, missing), strict=True))
        return self._sizes

    def read(self, versions: Sequence[Version], vectors: bool) -> dict[int, Content]:
        """By label: the texts and, if asked for, the vectors of these versions. Damaged ones are left out."""
        missing = [version for version in dict.fromkeys(versions) if (version[0], vectors) not in self._kept]
        found: dict[int, Content] = {}
        if missing:
            found = documents.contents(self._db, missing, vectors=vectors, sound_only=True)
            for label in documents.damaged(self._db, found):
                del found[label]
            sizes = self.sizes(missing)
        kept = {label: content for label, _ in versions if (content := self._kept.get((label, vectors))) is not None}
        for label, _ in missing:
            size = sizes[label][0] + (sizes[label][1] if vectors else 0)
            if size <= self._left_bytes:
                self._left_bytes -= size
                self._kept[label, vectors] = found.get(label)
        return {**kept, **found}


def compose(
    selection: EventSelection, selected: Sequence[SelectedRow], after: int, stop: int, contents: Contents
) -> list[Event]:
    """The wanted events of the rows behind the seq `after` (exclusive), up to `stop` (inclusive), with payloads."""
    payloads = Payloads(selection, [each.row for each in selected], contents) if selection.payload else None
    composed: list[Event] = []
    for row, name, left in selected:
        expanded = events.expand(row, name, chunks=selection.wants_chunk_events)
        if left:
            expanded[0]["data"]["left"] = True
        if payloads is not None and row.id is not None:
            payloads.add(row, expanded)
        if selection.types is not None or row.seq <= after or row.last_seq > stop:
            expanded = [each for each in expanded if after < each["seq"] <= stop and selection.wants(each["type"])]
        composed += expanded
    return composed


def split(
    selection: EventSelection, selected: Sequence[SelectedRow], contents: Contents
) -> Iterator[Sequence[SelectedRow]]:
    """The rows in groups whose payloads make messages of a moderate size: at least one row each, one group at least."""
    if not selection.payload or not selected:
        yield selected
        return
    sizes = _Sizes(selection, [each.row for each in selected], contents)
    start = size = 0
    for place, (row, _, _) in enumerate(selected):
        row_bytes = sizes.of(row)
        if size + row_bytes > limits.PAYLOAD_BYTES and place > start:
            yield selected[start:place]
            start, size = place, 0
        size += row_bytes
    yield selected[start:]


def _versions(selection: EventSelection, row: EventRow) -> Iterator[Version]:
    """The versions of the row's document that the selection wants."""
    if row.label is not None:
        yield row.label, row.added
    if row.old_label is not None and (selection.replaced or not selection.wants_document_events):
        yield row.old_label, row.removed


class _Sizes:
    """How many bytes the payloads of rows take in a message, about."""

    def __init__(self, selection: EventSelection, rows: Sequence[EventRow], contents: Contents) -> None:
        self._selection = selection
        self._by_label = contents.sizes([version for row in rows for version in _versions(selection, row)])

    def of(self, row: EventRow) -> int:
        return sum(self.of_version(row, version) for version in _versions(self._selection, row))

    def of_version(self, row: EventRow, version: Version) -> int:
        texts, vectors = self._by_label[version[0]]
        around = version[1] * (_CHUNK_BYTES + 2 * _bytes(row.id))
        metadata = _METADATA_BYTES * _bytes(row.metadata if version[0] == row.label else row.old_metadata)
        return texts + (vectors if self._selection.vectors else 0) + around + metadata


class Payloads:
    """Adds documents to their events. Documents that are damaged in the store are left out."""

    def __init__(self, selection: EventSelection, rows: Sequence[EventRow], contents: Contents) -> None:
        self._selection = selection
        self._sizes = _Sizes(selection, rows, contents)
        versions = [version for row in rows for version in _versions(selection, row)]
        self._contents = contents.read(versions, selection.vectors)

    def add(self, row: EventRow, expanded: list[Event]) -> None:
        """To the events of one row: to the document's, or, if only chunks' events are wanted, to those."""
        size = len(expanded) * (_EVENT_BYTES + _bytes(expanded[0]["library"]) + 3 * _bytes(row.id))
        if self._selection.wants_document_events:
            self.add_document(row, expanded[0]["data"], size)
            return
        too_large = size + self._sizes.of(row) > limits.PAYLOAD_BYTES_MAX
        for event in expanded[1:]:
            label = row.label if event["type"] == events.CHUNK_ADDED else row.old_label
            assert label is not None
            if too_large or label not in self._contents:
                event["data"]["omitted"] = ["text"]
            else:
                self._add_chunk(event["data"], label)

    def add_document(self, row: EventRow, data: dict[str, Any], size: int = 0) -> None:
        """To the data of a document's event; `size` bytes beside it go into the same message."""
        for key, label, chunks, title, metadata in (
            ("document", row.label, row.added, row.title, row.metadata),
            ("replaced", row.old_label, row.removed, row.old_title, row.old_metadata),
        ):
            if label is None or (key == "replaced" and not self._selection.replaced):
                continue
            size += self._sizes.of_version(row, (label, chunks))
            if size > limits.PAYLOAD_BYTES_MAX or label not in self._contents:
                data.setdefault("omitted", []).append(key)  # too large for one message, or damaged
                continue
            texts, vectors, lines = self._contents[label]
            data[key] = documents.whole(row.id or "", title, orjson.loads(metadata or "{}"), texts, vectors, lines)

    def _add_chunk(self, data: dict[str, Any], label: int) -> None:
        texts, vectors, lines = self._contents[label]
        data["text"] = texts[data["position"]]
        if lines is not None:
            data["line"] = lines[data["position"]]
        if vectors is not None:
            data["vector"] = vectors[data["position"]]


def _bytes(text: str | None) -> int:
    return len((text or "").encode())
