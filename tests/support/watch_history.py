"""Checks the six guarantees of etcd's watch against a recorded history.

A history has the whole log, as received by a watcher without a filter, and the frames that each watcher received over
all its subscriptions: where each began, and whether it ended because its position had been trimmed.

- ordered: events arrive in the order of their seqs, across frames and subscriptions.
- unique: no event arrives twice.
- reliable: each event equals the logged one, and between two cursors no wanted event is missing.
- atomic: a document's events arrive together, in one frame.
- resumable: a subscription from a cursor continues after it; if the position was trimmed, the watcher is informed.
- bookmarkable: a cursor means that no event up to it will arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]

#: A watcher's selection: maps an event, and the first event of its row, to the expected event, or to None.
Wants = Callable[[Event, Event], Event | None]


@dataclass
class Frame:
    """A message of a watch; a bookmark has no events."""

    events: list[Event]
    cursor: int  # the seq up to which the log has been read for the watcher (inclusive)


@dataclass
class Subscription:
    """One watch, until its connection is lost or it ends."""

    start: int  # the seq after which it begins
    frames: list[Frame] = field(default_factory=list)
    compacted: int | None = None  # the horizon of the log (exclusive), if it ended with the error `compacted`


@dataclass
class Watcher:
    name: str
    wants: Wants
    subscriptions: list[Subscription] = field(default_factory=list)


class Broken(AssertionError):
    """A violated guarantee."""

    def __init__(self, guarantee: str, watcher: Watcher, what: str) -> None:
        super().__init__(f"{watcher.name}: not {guarantee}: {what}")
        self.guarantee = guarantee


class Log:
    """The reference: every event of the log, with its payload."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        self.begins: list[Event] = []  # for each event, the first event of its row
        for place, event in enumerate(self.events):
            assert event["seq"] == place + 1, f"the log itself has seq {event['seq']} after {place}"
            part = event["type"].startswith("chunk.")
            self.begins.append(self.begins[-1] if part else event)

    def wanted(self, watcher: Watcher, after: int, stop: int) -> list[Event]:
        """The events in (after, stop] that the watcher expects."""
        found = []
        for event, begin in zip(self.events[after:stop], self.begins[after:stop], strict=True):
            if (shown := watcher.wants(event, begin)) is not None:
                found.append(shown)
        return found

    def row(self, seq: int) -> tuple[int, int]:
        """The first and the last seq of the event's row."""
        first = last = self.begins[seq - 1]["seq"]
        while last < len(self.events) and self.begins[last]["seq"] == first:
            last += 1
        return first, last


def check(log: Log, watcher: Watcher) -> None:
    """Raises Broken, which names the violated guarantee."""
    _check_resumptions(watcher)
    seen: set[int] = set()
    for subscription in watcher.subscriptions:
        _check_order(watcher, subscription, seen)
    for subscription in watcher.subscriptions:
        _check_contents(log, watcher, subscription)


def _check_resumptions(watcher: Watcher) -> None:
    place = watcher.subscriptions[0].start
    for subscription in watcher.subscriptions:
        if subscription.start != place:
            raise Broken("resumable", watcher, f"it left off at {place}, and began again at {subscription.start}")
        if subscription.frames:
            place = subscription.frames[-1].cursor
        if (oldest := subscription.compacted) is not None:
            if oldest <= place:
                raise Broken("resumable", watcher, f"{place} was said to be trimmed away; the log begins at {oldest}")
            place = oldest


def _check_order(watcher: Watcher, subscription: Subscription, seen: set[int]) -> None:
    reached, latest = subscription.start, max(seen, default=0)
    for frame in subscription.frames:
        seqs = [event["seq"] for event in frame.events]
        if len(set(seqs)) < len(seqs) or not seen.isdisjoint(seqs):
            raise Broken("unique", watcher, f"{sorted(seen & set(seqs)) or seqs} came twice")
        if seqs != sorted(seqs) or (seqs and seqs[0] < latest):
            raise Broken("ordered", watcher, f"{seqs} came after {latest}")
        if frame.cursor < reached or (seqs and (seqs[0] <= reached or seqs[-1] > frame.cursor)):
            raise Broken("bookmarkable", watcher, f"{seqs} came between the cursors {reached} and {frame.cursor}")
        seen.update(seqs)
        reached, latest = frame.cursor, seqs[-1] if seqs else latest


def _check_contents(log: Log, watcher: Watcher, subscription: Subscription) -> None:
    reached = subscription.start
    for frame in subscription.frames:
        seqs = [event["seq"] for event in frame.events]
        wanted = log.wanted(watcher, reached, frame.cursor)
        if frame.events != wanted:
            missing = sorted({event["seq"] for event in wanted} - set(seqs))
            wrong = next((pair for pair in zip(frame.events, wanted, strict=False) if pair[0] != pair[1]), None)
            raise Broken("reliable", watcher, f"({reached}, {frame.cursor}] lacks {missing}; first difference {wrong}")
        for seq in (seqs[0], seqs[-1]) if seqs else ():
            first, last = log.row(seq)
            whole = log.wanted(watcher, first - 1, last)
            if others := sorted({event["seq"] for event in whole} - set(seqs)):
                raise Broken("atomic", watcher, f"{seqs} came without {others} of the same document")
        reached = frame.cursor
