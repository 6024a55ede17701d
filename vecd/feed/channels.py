"""The feed: hands the log on to all who watch, as it grows.

A subscription is a cursor over the log, not a queue: nothing is dropped, nothing grows. Watchers with the same view
share a channel, a ring of the newest pages, encoded once. Whoever is at the head waits for the channel's next page;
whoever has fallen behind the ring reads the store until it meets the ring again. Catch-up and live are one loop
(watch.py), and it cannot tell the two apart.

One pump reads what commits bring, once for all channels, on one thread; so a hundred watchers with views of their own
cost a hundred selections, not a hundred readings. What it makes at once has a bound in time and in bytes: views that
find no room, the costliest last, are read by their own watchers, as if these had fallen behind. The pump rests after
each round as long as the round took: with few watchers that is nothing, with a thousand it gathers events into fewer,
larger pages.

Everything here lives on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any

from .. import limits
from ..errors import Code, VecError
from ..store.database import Database
from .batches import Encode, EventBatch, read, read_for_all
from .broadcast import Broadcast
from .selection import EventSelection

if TYPE_CHECKING:
    from .watch import Watch

#: Has a function that blocks run off the loop.
Follow = Callable[..., Awaitable[Any]]

log = logging.getLogger("vecd.feed")


class Channel:
    """The newest pages of one view: contiguous, each behind the one before, from `start` on (exclusive)."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.size_bytes = 0  # of the pages
        self.users = 0
        self.bookmark: tuple[int, int, Sized] | None = None  # the newest: its seq, the head in it, and what is sent
        self.grown = Broadcast()
        self._pages: list[EventBatch] = []
        self._seqs: list[int] = []  # of the pages

    def restart(self, start: int) -> None:
        """Nothing before `start` is known here."""
        self.start, self._pages, self._seqs, self.size_bytes = start, [], [], 0

    def append(self, page: EventBatch) -> None:
        self._pages.append(page)
        self._seqs.append(page.seq)
        self.size_bytes += len(page.body or ())
        drop, left = 0, self.size_bytes
        while left > limits.RING_BYTES and drop < len(self._pages) - 1:
            left -= len(self._pages[drop].body or ())
            drop += 1
        if drop:
            self.drop(drop)

    def drop(self, count: int = 1) -> None:
        """Forgets the oldest pages; who has not had them reads them from the store."""
        self.size_bytes -= sum(len(page.body or ()) for page in self._pages[:count])
        self.start = self._seqs[count - 1]
        del self._pages[:count], self._seqs[:count]

    def behind(self, seq: int) -> EventBatch | int | None:
        """The page that a watcher gets next who has seen everything up to `seq`, which is not before `start`; or, for
        one in the middle of a page, up to where it must read by itself; None if there is nothing more here."""
        place = bisect_right(self._seqs, seq)
        if place == len(self._pages):
            return None
        page = self._pages[place]
        return page if seq < page.first else page.seq


class Feed:
    """The channels, and those who watch."""

    def __init__(self, database: Database, follow: Follow, pump: Follow) -> None:
        self._database = database
        self._follow = follow
        self._pump_reads = pump
        self.seq = 0  # the log has been read up to here for all channels
        self.ticks = 0
        self.moved = Broadcast()  # something was read or handed on
        self._committed = asyncio.Event()
        self._channels: dict[tuple[EventSelection, Encode], Channel] = {}
        self._readings: dict[Any, asyncio.Future[EventBatch]] = {}  # from the store, that are going on
        self._tasks: list[asyncio.Task[None]] = []
        self.watches: set[Watch] = set()

    # --- those who watch --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def join(self, view: EventSelection, encode: Encode) -> Iterator[Channel]:
        """The channel of that view, until the block ends."""
        if not self._channels:
            self.seq = self._database.head
        channel = self._channels.get((view, encode))
        if channel is None:
            channel = self._channels[view, encode] = Channel(self.seq)
        channel.users += 1
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._tick())]
        self._committed.set()  # the pump looks what has come since
        try:
            yield channel
        finally:
            channel.users -= 1
            if not channel.users:
                del self._channels[view, encode]

    @contextlib.contextmanager
    def counted(self, watch: Watch) -> Iterator[None]:
        """Among `watches` until the block ends."""
        self.watches.add(watch)
        try:
            yield
        finally:
            self.watches.discard(watch)

    async def read(self, view: EventSelection, encode: Encode, after: int, stop: int, count: int | None) -> EventBatch:
        """The page behind `after`, from the store; those who want the same at the same time share one reading.

        Raises VecError `compacted`.
        """
        wanted = (view, encode, after, stop, count)
        reading = self._readings.get(wanted)
        if reading is None:
            reading = asyncio.ensure_future(self._follow(read, self._database, *wanted))
            self._readings[wanted] = reading
            reading.add_done_callback(lambda done: self._read(wanted, done))
        return await asyncio.shield(reading)

    def _read(self, wanted: Any, done: asyncio.Future[EventBatch]) -> None:
        del self._readings[wanted]
        if not done.cancelled():
            done.exception()  # whoever wanted it may have gone

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # --- the pump ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There has been a commit."""
        if self._channels:
            self._committed.set()

    def tick(self) -> None:
        """Has every watch at the head say how far it is."""
        self.ticks += 1
        for channel in self._channels.values():
            channel.grown.beat()

    async def _tick(self) -> None:
        """The same for channels that are silent: those that were so for the whole of the last interval. A watch that
        came, or heard something, just behind a tick waits for two intervals: together they are HEARTBEAT_S."""
        beats: dict[int, int] = {}
        while True:
            await asyncio.sleep(limits.HEARTBEAT_S / 2)
            self.ticks += 1
            await self._beat([each for each in self._channels.values() if beats.get(id(each)) == each.grown.beats])
            beats = {id(each): each.grown.beats for each in self._channels.values()}

    async def _beat(self, channels: list[Channel]) -> None:
        """Wakes those who wait there, some at a time: others' requests are answered in between."""
        for channel in channels:
            await channel.grown.beat_gently(limits.FEED_WAKES)

    async def _pump(self) -> None:
        while True:
            await self._committed.wait()
            self._committed.clear()  # before reading: a commit during the read wakes us again
            while self._channels and self.seq < self._database.head:
                try:
                    await self._round()
                except Exception as error:  # whoever waits reads by itself, and is told what is wrong
                    if not (isinstance(error, VecError) and error.code == Code.COMPACTED):
                        log.error("the log could not be read for those who watch", exc_info=error)
                    self._skip_to(self._database.head)

    async def _round(self) -> None:
        """Reads on, hands it to the channels, and rests as long as that kept the interpreter busy."""
        reading = list(self._channels.items())
        seq, pages, read_s = await self._pump_reads(read_for_all, self._database, [key for key, _ in reading], self.seq)
        self.seq = seq
        skipped = []
        for (_, channel), its_pages in zip(reading, pages, strict=True):
            if its_pages is None:
                channel.restart(seq)
                skipped.append(channel)
            for page in its_pages or ():
                channel.append(page)
        self._shrink()
        known = {id(channel) for _, channel in reading}
        for channel in self._channels.values():
            if id(channel) not in known:  # it came during the reading, and lacks what was read
                channel.restart(seq)
        loop = asyncio.get_running_loop()
        started = loop.time()
        grown = [channel for (_, channel), its_pages in zip(reading, pages, strict=True) if its_pages]
        restarted = [channel for channel in self._channels.values() if id(channel) not in known]
        await self._beat([*grown, *restarted, *skipped])
        self.moved.beat()
        await asyncio.sleep(0)  # behind all who were woken
        took_s = read_s + loop.time() - started
        if took_s > 0.001:
            await asyncio.sleep(min(took_s, limits.FEED_REST_S))

    def _shrink(self) -> None:
        """Has the largest rings forget pages until all together are small enough. The newest page of each goes last:
        whoever waits for it has not been woken yet."""
        left = sum(channel.size_bytes for channel in self._channels.values())
        if left <= limits.RINGS_BYTES_MAX:
            return
        by_size = [(-channel.size_bytes, id(channel), channel) for channel in self._channels.values()]
        heapq.heapify(by_size)
        while left > limits.RINGS_BYTES_MAX and by_size:
            _, _, channel = heapq.heappop(by_size)
            before = channel.size_bytes
            channel.drop()
            left -= before - channel.size_bytes
            if channel.size_bytes:
                heapq.heappush(by_size, (-channel.size_bytes, id(channel), channel))

    def _skip_to(self, seq: int) -> None:
        """Goes on there; what lies between, everybody reads from the store."""
        self.seq = seq
        for channel in self._channels.values():
            channel.restart(seq)
            channel.grown.beat()
