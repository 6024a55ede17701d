"""Positions in the log, and the cursors that name them to clients.

A cursor is `<log id>:<seq>`, the last event seen (inclusive); the next event is the one behind it. In a snapshot it is
`<log id>:<seq>@<label>`: the last document seen of the state as of that seq.
"""

from __future__ import annotations

import datetime
import re
import time
from typing import NamedTuple

from ..errors import Code, VecError
from ..store import events
from ..store.database import Database
from ..units import duration_s

_CURSOR = re.compile(r"([0-9a-f]+):([0-9]{1,18})(?:@([0-9]{1,18}))?")


class Position(NamedTuple):
    """Behind the event `seq`; with `label`, in the snapshot as of `seq`, behind that document (0: at its beginning)."""

    seq: int
    label: int | None = None


def cursor(database: Database, position: Position) -> str:
    """The cursor of a position."""
    place = "" if position.label is None else f"@{position.label}"
    return f"{database.log_id}:{position.seq}{place}"


def resolve(database: Database, start: str) -> Position:
    """The position of `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago such as `-15m`. Blocks.

    Raises VecError `invalid_cursor`, `foreign_cursor`, or `compacted` for a time before the oldest event that is left.
    A cursor that was trimmed away raises only when it is read from.
    """
    if start == "beginning":
        return Position(0)
    if start == "now":
        return Position(database.head)
    if (moment_us := time_us(start)) is not None:
        with database.read_transaction() as db:
            horizon, horizon_us = events.horizon(db)
            if horizon and moment_us <= horizon_us:
                raise compacted_error(database, f"the time {start}", horizon)
            return Position(max(horizon, events.seq_at(db, moment_us)))
    return parse(database, start)


def parse(database: Database, text: str) -> Position:
    """The position of a cursor. Raises VecError `invalid_cursor` or `foreign_cursor`."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise VecError(
            Code.INVALID_CURSOR,
            f"{text!r:.80} is not a position in the log",
            "use beginning, now, the cursor of an event, an RFC 3339 time, or a relative time such as -15m",
        )
    seq, head = int(match[2]), database.head
    if match[1] != database.log_id:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {text} belongs to another log; this log is {database.log_id}",
            "the store was recreated or restored: start over from the beginning",
        )
    if seq > head:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {text} is past the head of the log, {head}",
            "the store was restored from an older copy: start over from the beginning",
        )
    return Position(seq, None if match[3] is None else int(match[3]))


def compacted_error(database: Database, what: str, horizon: int) -> VecError:
    """The error for a position that was trimmed; its `oldest` is the first cursor that can be resumed from."""
    oldest = cursor(database, Position(horizon))
    return VecError(
        Code.COMPACTED,
        f"{what} has been trimmed; the log begins after {oldest}",
        "continue with the oldest event (--on-gap oldest), or with a snapshot (--on-gap snapshot)",
        oldest=oldest,
    )


def time_us(text: str) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time or a time ago; None for anything else.

    Raises VecError `invalid_cursor` for what looks like a time and is not one.
    """
    if re.fullmatch(r"-\d+(?:\.\d+)?[smhdw]", text):
        return max(0, int((time.time() - duration_s(text[1:])) * 1_000_000))
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        # A time without a zone is the machine's.
        return max(0, int((moment if moment.tzinfo else moment.astimezone()).timestamp() * 1_000_000))
    except (ValueError, OverflowError) as error:
        raise VecError(Code.INVALID_CURSOR, f"{text!r:.80} is not an RFC 3339 time: {error}") from error
