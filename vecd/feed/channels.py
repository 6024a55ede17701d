"""Channels: ring buffers of the newest event batches, one for each selection, filled by one reader of the log.

A watch is a cursor over the log, not a queue: nothing is dropped, nothing grows. Watches with the same selection share
a channel, whose batches are encoded once. A watch at the head waits for the channel's next batch. A watch that has
fallen behind the ring reads the store until it meets the ring again. Both are one loop (watch.py).

One task reads what commits bring, once for all channels, on one thread: a hundred watches with different selections
cost a hundred selections, not a hundred reads. Selections that select the same, though their filters differ, share
their batches. A round has a bound in time and in bytes. Selections that find no space in it, the costliest last, are
read by their own watches, as if these had fallen behind. After each round the reader rests as long as the round took:
with few watches that is nothing, with a thousand it gathers events into fewer, larger batches.

Everything here lives on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from typing import Any

from .. import limits
from ..errors import Code, VecError
from ..store.database import Database
from . import batches
from .batches import Encode, EventBatch
from .broadcast import Broadcast, notify_in_groups
from .run_blocking import RunBlocking
from .selection import EventSelection

log = logging.getLogger("vecd.feed")


class Channel:
    """The newest batches of one selection: each begins where the one before ends, the first behind the seq `start`."""

    def __init__(self, start: int) -> None:
        self.start = start  # exclusive
        self.size_bytes = 0  # of the batches
        self.users = 0
        self.bookmark: tuple[int, int, Sized] | None = None  # the newest: its seq, the head in it, and what is sent
        self.changed = Broadcast()
        self._batches: list[EventBatch] = []
        self._seqs: list[int] = []  # of the batches

    def restart(self, start: int) -> None:
        """Drops all batches: the channel begins behind `start`."""
        self.start, self._batches, self._seqs, self.size_bytes = start, [], [], 0

    def append(self, batch: EventBatch) -> None:
        """Adds the newest batch, and drops the oldest ones beyond limits.RING_BYTES."""
        self._batches.append(batch)
        self._seqs.append(batch.seq)
        self.size_bytes += len(batch.body or ())
        drop, left = 0, self.size_bytes
        while left > limits.RING_BYTES and drop < len(self._batches) - 1:
            left -= len(self._batches[drop].body or ())
            drop += 1
        if drop:
            self.drop(drop)

    @property
    def newest_bytes(self) -> int:
        """The size of the newest batch."""
        return len(self._batches[-1].body or ()) if self._batches else 0

    @property
    def batches(self) -> Sequence[EventBatch]:
        """The oldest first."""
        return self._batches

    def drop(self, count: int = 1) -> None:
        """Drops the oldest batches; a watch that has not had them reads the store."""
        self.size_bytes -= sum(len(batch.body or ()) for batch in self._batches[:count])
        self.start = self._seqs[count - 1]
        del self._batches[:count], self._seqs[:count]

    def next_after(self, seq: int) -> EventBatch | int | None:
        """What follows `seq` (at least `start`): the next batch; or, if `seq` is inside a batch, the seq up to which
        the watch must read the store; or None if there is nothing yet."""
        place = bisect_right(self._seqs, seq)
        if place == len(self._batches):
            return None
        batch = self._batches[place]
        return batch if seq < batch.first else batch.seq


class Channels:
    """All channels, and the tasks that fill them and send heartbeats."""

    def __init__(self, database: Database, catch_up: RunBlocking, live: RunBlocking, heartbeat_s: float) -> None:
        """`catch_up` runs reads for watches that are behind; `live` runs the reads at the head, one at a time."""
        self._database = database
        self._heartbeat_s = heartbeat_s
        self._catch_up = catch_up
        self._live = live
        self.seq = 0  # the log has been read up to here for all channels
        self.heartbeats = 0
        self.progress = Broadcast()  # the log was read on, or a watch has handed something on
        self._committed = asyncio.Event()
        self._channels: dict[tuple[EventSelection, Encode], Channel] = {}
        self._reads: dict[Any, asyncio.Future[EventBatch]] = {}  # reads of the store in progress
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.contextmanager
    def join(self, selection: EventSelection, encode: Encode) -> Iterator[Channel]:
        """The channel of that selection, which is kept filled until the block ends."""
        if not self._channels:
            self.seq = self._database.head
        channel = self._channels.get((selection, encode))
        if channel is None:
            channel = self._channels[selection, encode] = Channel(self.seq)
        channel.users += 1
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._fill_forever()), asyncio.create_task(self._heartbeat_forever())]
        self._committed.set()  # there may have been commits since `seq`
        try:
            yield channel
        finally:
            channel.users -= 1
            if not channel.users:
                del self._channels[selection, encode]

    async def read(
        self, selection: EventSelection, encode: Encode, after: int, stop: int, count: int | None
    ) -> EventBatch:
        """The batch behind the seq `after`, from the store. Equal reads at the same time are made once.

        Raises VecError `compacted`.
        """
        wanted = (selection, encode, after, stop, count)
        reading = self._reads.get(wanted)
        if reading is None:
            reading = asyncio.ensure_future(self._catch_up(batches.read, self._database, *wanted))
            self._reads[wanted] = reading
            reading.add_done_callback(lambda done: self._end_read(wanted, done))
        return await asyncio.shield(reading)

    def _end_read(self, wanted: Any, done: asyncio.Future[EventBatch]) -> None:
        del self._reads[wanted]
        if not done.cancelled():
            done.exception()  # the watches that wanted it may have ended

    def stop(self) -> None:
        """Ends the tasks."""
        for task in self._tasks:
            task.cancel()

    def commit_published(self) -> None:
        """The head has moved."""
        if self._channels:
            self._committed.set()

    def heartbeat(self) -> None:
        """A heartbeat: every watch at the head says how far the log has been read for it."""
        self.heartbeats += 1
        for channel in self._channels.values():
            channel.changed.notify()

    async def _heartbeat_forever(self) -> None:
        """Heartbeats for the channels that have been silent for the whole of the last interval. A watch that came, or
        was sent something, just after a beat waits for two intervals: together they are `heartbeat_s`."""
        seen: dict[int, int] = {}
        while True:
            await asyncio.sleep(self._heartbeat_s / 2)
            self.heartbeats += 1
            silent = [each for each in self._channels.values() if seen.get(id(each)) == each.changed.generation]
            await self._notify(silent)
            seen = {id(each): each.changed.generation for each in self._channels.values()}

    async def _notify(self, channels: list[Channel]) -> None:
        """Wakes the watches that wait there, some at a time, so that requests are answered in between. Those with
        little to send come first."""
        in_order = sorted((channel.newest_bytes, place) for place, channel in enumerate(channels))
        broadcasts = [(channels[place].changed, size) for size, place in in_order]
        await notify_in_groups(broadcasts, limits.FEED_WAKES, limits.FEED_WAKES_BYTES)

    async def _fill_forever(self) -> None:
        while True:
            await self._committed.wait()
            self._committed.clear()  # before reading: a commit during the read sets it again
            while self._channels and self.seq < self._database.head:
                try:
                    await self._fill()
                except Exception as error:  # each watch reads by itself, and gets the error
                    if not (isinstance(error, VecError) and error.code == Code.COMPACTED):
                        log.error("cannot read the log for all watches together", exc_info=error)
                    self._skip_to(self._database.head)

    async def _fill(self) -> None:
        """Reads what commits brought, fills the channels, and rests for as long as that took."""
        reading = list(self._channels.items())
        keys = [key for key, _ in reading]
        seq, found, read_s = await self._live(batches.read_for_all, self._database, keys, self.seq)
        self.seq = seq
        skipped = []
        for (_, channel), its_batches in zip(reading, found, strict=True):
            if its_batches is None:
                channel.restart(seq)
                skipped.append(channel)
            for batch in its_batches or ():
                channel.append(batch)
        self._shrink()
        known = {id(channel) for _, channel in reading}
        for channel in self._channels.values():
            if id(channel) not in known:  # it was made during the read, and lacks what was read
                channel.restart(seq)
        loop = asyncio.get_running_loop()
        started = loop.time()
        grown = [channel for (_, channel), its_batches in zip(reading, found, strict=True) if its_batches]
        restarted = [channel for channel in self._channels.values() if id(channel) not in known]
        await self._notify([*grown, *restarted, *skipped])
        self.progress.notify()
        await asyncio.sleep(0)  # the watches that were woken run first
        took_s = read_s + loop.time() - started
        if took_s > 0.001:
            await asyncio.sleep(min(took_s, limits.FEED_REST_S))

    def _shrink(self) -> None:
        """Drops batches of the largest rings until all rings together hold at most limits.RINGS_BYTES_MAX. The newest
        batch of each goes last: the watches that wait for it have not been woken yet. What several rings hold counts
        once."""
        if sum(channel.size_bytes for channel in self._channels.values()) <= limits.RINGS_BYTES_MAX:
            return
        holders: Counter[int] = Counter()  # rings, by the id of what is sent
        left = 0
        for channel in self._channels.values():
            for batch in channel.batches:
                holders[id(batch.body)] += 1
                left += len(batch.body or ()) if holders[id(batch.body)] == 1 else 0
        by_size = [(-channel.size_bytes, id(channel), channel) for channel in self._channels.values()]
        heapq.heapify(by_size)
        while left > limits.RINGS_BYTES_MAX and by_size:
            _, _, channel = heapq.heappop(by_size)
            body = channel.batches[0].body
            channel.drop()
            holders[id(body)] -= 1
            left -= len(body or ()) if not holders[id(body)] else 0
            if channel.size_bytes:
                heapq.heappush(by_size, (-channel.size_bytes, id(channel), channel))

    def _skip_to(self, seq: int) -> None:
        """Continues after `seq`; each watch reads what is before it from the store."""
        self.seq = seq
        for channel in self._channels.values():
            channel.restart(seq)
            channel.changed.notify()
