"""watch: the log from any position, as it happens; flush: a barrier for those who watch.

Catch-up and live are one loop: the next page behind the position, from the channel (feed.py) if it is there and from
the store otherwise. A snapshot is a position too (positions.py), and is gone through in the same loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sized
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import Code, VecError
from . import batches, positions
from .batches import Encode, EventBatch
from .channels import Channel
from .positions import Position
from .selection import EventSelection

if TYPE_CHECKING:
    from ..engine.engine import Engine

#: What is done about a position that was trimmed away.
ON_GAP: Final = ("fail", "oldest", "snapshot")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a watcher wants."""

    view: EventSelection
    start: str = "now"  # `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago as `-15m`
    follow: bool = True  # wait for more at the head; otherwise end at the head as it was at the start
    until: str | None = None  # end at this cursor (inclusive)
    limit: int | None = None  # end after so many events
    snapshot: bool = False  # begin with the state, unless `start` is a cursor or the consumer has one
    consumer: str | None = None  # begin where it is, or make it
    holder: str = ""  # who watches, for others who want the same consumer
    on_gap: str = "fail"


#: Waits until a page may be read and held. What is read is given out at once.
Room = Callable[[], Awaitable[None]]


async def _room() -> None:
    """Always there."""


class Watch:
    """A subscription. Iterate over `pages` once."""

    def __init__(self, engine: Engine, spec: Spec, encode: Encode, now: int, room: Room = _room) -> None:
        """`now` is the log's head when the request arrived: what the same sender writes behind it must be in the feed.
        `room` is awaited before a page is read for this watch.

        Raises VecError `invalid_request`, `invalid_cursor`, `foreign_cursor`, or `not_found` for a library that
        never was."""
        self._engine = engine
        self._spec = spec
        self._encode = encode
        self._room = room
        self._left = spec.limit
        self._channel: Channel | None = None
        self.begun = False  # where it begins is known: until then it has no cursor
        self.over = False
        self.position = Position(now)  # behind all that was handed on
        _check(engine, spec)
        self._stop = None if spec.follow else now
        if spec.until is not None:
            until = positions.parse(engine.database, spec.until).seq
            self._stop = until if self._stop is None else min(until, self._stop)

    def has(self, seq: int) -> bool:
        """Whether all that was wanted up to there (inclusive) has been handed on."""
        reached = self.reached
        return self.begun and reached.label is None and reached.seq >= seq

    async def batches(self) -> AsyncGenerator[EventBatch, None]:
        """Pages in order, each event once; a page may have nothing to send. The first tells that the watch stands, and
        where.

        Raises VecError `invalid_cursor`, `foreign_cursor`, `compacted` or `consumer_held`.
        """
        engine, spec, feed = self._engine, self._spec, self._engine.feed
        with ExitStack() as stack:
            stack.callback(self._end)
            if spec.consumer is not None:
                stack.enter_context(engine.consumers.hold(spec.consumer, spec.holder))
            gap = await self._begin()
            self.begun = True
            self._channel = stack.enter_context(feed.join(spec.view, self._encode))
            stack.enter_context(feed.counted(self))
            yield self._standing(gap)
            while not self._ended():
                try:
                    page = await self._next(self._channel)
                except VecError as error:
                    gap = self._gap(error)
                    page = self._standing(gap)
                self.position = page.position
                if self._left is not None:
                    self._left -= page.count
                yield page
                feed.moved.beat()

    @property
    def reached(self) -> Position:
        """Behind all that was wanted and has been handed on, and all that was not wanted."""
        channel, feed = self._channel, self._engine.feed
        seq, label = self.position
        if label is None and channel is not None and seq >= channel.start and channel.behind(seq) is None:
            return Position(max(seq, feed.seq))
        return self.position

    def _end(self) -> None:
        self.over = True
        self._engine.feed.moved.beat()  # nobody need wait for it any more

    async def _begin(self) -> VecError | None:
        """Finds the place to begin at; returns what was wrong with the one that was asked for, if it was mended."""
        engine, spec = self._engine, self._spec
        gap = there = None
        if spec.consumer is not None:
            there = await engine.read(engine.consumers.find, spec.consumer)
        if there is not None:
            self.position = there  # `start` is for a new one: whether it is still there does not matter
        elif spec.snapshot and spec.start == "now":
            self.position = Position(self.position.seq, 0)
        elif spec.start != "now":
            try:
                self.position = await engine.follow(positions.resolve, engine.database, spec.start)
            except VecError as error:
                gap = self._gap(error)
        if spec.consumer is not None:
            self.position = await engine.consumers.enter(spec.consumer, self.position)
        return gap

    def _gap(self, error: VecError) -> VecError:
        """Goes on behind a gap, if that is wanted; raises the error otherwise."""
        if error.code != Code.COMPACTED or self._spec.on_gap == "fail":
            raise error
        database = self._engine.database
        oldest = self._spec.on_gap == "oldest"
        self.position = Position(database.horizon) if oldest else Position(database.head, 0)
        return error

    def _standing(self, gap: VecError | None) -> EventBatch:
        more = {} if gap is None else {"gap": gap.to_wire()}
        body = batches.bookmark(self._engine.database, self.position, self._encode, **more)
        return EventBatch(self.position.seq, self.position, body=body)

    def _ended(self) -> bool:
        stop = self._stop
        return self._left == 0 or (stop is not None and self.position.label is None and self.position.seq >= stop)

    async def _next(self, channel: Channel) -> EventBatch:
        """What comes behind the position, when it comes; at a tick of the feed, how far the log has been read."""
        engine, feed, view = self._engine, self._engine.feed, self._spec.view
        seq, label = self.position
        if label is not None:
            await self._room()
            return await engine.follow(
                batches.read_state, engine.database, view, self._encode, self.position, self._left
            )
        if self._stop is not None:
            await self._room()
            return await feed.read(view, self._encode, seq, self._stop, self._left)
        while True:
            found = channel.behind(seq) if seq >= channel.start else channel.start
            if isinstance(found, EventBatch):
                if self._left is None or found.count <= self._left:
                    return found
                found = found.seq
            if found is not None:
                await self._room()
                return await feed.read(view, self._encode, seq, found, self._left)
            ticks = feed.ticks
            await channel.grown.wait()
            if feed.ticks != ticks and self.reached.seq >= seq and channel.behind(seq) is None:
                return EventBatch(seq, self.reached, body=self._bookmark(channel))

    def _bookmark(self, channel: Channel) -> Sized:
        """Encoded once for all who have reached the same place."""
        seq, head = self.reached.seq, self._engine.database.head
        if channel.bookmark is None or channel.bookmark[:2] != (seq, head):
            body = batches.bookmark(self._engine.database, self.reached, self._encode)
            channel.bookmark = seq, head, body
        return channel.bookmark[2]


async def flush(engine: Engine, watch: Watch | None, consumer: str | None) -> str:
    """Waits until all that is committed now has been handed to a watch, or to all there are now; or until a consumer
    has acknowledged it. Returns the cursor of that.

    Raises VecError `not_found` for a consumer that is not there.
    """
    target = engine.database.head
    if consumer is not None:
        while True:
            engine.feed.tick()  # who has nothing to acknowledge hears how far the log has been read
            beats = engine.consumers.acked.beats
            position = await engine.read(engine.consumers.position, consumer)
            if position.label is None and position.seq >= target:
                break
            await engine.consumers.acked.wait(beats)
    else:
        wanted = engine.feed.watches.copy() if watch is None else {watch}
        while any(not each.over and not each.has(target) for each in wanted):
            await engine.feed.moved.wait()
    return positions.cursor(engine.database, Position(target))


def _check(engine: Engine, spec: Spec) -> None:
    if spec.on_gap not in ON_GAP:
        raise VecError(
            Code.INVALID_REQUEST,
            f"there is no on_gap {spec.on_gap!r:.40}",
            f"one of {', '.join(ON_GAP)}",
            field="on_gap",
        )
    if spec.snapshot and (spec.start == "beginning" or positions.time_us(spec.start) is not None):
        raise VecError(
            Code.INVALID_REQUEST,
            f"a snapshot is of now, and the watch is to begin at {spec.start}",
            "leave out one of the two; with a cursor, the snapshot that it is of goes on",
            field="from",
        )
    if spec.view.libraries is not None:
        ever = {library.name for library in engine.database.catalogue.by_id.values()} | {"default"}
        for name in spec.view.libraries - ever:
            engine.database.catalogue.find(name)  # raises, naming the nearest
