"""Positions in the log: what a watcher says of where to begin, and the cursors that it is told.

A cursor is `<log id>:<seq>`, the last event seen; what follows it begins with the event behind it. In a snapshot it is
`<log id>:<seq>@<label>`: of the state as of that seq, the last document seen. The rows that a snapshot reads never
change and stay while the log refers to them, so a snapshot goes on from its cursor as exactly as the log does.
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
    """As people keep it."""
    place = "" if position.label is None else f"@{position.label}"
    return f"{database.log_id}:{position.seq}{place}"


def resolve(database: Database, start: str) -> Position:
    """Where `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago as `-15m` is. Blocks.

    Raises VecError `invalid_cursor`, `foreign_cursor`, or `compacted` for a time that the log does not reach back to. A
    cursor that was trimmed away is noticed when it is read from.
    """
    if start == "beginning":
        return Position(0)
    if start == "now":
        return Position(database.head)
    if (moment_us := time_us(start)) is not None:
        with database.snapshot() as db:
            horizon, horizon_us = events.horizon(db)
            if horizon and moment_us <= horizon_us:
                raise compacted(database, f"the time {start}", horizon)
            return Position(max(horizon, events.seq_at(db, moment_us)))
    return parse(database, start)


def parse(database: Database, text: str) -> Position:
    """The position of a cursor. Raises VecError `invalid_cursor` or `foreign_cursor`."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise VecError(
            Code.INVALID_CURSOR,
            f"{text!r:.80} is no place to start from",
            "give beginning, now, a cursor as an event carries it, an RFC 3339 time, or a time ago like -15m",
        )
    seq, head = int(match[2]), database.head
    if match[1] != database.log_id:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {text} is of another log; this one is {database.log_id}",
            "the store was made anew or restored: start again from the beginning",
        )
    if seq > head:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {text} is past the head of the log, {head}",
            "the store was restored from an older copy: start again from the beginning",
        )
    return Position(seq, None if match[3] is None else int(match[3]))


def compacted(database: Database, what: str, horizon: int) -> VecError:
    """The refusal of a position that was trimmed away; `oldest` is the cursor that all that is left is behind."""
    oldest = cursor(database, Position(horizon))
    return VecError(
        Code.COMPACTED,
        f"{what} was trimmed away; the log begins behind {oldest}",
        "begin with what there is (--on-gap oldest), or with all that is (--on-gap snapshot)",
        oldest=oldest,
    )


def time_us(text: str) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time or a time ago; None for anything else.

    Raises VecError `invalid_cursor` for what looks like a time and is none.
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
        raise VecError(Code.INVALID_CURSOR, f"{text!r:.80} is no RFC 3339 time: {error}") from error
