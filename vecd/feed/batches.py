"""Batches of events: what one message of a watch holds, read and encoded once for all watches with the same selection.

A batch is what lies in (after, seq] of the log for one selection. The events of one change of a document are never
split over two batches, unless the watch itself has a limit in the middle of them. Everything here blocks: Feed runs it
on its own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from time import thread_time
from typing import TYPE_CHECKING, Any

from .. import limits
from ..store import events
from ..store.database import Database
from ..store.events import Event, EventRow
from . import payloads
from .positions import Position, compacted_error, cursor
from .selection import ChangedDocuments, EventSelection, select

if TYPE_CHECKING:
    import apsw

#: Encodes `{"items","cursor","head"}`. What it makes is the transport's business, except for its length in bytes.
Encode = Callable[[dict[str, Any]], Sized]

#: Rows with metadata that are read first, to see how large it is.
ROWS_FIRST = 16
#: Batches that a round has made, by what their bytes follow from: the encoding, what is sent of an event, which types,
#: which rows, and which of them have left the filter.
_Made = dict[tuple[object, ...], list["EventBatch"]]

#: Fields of filters for which events' documents are looked at together.
_GROUP_FIELDS = 100


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events in (after, position.seq] for a selection, or documents of a snapshot."""

    after: int  # seq
    position: Position  # behind the batch
    count: int = 0  # of its events
    first: int = 0  # the seq of the first of them
    body: Sized | None = None  # what is sent; None if there is nothing to send

    @property
    def seq(self) -> int:
        return self.position.seq


def bookmark(database: Database, position: Position, encode: Encode, **more: Any) -> Sized:
    """An encoded batch without events: how far the log has been read for the watch, and how far it goes."""
    return encode({"items": [], "cursor": cursor(database, position), "head": database.head, **more})


def encoded(
    database: Database, encode: Encode, after: int, position: Position, items: list[Event], first: int
) -> EventBatch:
    """A batch of these items; `first` is the seq of the first."""
    if not items:
        return EventBatch(after, position)
    body = encode({"items": items, "cursor": cursor(database, position), "head": database.head})
    return EventBatch(after, position, len(items), first, body)


def read(
    database: Database, selection: EventSelection, encode: Encode, after: int, stop: int, count: int | None = None
) -> EventBatch:
    """The batch behind the seq `after` (exclusive), up to `stop` (inclusive) at most, of up to `count` events.

    Raises VecError `compacted`.
    """
    with database.read_transaction() as db:
        rows, seq = _rows(database, db, after, stop, selection.reads_metadata)
        selected = select(selection, rows, database.catalogue.by_id, ChangedDocuments([selection], rows))
        contents = payloads.Contents(db)
        group = next(iter(payloads.split(selection, selected, contents)))
        if len(group) < len(selected):
            seq = group[-1].row.last_seq
        found = payloads.compose(selection, group, after, stop, contents)
    if count is not None and len(found) > count:
        del found[count:]
        seq = found[-1]["seq"]
    return _batch(database, encode, after, seq, found)


def read_for_all(
    database: Database, wanted: Sequence[tuple[EventSelection, Encode]], after: int
) -> tuple[int, list[list[EventBatch] | None], float]:
    """Reads the log on behind the seq `after` (exclusive) once for several selections.

    Returns the seq up to which it has read, the batches of each selection, and the CPU seconds that it took. A round
    has a bound in time and in bytes (limits.ROUND_S, limits.ROUND_BYTES_MAX), and cheap selections go first: None
    stands for the batches of those that found no time or space, so that one costly selection does not delay the others.
    """
    began_s = thread_time()
    metadata = any(selection.reads_metadata for selection, _ in wanted)
    found: list[list[EventBatch] | None] = [None] * len(wanted)
    made: _Made = {}
    size = 0
    with database.read_transaction() as db:
        contents = payloads.Contents(db)
        rows, seq = _rows(database, db, after, database.head, metadata)
        in_order = sorted(range(len(wanted)), key=lambda place: wanted[place][0].cost)
        for group in _groups(in_order, [selection for selection, _ in wanted]):
            if thread_time() - began_s > limits.ROUND_S and size:
                break
            changed = ChangedDocuments((wanted[place][0] for place in group), rows)
            for place in group:
                if size > limits.ROUND_BYTES_MAX or (thread_time() - began_s > limits.ROUND_S and size):
                    break
                selection, encode = wanted[place]
                before = len(made)
                batches = found[place] = _batches(
                    database, selection, encode, rows, changed, after, seq, contents, made
                )
                size += 1
                if len(made) > before:
                    size += sum(len(batch.body or ()) for batch in batches)
    return seq, found, thread_time() - began_s


def _groups(places: Sequence[int], selections: Sequence[EventSelection]) -> Iterator[list[int]]:
    """The places, in their order, in groups whose filters name a moderate number of fields together."""
    group: list[int] = []
    fields: set[object] = set()
    for place in places:
        added = {field for where in selections[place].where for field in where.fields}
        if group and len(fields | added) > _GROUP_FIELDS:
            yield group
            group, fields = [], set()
        group.append(place)
        fields |= added
    if group:
        yield group


def _batches(
    database: Database,
    selection: EventSelection,
    encode: Encode,
    rows: Sequence[EventRow],
    changed: ChangedDocuments,
    after: int,
    seq: int,
    contents: payloads.Contents,
    made: _Made,
) -> list[EventBatch]:
    """All batches of a selection in (after, seq]; empty if it wants no events of the rows. Selections that select the
    same, whatever their filters are, get the same batches."""
    selected = select(selection, rows, database.catalogue.by_id, changed)
    if not selected:
        return []
    sent = (encode, selection.types, selection.payload, selection.replaced, selection.vectors)
    key = (*sent, *((row.seq, left) for row, _, left in selected))
    if (known := made.get(key)) is not None:
        return known
    batches = made[key] = []
    groups = list(payloads.split(selection, selected, contents))
    for number, group in enumerate(groups, 1):
        stop = seq if number == len(groups) else group[-1].row.last_seq
        events_of_group = payloads.compose(selection, group, after, stop, contents)
        batches.append(_batch(database, encode, after, stop, events_of_group))
        after = stop
    return batches


def _batch(database: Database, encode: Encode, after: int, seq: int, found: list[Event]) -> EventBatch:
    return encoded(database, encode, after, Position(seq), found, found[0]["seq"] if found else 0)


def _rows(database: Database, db: apsw.Connection, after: int, stop: int, metadata: bool) -> tuple[list[EventRow], int]:
    """Rows behind the seq `after` that make a batch, and the seq up to which they, or the log, have been read."""
    horizon, _ = events.horizon(db)
    if after < horizon:
        raise compacted_error(database, f"the position {cursor(database, Position(after))}", horizon)
    rows = _read(db, after, stop, limits.EVENTS_PAGE // 2, metadata)
    size = 0
    for place, row in enumerate(rows):
        row_events = row.last_seq - row.seq + 1
        if row.seq > stop or (place and size + row_events > limits.EVENTS_PAGE):
            return rows[:place], rows[place].seq - 1 if row.seq <= stop else max(after, stop)
        size += row_events
    return rows, min(stop, rows[-1].last_seq) if rows else max(after, stop)


def _read(db: apsw.Connection, after: int, stop: int, count: int, metadata: bool) -> list[EventRow]:
    """Up to `count` rows behind the seq `after`. Fewer if their metadata is large: a batch would hold little of it; and
    few behind `stop`, which nobody wants."""
    if not metadata:
        return events.read(db, after, count, metadata=False)
    rows: list[EventRow] = []
    size, step = 0, ROWS_FIRST
    while len(rows) < count and size < limits.PAYLOAD_BYTES and not (rows and rows[-1].last_seq >= stop):
        step = min(step, count - len(rows))
        found = events.read(db, rows[-1].last_seq if rows else after, step, metadata=True)
        rows += found[1:] if rows and found and found[0].seq == rows[-1].seq else found  # at the head, the last again
        if len(found) < step:
            break
        size += sum(len(row.metadata or "") + len(row.old_metadata or "") for row in found)
        step *= 4
    return rows
