"""The checker finds what it is there to find."""

from __future__ import annotations

from typing import Any

import pytest

from .checks import Broken, Promise, check


def events(*pairs: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"seq": seq, "type": "document.updated", "data": {"id": document}} for seq, document in pairs]


LOGGED = events((1, "a"), (2, "b"), (3, "a"), (4, "b"))


@pytest.mark.parametrize(
    "received",
    [
        LOGGED,
        events((2, "b"), (1, "a"), (3, "a"), (4, "b")),  # each document's in order
        events((1, "a"), (2, "b"), (1, "a"), (2, "b"), (3, "a"), (4, "b")),  # a batch again
        events((1, "a"), (3, "a"), (1, "a"), (3, "a"), (2, "b"), (4, "b")),
    ],
)
def test_events_may_come_again_and_other_documents_in_between(received: list[dict[str, Any]]) -> None:
    check(LOGGED, received, "at least once")


@pytest.mark.parametrize(
    ("received", "promise", "says"),
    [
        (LOGGED[:3], "at least once", "missing"),
        ([*LOGGED, *events((5, "a"))], "at least once", "not in the log"),
        (events((1, "a"), (2, "b"), (3, "a"), (4, "c")), "at least once", "the broker"),
        (events((3, "a"), (1, "a"), (2, "b"), (4, "b")), "at least once", "came after"),
        ([*LOGGED, LOGGED[0]], "exactly once", "more than once"),
    ],
)
def test_what_is_lost_changed_doubled_or_out_of_order_is_found(
    received: list[dict[str, Any]], promise: Promise, says: str
) -> None:
    with pytest.raises(Broken, match=says):
        check(LOGGED, received, promise)
