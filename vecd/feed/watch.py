"""Watches: subscriptions to the log from any position on; and flush, which waits until watches have caught up.

Catch-up and live are one loop: the next batch behind the position comes from the channel if it is there, and from the
store otherwise. The initial snapshot is a position too (positions.py), and is read in the same loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sized
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from ..errors import Code, VecError
from ..store.database import Database
from . import initial_snapshot, positions
from .batches import Encode, EventBatch, bookmark
from .channels import Channel, Channels
from .consumers import Consumers
from .positions import Position
from .run_blocking import RunBlocking
from .selection import EventSelection

#: What a watch does whose position was trimmed away.
ON_GAP: Final = ("fail", "oldest", "snapshot")


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """The options of a watch."""

    selection: EventSelection
    start: str = "now"  # `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago as `-15m`
    follow: bool = True  # wait for more at the head; otherwise end at the head as it was at the start
    until: str | None = None  # end at this cursor (inclusive)
    limit: int | None = None  # end after this number of events
    snapshot: bool = False  # begin with the state, unless `start` is a cursor or the consumer has one
    consumer: str | None = None  # begin at its position
    create: bool = True  # the consumer, if it does not exist; otherwise that is an error
    holder: str = ""  # a readable name, for the error of others that ask for this consumer
    on_gap: str = "fail"


#: Waits until there is room for a batch in memory. What is read then is sent at once.
Admit = Callable[[], Awaitable[None]]


async def _admit() -> None:
    """Admits always."""


class Watches:
    """Creates watches, and knows which are active."""

    def __init__(self, database: Database, channels: Channels, consumers: Consumers, catch_up: RunBlocking) -> None:
        """`catch_up` runs reads for one watch that is behind the head."""
        self.database = database
        self.channels = channels
        self.consumers = consumers
        self.catch_up = catch_up
        self.active: set[Watch] = set()  # those that have begun and not ended

    def make(self, spec: WatchSpec, encode: Encode, now: int, admit: Admit = _admit) -> Watch:
        """A watch that has not begun. `now` is the log's head when the request arrived: the watch must return what the
        same sender writes after it. `admit` is awaited before a batch is read for this watch.

        Raises VecError `invalid_request`, `invalid_cursor`, `foreign_cursor`, or `not_found` for a library that never
        existed.
        """
        self._check(spec)
        stop = None if spec.follow else now
        if spec.until is not None:
            until = positions.parse(self.database, spec.until).seq
            stop = until if stop is None else min(until, stop)
        return Watch(self, spec, encode, now, stop, admit)

    async def flush(self, watch: Watch | None, consumer: str | None) -> str:
        """Waits until everything committed so far was sent to a watch, or to all active ones, or was acknowledged by a
        consumer. Returns the cursor of the head at the call.

        Raises VecError `not_found` for a consumer that does not exist.
        """
        target = self.database.head
        if consumer is not None:
            await self._acknowledged(consumer, target)
        else:
            wanted = self.active.copy() if watch is None else {watch}
            while any(not each.over and not each.has_sent(target) for each in wanted):
                await self.channels.progress.wait()
        return positions.cursor(self.database, Position(target))

    async def _acknowledged(self, consumer: str, seq: int) -> None:
        while True:
            self.channels.heartbeat()  # a consumer with nothing to acknowledge learns how far the log has been read
            generation = self.consumers.acked.generation
            position = await self.consumers.position(consumer)
            if position.label is None and position.seq >= seq:
                return
            await self.consumers.acked.wait(generation)

    def _check(self, spec: WatchSpec) -> None:
        if spec.on_gap not in ON_GAP:
            raise VecError(
                Code.INVALID_REQUEST,
                f"unknown on_gap {spec.on_gap!r:.40}",
                f"one of {', '.join(ON_GAP)}",
                field="on_gap",
            )
        if spec.snapshot and (spec.start == "beginning" or positions.time_us(spec.start) is not None):
            raise VecError(
                Code.INVALID_REQUEST,
                f"a snapshot shows the current state, but the watch begins at {spec.start}",
                "remove one of the two; a cursor within a snapshot resumes that snapshot",
                field="from",
            )
        if spec.selection.libraries is not None:
            catalogue = self.database.catalogue
            ever = {library.name for library in catalogue.by_id.values()} | {"default"}
            ever |= {name for library in catalogue.by_name.values() for name in library.former_names}
            for name in spec.selection.libraries - ever:
                catalogue.find(name)  # raises, naming the nearest


class Watch:
    """One subscription. Iterate over `batches` once."""

    def __init__(
        self, watches: Watches, spec: WatchSpec, encode: Encode, now: int, stop: int | None, admit: Admit
    ) -> None:
        """`stop` is the seq (inclusive) that the watch ends at, None: it follows the log. Watches.make makes it."""
        self._watches = watches
        self._database = watches.database
        self._channels = watches.channels
        self._spec = spec
        self._encode = encode
        self._admit = admit
        self._stop = stop
        self._left = spec.limit
        self._channel: Channel | None = None
        self.begun = False  # where it begins is known: until then it has no cursor
        self.over = False
        self.position = Position(now)  # behind all events that were sent

    def has_sent(self, seq: int) -> bool:
        """Whether all wanted events up to there (inclusive) have been sent."""
        reached = self.reached
        return self.begun and reached.label is None and reached.seq >= seq

    async def batches(self) -> AsyncGenerator[EventBatch, None]:
        """Batches in order, each event once; a batch may have nothing to send. The first says that the watch has begun,
        and where.

        Raises VecError `invalid_cursor`, `foreign_cursor`, `compacted` or `consumer_held`.
        """
        spec, progress = self._spec, self._channels.progress
        with ExitStack() as stack:
            stack.callback(self._end)
            if spec.consumer is not None:
                stack.enter_context(self._watches.consumers.hold(spec.consumer, spec.holder))
            gap = await self._begin()
            self.begun = True
            self._channel = stack.enter_context(self._channels.join(spec.selection, self._encode))
            self._watches.active.add(self)
            yield self._bookmark_here(gap)
            while not self._ended():
                try:
                    batch = await self._next(self._channel)
                except VecError as error:
                    gap = self._skip_gap(error)
                    batch = self._bookmark_here(gap)
                self.position = batch.position
                if self._left is not None:
                    self._left -= batch.count
                yield batch
                progress.notify()

    @property
    def reached(self) -> Position:
        """The position up to which every event was either sent or not wanted."""
        channel = self._channel
        seq, label = self.position
        if label is None and channel is not None and seq >= channel.start and channel.next_after(seq) is None:
            return Position(max(seq, self._channels.seq))
        return self.position

    def _end(self) -> None:
        self.over = True
        self._watches.active.discard(self)
        self._channels.progress.notify()  # a flush need not wait for it any more

    async def _begin(self) -> VecError | None:
        """Finds the position to begin at; returns the error of the one that was asked for, if it was replaced."""
        spec, consumers = self._spec, self._watches.consumers
        gap = kept = None
        if spec.consumer is not None:
            kept = await (consumers.find if spec.create else consumers.position)(spec.consumer)
        if kept is not None:
            self.position = kept  # `start` is for a new consumer: whether the log still has it does not matter
        elif spec.snapshot and spec.start == "now":
            self.position = Position(self.position.seq, 0)
        elif spec.start != "now":
            try:
                self.position = await self._watches.catch_up(positions.resolve, self._database, spec.start)
            except VecError as error:
                gap = self._skip_gap(error)
        if spec.consumer is not None and spec.create:
            self.position = await consumers.find_or_create(spec.consumer, self.position)
        return gap

    def _skip_gap(self, error: VecError) -> VecError:
        """Continues behind what was trimmed away, if the watch is to; otherwise raises the error."""
        if error.code != Code.COMPACTED or self._spec.on_gap == "fail":
            raise error
        oldest = self._spec.on_gap == "oldest"
        self.position = Position(self._database.horizon) if oldest else Position(self._database.head, 0)
        return error

    def _bookmark_here(self, gap: VecError | None) -> EventBatch:
        more = {} if gap is None else {"gap": gap.to_wire()}
        body = bookmark(self._database, self.position, self._encode, **more)
        return EventBatch(self.position.seq, self.position, body=body)

    def _ended(self) -> bool:
        stop = self._stop
        return self._left == 0 or (stop is not None and self.position.label is None and self.position.seq >= stop)

    async def _next(self, channel: Channel) -> EventBatch:
        """What comes behind the position, when it comes; at a heartbeat, how far the log has been read."""
        channels, selection = self._channels, self._spec.selection
        seq, label = self.position
        if label is not None:
            await self._admit()
            return await self._watches.catch_up(
                initial_snapshot.read, self._database, selection, self._encode, self.position, self._left
            )
        if self._stop is not None:
            await self._admit()
            return await channels.read(selection, self._encode, seq, self._stop, self._left)
        while True:
            found = channel.next_after(seq) if seq >= channel.start else channel.start
            if isinstance(found, EventBatch):
                if self._left is None or found.count <= self._left:
                    return found
                found = found.seq
            if found is not None:
                await self._admit()
                return await channels.read(selection, self._encode, seq, found, self._left)
            heartbeats = channels.heartbeats
            await channel.changed.wait()
            if channels.heartbeats != heartbeats and self.reached.seq >= seq and channel.next_after(seq) is None:
                return EventBatch(seq, self.reached, body=self._heartbeat(channel))

    def _heartbeat(self, channel: Channel) -> Sized:
        """Encoded once for all watches that have reached the same place."""
        seq, head = self.reached.seq, self._database.head
        if channel.bookmark is None or channel.bookmark[:2] != (seq, head):
            channel.bookmark = seq, head, bookmark(self._database, self.reached, self._encode)
        return channel.bookmark[2]
