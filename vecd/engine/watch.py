"""The event feed. A subscription is a cursor over the log, not a queue: nothing is dropped, nothing grows.

Catch-up and live are one loop: read on from the cursor, hand it on, and when there is nothing more wait for a commit.
A cursor is `<log id>:<seq>`, the last event seen; what follows it begins with the event behind it.
"""

from __future__ import annotations

import asyncio
import datetime
import fnmatch
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from .. import limits
from ..errors import Code, VecError, nearest
from ..store import events
from .core import Engine

_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhdw])")
_AGO_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Spec:
    """What a watcher wants."""

    start: str = "now"  # `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago as `-15m`
    libraries: frozenset[str] | None = None  # None: all
    types: tuple[str, ...] = ()  # names or globs; (): all
    follow: bool = True  # wait for more at the head; otherwise end at the head as it was at the start
    limit: int | None = None  # end after so many events
    timeout_s: float | None = None  # end after so long


@dataclass(slots=True)
class Page:
    """Events that follow each other, and the seq up to which the log has been read for them (inclusive)."""

    events: list[dict[str, Any]]
    seq: int


async def watch(engine: Engine, spec: Spec) -> AsyncGenerator[Page, None]:
    """Pages of events behind `spec.start`, in order, each once; a page may be empty but for where it has read to, and
    the first always is.

    Raises TimeoutError after `spec.timeout_s`, and VecError `invalid_cursor`, `foreign_cursor`, `invalid_request`, or
    `not_found` for a library that never was.
    """
    _check(engine, spec)
    # `now` is when the request arrived: what the same sender writes behind it must be in the feed.
    seq = engine.database.head if spec.start == "now" else await engine.follow(_start, engine, spec.start)
    stop = None if spec.follow else engine.database.head
    deadline = None if spec.timeout_s is None else asyncio.get_running_loop().time() + spec.timeout_s
    left = spec.limit
    woken = engine.feed.join()
    try:
        yield Page([], seq)
        while True:
            woken.clear()  # before reading: a commit during the read wakes us again
            page = await engine.follow(_read, engine, spec, seq, left, stop)
            if page.seq > seq:
                seq = page.seq
                yield page
                if left is not None:
                    left -= len(page.events)
            if (stop is not None and seq >= stop) or left == 0:
                return
            patience = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if patience is not None and patience <= 0:
                raise TimeoutError
            if engine.database.head <= seq:
                await asyncio.wait_for(woken.wait(), patience)
    finally:
        engine.feed.leave(woken)


def _read(engine: Engine, spec: Spec, after: int, count: int | None, stop: int | None) -> Page:
    """Up to `count` wanted events behind `after` (exclusive) and not past `stop` (inclusive). Blocks."""
    head = engine.database.head  # first: the catalogue is at least as new, and knows every library up to it
    stop = head if stop is None else min(stop, head)
    libraries = engine.database.catalogue.by_id
    found: list[dict[str, Any]] = []
    with engine.database.snapshot() as db:
        rows = events.read(db, after, limits.EVENTS_PAGE)
    seq = after
    for row in rows:
        if row.seq > stop:
            break
        if found and len(found) + row.last_seq - row.seq >= limits.EVENTS_PAGE:
            break
        library = libraries.get(row.library_id) if row.library_id is not None else None
        name = library.name if library is not None else None
        if (spec.libraries is None or name in spec.libraries) and any(_wanted(spec, kind) for kind in row.kinds):
            for event in events.expand(row, name):
                if event["seq"] > after and _wanted(spec, event["type"]):
                    found.append(event)
                    if count is not None and len(found) == count:
                        return Page(found, event["seq"])
        seq = row.last_seq
    return Page(found, seq)


def _wanted(spec: Spec, kind: str) -> bool:
    return not spec.types or any(fnmatch.fnmatchcase(kind, pattern) for pattern in spec.types)


def _check(engine: Engine, spec: Spec) -> None:
    for pattern in spec.types:
        if not fnmatch.filter(events.ALL_TYPES, pattern):
            close = nearest(pattern, events.ALL_TYPES)
            hint = f"did you mean {close!r}?" if close else f"types: {', '.join(events.ALL_TYPES)}"
            raise VecError(Code.INVALID_REQUEST, f"no event is of type {pattern!r}", hint, field="types")
    if spec.libraries is not None:
        ever = {library.name for library in engine.database.catalogue.by_id.values()} | {"default"}
        for name in spec.libraries - ever:
            engine.database.catalogue.find(name)  # raises, naming the nearest


def _start(engine: Engine, start: str) -> int:
    """The seq behind which a watcher begins (exclusive)."""
    if start == "beginning":
        return 0
    if (moment_us := _time_us(start)) is not None:
        with engine.database.snapshot() as db:
            return events.seq_at(db, moment_us)
    log_id, colon, digits = start.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,19}", digits) or not re.fullmatch("[0-9a-f]+", log_id):
        raise VecError(
            Code.INVALID_CURSOR,
            f"{start!r:.80} is no place to start from",
            "give beginning, now, a cursor as an event carries it, an RFC 3339 time, or a time ago like -15m",
        )
    seq, head = int(digits), engine.database.head
    if log_id != engine.database.log_id:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {start} is of another log; this one is {engine.database.log_id}",
            "the store was made anew or restored: start again from the beginning",
        )
    if seq > head:
        raise VecError(
            Code.FOREIGN_CURSOR,
            f"the cursor {start} is past the head of the log, {head}",
            "the store was restored from an older copy: start again from the beginning",
        )
    return seq


def _time_us(text: str) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time or a time ago; None for anything else."""
    if match := _AGO.fullmatch(text):
        return max(0, int((time.time() - min(float(match[1]), 1e9) * _AGO_S[match[2]]) * 1_000_000))
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        # A time without a zone is the machine's.
        return max(0, int((moment if moment.tzinfo else moment.astimezone()).timestamp() * 1_000_000))
    except (ValueError, OverflowError) as error:
        raise VecError(Code.INVALID_CURSOR, f"{text!r:.80} is no RFC 3339 time: {error}") from error
