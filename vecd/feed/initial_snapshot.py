"""The initial snapshot of a watch: the libraries and documents as of one seq, in batches like those of the log.

A snapshot needs no copy. The rows that it reads never change and stay while the log refers to them, so it is read page
by page, at any later time, and continues from its cursor as exactly as the log does. It ends with `snapshot.end`; the
events behind its seq follow. Everything here blocks.
"""

from __future__ import annotations

from typing import Any, Final

from .. import limits
from ..store import documents, events, libraries
from ..store.database import Database
from ..store.events import Event, EventRow
from ..units import format_time
from . import payloads
from .batches import ROWS_FIRST, Encode, EventBatch, encoded
from .positions import Position, compacted_error, cursor
from .selection import ChangedDocuments, EventSelection, SelectedRow, matching

#: The types of a snapshot's items. The log has none of them, so no selection by type concerns them.
LIBRARY: Final = "snapshot.library"
DOCUMENT: Final = "snapshot.document"
END: Final = "snapshot.end"

#: Documents that are read at once.
_DOCUMENTS = 500


def read(
    database: Database, selection: EventSelection, encode: Encode, position: Position, count: int | None = None
) -> EventBatch:
    """The next batch of the snapshot as of `position.seq`, behind the document `position.label`, of up to `count`
    items; the last one has a position without a label.

    Raises VecError `compacted`.
    """
    seq, label = position
    assert label is not None
    with database.read_transaction() as db:
        horizon, _ = events.horizon(db)
        if seq < horizon:
            raise compacted_error(database, f"the snapshot {cursor(database, position)}", horizon)
        names = {
            library_id: name
            for library_id, name in libraries.state(db, seq)
            if selection.wants_library(database.catalogue.by_id[library_id])
        }
        time = format_time(events.time_at(db, seq))
        wanted = None if selection.libraries is None else list(names)
        found = documents.state(db, seq, label, ROWS_FIRST, wanted)
        size = sum(len(metadata) for *_, metadata in found)
        if len(found) == ROWS_FIRST and size < limits.PAYLOAD_BYTES * ROWS_FIRST // _DOCUMENTS:
            found += documents.state(db, seq, found[-1][0], _DOCUMENTS - ROWS_FIRST, wanted)
        items: list[Event] = []
        if label == 0:
            by_id = database.catalogue.by_id
            items += [_item(seq, LIBRARY, name, time, by_id[each].described()) for each, name in names.items()]
        left = None if count is None else count - len(items)
        if left is not None and left <= 0:  # no document yet: the position stays at the beginning
            return encoded(database, encode, seq, position, items[:count], seq)
        if not found:
            items.append(_item(seq, END, None, time, {"libraries": sorted(names.values())}))
            return encoded(database, encode, seq, Position(seq), items, seq)
        rows = [_row(seq, *each) for each in found]
        selected = [SelectedRow(row, names[row.library_id or 0]) for row in rows]
        if selection.where:
            selected = matching(ChangedDocuments([selection], rows).passing(selection.where), selected)
        contents = payloads.Contents(db)
        group = next(iter(payloads.split(selection, selected, contents)))[:left]
        label = found[-1][0] if len(group) == len(selected) else group[-1].row.label
        its_rows = [each.row for each in group]
        its_payloads = payloads.Payloads(selection, its_rows, contents) if selection.payload else None
        for row, name, _ in group:
            data = events.expand(row, name)[0]["data"]
            if its_payloads is not None:
                its_payloads.add_document(row, data)
            items.append(_item(seq, DOCUMENT, name, time, data))
    return encoded(database, encode, seq, Position(seq, label), items, seq)


def _row(seq: int, label: int, chunks: int, library_id: int, id: str, title: str | None, metadata: str) -> EventRow:
    """The row of the log that would add the document now."""
    return EventRow(
        seq, 0, events.DOCUMENT_ADDED, library_id, None, id, label, chunks, title, metadata, None, 0, None, None
    )


def _item(seq: int, item_type: str, library: str | None, time: str, data: dict[str, Any]) -> Event:
    return {"seq": seq, "type": item_type, "library": library, "time": time, "data": data}
