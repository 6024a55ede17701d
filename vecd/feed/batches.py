"""Pages: pieces of the log, or of a snapshot, as a watcher is sent them: composed, and encoded once.

Everything here blocks: Engine.follow runs it. A page is what lies in (after, seq] of the log for one view; a document's
events are never split over two pages, unless the watcher itself asks for a limit in the middle of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from time import thread_time
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..store import documents, events, libraries
from ..store.database import Database
from ..store.events import Event, Row
from . import selection as selections
from .positions import Position, compacted, cursor
from .selection import EventSelection, Versions

if TYPE_CHECKING:
    import apsw

#: Makes what is sent of `{"items","cursor","head"}`: the transport's business, but for its length in bytes.
Encode = Callable[[dict[str, Any]], Sized]

#: The types of what a snapshot gives. They are in no log, so no filter of types is for them.
SNAPSHOT_LIBRARY: Final = "snapshot.library"
SNAPSHOT_DOCUMENT: Final = "snapshot.document"
SNAPSHOT_END: Final = "snapshot.end"

#: Rows with metadata that are read first, to see how large it is.
_ROWS_FIRST = 16
#: Fields of filters for which events' documents are looked at together.
_GROUP_FIELDS = 100
#: Documents of a snapshot that are read at once.
_SNAPSHOT_DOCUMENTS = 500


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What lies in (after, position.seq] for a view, or in a snapshot. `first` is the seq of the first of its `count`
    events; `body` is what is sent, None if that is nothing."""

    after: int
    position: Position
    count: int = 0
    first: int = 0
    body: Sized | None = None

    @property
    def seq(self) -> int:
        return self.position.seq


def bookmark(database: Database, position: Position, encode: Encode, **more: Any) -> Sized:
    """What tells a watcher how far the log has been read for it, and how far there is to read."""
    return encode({"items": [], "cursor": cursor(database, position), "head": database.head, **more})


def read(
    database: Database, view: EventSelection, encode: Encode, after: int, stop: int, count: int | None = None
) -> EventBatch:
    """The page behind `after` (exclusive), up to `stop` (inclusive) at most, of up to `count` events.

    Raises VecError `compacted`.
    """
    with database.snapshot() as db:
        rows, seq = _rows(database, db, after, stop, view.reads_metadata)
        chosen = selections.select(view, rows, database.catalogue.by_id, Versions([view], rows))
        piece = next(iter(selections.pieces(view, chosen, db)))
        if len(piece) < len(chosen):
            seq = piece[-1][0].last_seq
        found = [event for row in selections.compose(view, piece, after, stop, db) for event in row]
    if count is not None and len(found) > count:
        del found[count:]
        seq = found[-1]["seq"]
    return _page(database, encode, after, seq, found)


def read_for_all(
    database: Database, views_: Sequence[tuple[EventSelection, Encode]], after: int
) -> tuple[int, list[list[EventBatch] | None], float]:
    """Reads on behind `after` (exclusive) once for several views: up to which seq, the pages of each view, and the
    processor's seconds that it took. None stands for the pages of views that found no time or no room: one costly view
    must not hold up the others."""
    began_s = thread_time()
    metadata = any(view.reads_metadata for view, _ in views_)
    found: list[list[EventBatch] | None] = [None] * len(views_)
    size = 0
    with database.snapshot() as db:
        rows, seq = _rows(database, db, after, database.head, metadata)
        in_order = sorted(range(len(views_)), key=lambda place: views_[place][0].cost)
        for group in _groups(in_order, [view for view, _ in views_]):
            if thread_time() - began_s > limits.ROUND_S and size:
                break
            versions = Versions((views_[place][0] for place in group), rows)
            for place in group:
                if size > limits.ROUND_BYTES_MAX or (thread_time() - began_s > limits.ROUND_S and size):
                    break
                view, encode = views_[place]
                pages = found[place] = _pages(database, view, encode, rows, versions, after, seq, db)
                size += 1 + sum(len(page.body or ()) for page in pages)
    return seq, found, thread_time() - began_s


def _groups(places: Sequence[int], views_: Sequence[EventSelection]) -> Iterator[list[int]]:
    """The places, in their order, in groups whose views' filters name a moderate number of fields together."""
    group: list[int] = []
    fields: set[object] = set()
    for place in places:
        its = {field for where in views_[place].where for field in where.fields}
        if group and len(fields | its) > _GROUP_FIELDS:
            yield group
            group, fields = [], set()
        group.append(place)
        fields |= its
    if group:
        yield group


def _pages(
    database: Database,
    view: EventSelection,
    encode: Encode,
    rows: Sequence[Row],
    versions: Versions,
    after: int,
    seq: int,
    db: apsw.Connection,
) -> list[EventBatch]:
    chosen = selections.select(view, rows, database.catalogue.by_id, versions)
    if not chosen:
        return []
    pages = []
    split = list(selections.pieces(view, chosen, db))
    for number, piece in enumerate(split, 1):
        its_seq = seq if number == len(split) else piece[-1][0].last_seq
        found = [event for row in selections.compose(view, piece, after, its_seq, db) for event in row]
        pages.append(_page(database, encode, after, its_seq, found))
        after = its_seq
    return pages


def _page(database: Database, encode: Encode, after: int, seq: int, found: list[Event]) -> EventBatch:
    position = Position(seq)
    if not found:
        return EventBatch(after, position)
    body = encode({"items": found, "cursor": cursor(database, position), "head": database.head})
    return EventBatch(after, position, len(found), found[0]["seq"], body)


def _rows(database: Database, db: apsw.Connection, after: int, stop: int, metadata: bool) -> tuple[list[Row], int]:
    """Rows behind `after` that make a page, and the seq up to which they, or the log, have been read."""
    horizon, _ = events.horizon(db)
    if after < horizon:
        raise compacted(database, f"the position {cursor(database, Position(after))}", horizon)
    rows = _read(db, after, limits.EVENTS_PAGE // 2, metadata)
    size = 0
    for place, row in enumerate(rows):
        its = row.last_seq - row.seq + 1
        if row.seq > stop or (place and size + its > limits.EVENTS_PAGE):
            return rows[:place], rows[place].seq - 1 if row.seq <= stop else max(after, stop)
        size += its
    return rows, min(stop, rows[-1].last_seq) if rows else max(after, stop)


def _read(db: apsw.Connection, after: int, count: int, metadata: bool) -> list[Row]:
    """Up to `count` rows behind `after`; fewer if their metadata is large: most of it would be read for nothing, since
    a page holds little of it."""
    if not metadata:
        return events.read(db, after, count, metadata=False)
    rows: list[Row] = []
    size, some = 0, _ROWS_FIRST
    while len(rows) < count and size < limits.PAYLOAD_BYTES:
        some = min(some, count - len(rows))
        found = events.read(db, rows[-1].last_seq if rows else after, some, metadata=True)
        rows += found[1:] if rows and found and found[0].seq == rows[-1].seq else found  # at the head, the last again
        if len(found) < some:
            break
        size += sum(len(row.metadata or "") + len(row.old_metadata or "") for row in found)
        some *= 4
    return rows


# --- snapshots ------------------------------------------------------------------------------------------------------


def read_state(
    database: Database, view: EventSelection, encode: Encode, position: Position, count: int | None = None
) -> EventBatch:
    """The next page of the snapshot as of `position.seq`, behind `position.label`, of up to `count` items; the last has
    a position without a label.

    Raises VecError `compacted`.
    """
    seq, label = position
    assert label is not None
    with database.snapshot() as db:
        horizon, _ = events.horizon(db)
        if seq < horizon:
            raise compacted(database, f"the snapshot {cursor(database, position)}", horizon)
        there = {
            library_id: name
            for library_id, name in libraries.state(db, seq)
            if view.libraries is None or name in view.libraries
        }
        time = events.format_time(events.time_at(db, seq))
        wanted = None if view.libraries is None else list(there)
        found = documents.state(db, seq, label, _ROWS_FIRST, wanted)
        size = sum(len(metadata) for *_, metadata in found)
        if len(found) == _ROWS_FIRST and size < limits.PAYLOAD_BYTES * _ROWS_FIRST // _SNAPSHOT_DOCUMENTS:
            found += documents.state(db, seq, found[-1][0], _SNAPSHOT_DOCUMENTS - _ROWS_FIRST, wanted)
        items: list[Event] = []
        if label == 0:
            items += [_item(seq, SNAPSHOT_LIBRARY, name, time, {"name": name}) for name in there.values()]
        room = None if count is None else count - len(items)
        if room is not None and room <= 0:  # no document yet, so the beginning is behind none
            return _state_page(database, encode, position, items[:count])
        if not found:
            items.append(_item(seq, SNAPSHOT_END, None, time, {"libraries": sorted(there.values())}))
            return _state_page(database, encode, Position(seq), items)
        rows = [_row(seq, *each) for each in found]
        chosen: list[selections.Chosen] = [(row, there[row.library_id or 0], False) for row in rows]
        if view.where:
            chosen = selections.filtered(Versions([view], rows).passing(view.where), chosen)
        piece = next(iter(selections.pieces(view, chosen, db)))[:room]
        label = found[-1][0] if len(piece) == len(chosen) else piece[-1][0].label
        payloads = selections.Payloads(view, [row for row, _, _ in piece], db) if view.payload else None
        for row, name, _ in piece:
            expanded = events.expand(row, name)[:1]
            if payloads is not None:
                payloads.add_document(row, expanded[0]["data"])
            items.append(_item(seq, SNAPSHOT_DOCUMENT, name, time, expanded[0]["data"]))
    return _state_page(database, encode, Position(seq, label), items)


def _row(seq: int, label: int, chunks: int, library_id: int, id: str, title: str | None, metadata: str) -> Row:
    """The row that would tell of the document if it came now."""
    return Row(seq, 0, events.DOCUMENT_ADDED, library_id, None, id, label, chunks, title, metadata, None, 0, None, None)


def _item(seq: int, kind: str, library: str | None, time: str, data: dict[str, Any]) -> Event:
    return {"seq": seq, "type": kind, "library": library, "time": time, "data": data}


def _state_page(database: Database, encode: Encode, position: Position, items: list[Event]) -> EventBatch:
    body = None
    if items:
        body = encode({"items": items, "cursor": cursor(database, position), "head": database.head})
    return EventBatch(position.seq, position, len(items), position.seq, body)
