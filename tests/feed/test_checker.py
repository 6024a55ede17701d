"""The checker can fail: histories that are right pass, and each kind of broken one is called by its name."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.support.watch_history import Broken, Event, Frame, Log, Subscription, Watcher, check


def _event(seq: int, kind: str, about: str) -> Event:
    return {"seq": seq, "type": kind, "library": "default", "data": {"id": about}}


#: Three documents of two chunks each: seqs 1-3, 4-6, 7-9.
LOG = Log(
    [
        _event(3 * number + place + 1, "document.added" if place == 0 else "chunk.added", f"d{number}")
        for number in range(3)
        for place in range(3)
    ]
)


def _whole() -> Watcher:
    """A history without a fault: two frames and a bookmark, then a second subscription with one."""
    first = Subscription(0, [Frame(LOG.events[:3], 3), Frame([], 3), Frame(LOG.events[3:6], 6)])
    return Watcher("all", lambda event, _: event, [first, Subscription(6, [Frame(LOG.events[6:], 9)])])


def _frames(watcher: Watcher) -> list[Frame]:
    return watcher.subscriptions[0].frames


def _gap(watcher: Watcher) -> None:
    _frames(watcher)[2].events = []


def _gap_at_the_resumption(watcher: Watcher) -> None:
    watcher.subscriptions[1].start = 7
    watcher.subscriptions[1].frames[0].events = LOG.events[7:]


def _double(watcher: Watcher) -> None:
    _frames(watcher).append(Frame(LOG.events[3:6], 6))


def _double_in_a_frame(watcher: Watcher) -> None:
    _frames(watcher)[0].events = [*LOG.events[:3], LOG.events[2]]


def _double_at_the_resumption(watcher: Watcher) -> None:
    watcher.subscriptions[1].frames[0].events = LOG.events[3:]


def _split(watcher: Watcher) -> None:
    _frames(watcher)[2:] = [Frame(LOG.events[3:5], 5), Frame(LOG.events[5:6], 6)]


def _reorder_in_a_frame(watcher: Watcher) -> None:
    _frames(watcher)[0].events = [LOG.events[0], LOG.events[2], LOG.events[1]]


def _reorder_frames(watcher: Watcher) -> None:
    _frames(watcher)[:] = [Frame(LOG.events[3:6], 6), Frame(LOG.events[:3], 6)]


def _changed(watcher: Watcher) -> None:
    _frames(watcher)[0].events[1]["data"] = {"id": "another"}


def _unwanted(watcher: Watcher) -> None:
    watcher.wants = lambda event, begin: event if begin["seq"] != 4 else None


def _bookmark_ahead(watcher: Watcher) -> None:
    watcher.wants = lambda event, begin: event if begin["seq"] == 4 else None
    _frames(watcher)[:] = [Frame([], 3), Frame([], 4), Frame(LOG.events[3:6], 6)]


def _cursor_behind_its_events(watcher: Watcher) -> None:
    _frames(watcher)[2].cursor = watcher.subscriptions[1].start = 5


def _compacted_without_a_trim(watcher: Watcher) -> None:
    watcher.subscriptions[0].compacted = 6


@pytest.mark.parametrize(
    ("fault", "guarantee"),
    [
        (_gap, "reliable"),
        (_gap_at_the_resumption, "resumable"),
        (_double, "unique"),
        (_double_in_a_frame, "unique"),
        (_double_at_the_resumption, "unique"),
        (_split, "atomic"),
        (_reorder_in_a_frame, "ordered"),
        (_reorder_frames, "ordered"),
        (_changed, "reliable"),
        (_unwanted, "reliable"),
        (_bookmark_ahead, "bookmarkable"),
        (_cursor_behind_its_events, "bookmarkable"),
        (_compacted_without_a_trim, "resumable"),
    ],
)
def test_a_broken_history_is_called_by_the_guarantee_that_it_breaks(
    fault: Callable[[Watcher], None], guarantee: str
) -> None:
    watcher = _whole()
    check(LOG, watcher)
    watcher.subscriptions = copy.deepcopy(watcher.subscriptions)
    fault(watcher)
    with pytest.raises(Broken) as broken:
        check(LOG, watcher)
    assert broken.value.guarantee == guarantee


def test_whoever_was_trimmed_over_and_told_so_goes_on_behind_the_gap() -> None:
    told = Subscription(0, [Frame(LOG.events[:3], 3)], compacted=6)
    check(LOG, Watcher("trimmed", lambda event, _: event, [told, Subscription(6, [Frame(LOG.events[6:], 9)])]))
