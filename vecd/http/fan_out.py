"""Fan-out of the log to many clients: those that watch the same thing share one watch of the daemon and one encoding.

A Channel is one watch of the daemon, for one selection, and a ring of its last batches, encoded. A Subscription is a
position in the log. If the position is in the ring, its batches come from there; otherwise they are read from the
daemon, a page at a time, on a connection of the pool, until the ring is reached. So a slow subscriber is a slow
watcher: it holds a page and a position, no connection and no queue, and nothing is ever dropped.

A subscription for a consumer shares nothing, because a consumer has one holder: it has a watch on a connection of its
own, which is read as the subscriber reads.

When the daemon is lost, subscriptions stay, and continue from their positions. A daemon that died is started again; one
that was stopped on purpose is waited for. When the gateway stops, subscriptions deliver no more, and raise
`shutting_down`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, Final

from .. import limits
from ..backoff import pause_s
from ..client.aio import AsyncClient, AsyncPending
from ..data_lock import was_stopped
from ..errors import Code, VecError
from ..settings import Settings
from ..wire.messages import ReplyMessage
from .daemon_pool import DaemonPool
from .event_json import Event

#: Pauses between attempts to reach a daemon that is away.
_PAUSE_S: Final = 0.05
_PAUSE_S_MAX: Final = 1.0
#: Watches of one connection: fewer than the daemon's bound, 1,024.
_WATCHES_MAX: Final = 1_000
#: Approximate bytes of an event in memory, besides its JSON.
_EVENT_BYTES: Final = 600

#: What means that the daemon is away for now.
_AWAY: Final = frozenset(
    (
        Code.CONNECTION_LOST, Code.SHUTTING_DOWN, Code.STALLED, Code.NO_DAEMON, Code.DAEMON_FAILED, Code.BUSY,
        Code.TIMEOUT,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events, and how much of each. Equal selections share a channel."""

    libraries: tuple[str, ...] = ()  # empty: all
    types: tuple[str, ...] = ()  # types or globs; empty: all
    where: tuple[str, ...] = ()
    payload: bool = False
    replaced: bool = True
    vectors: bool = False

    def fields(self) -> dict[str, Any]:
        """The fields of the daemon's `watch`."""
        return {
            "libraries": list(self.libraries) or None,
            "types": list(self.types) or None,
            "where": list(self.where) or None,
            "payload": self.payload,
            "replaced": self.replaced,
            "vectors": self.vectors,
        }


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins, and as whom."""

    position: str = "now"  # `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago as `-15m`
    snapshot: bool = False  # begin with the state, unless `position` is a cursor
    on_gap: str = "fail"  # what to do if the position was trimmed: fail, oldest or snapshot
    consumer: str | None = None


_NOW: Final = Start()


class Batch:
    """Events that arrived together, in order, and the position behind them. Without events: a heartbeat, which says how
    far the log has been read."""

    def __init__(
        self, events: tuple[Event, ...], cursor: str, after: int = 0, head: int = 0, gap: VecError | None = None
    ) -> None:
        self.events = events
        self.cursor = cursor
        self.after = after  # seq: the batch has what is behind it
        self.seq = seq_of(cursor)  # up to there, inclusive
        self.head = head  # the log's last event, as far as known
        self.gap = gap  # history that was lost before the events, and `on_gap` continued behind it

    @cached_property
    def sse(self) -> bytes:
        """The events as server-sent events."""
        return b"".join([event.sse for event in self.events])

    @property
    def size(self) -> int:
        """Approximate bytes in memory."""
        return sum(3 * len(event.data) + _EVENT_BYTES for event in self.events)

    def behind(self, seq: int) -> Batch:
        """What of it comes behind the seq (exclusive)."""
        if seq <= self.after:
            return self
        return Batch(tuple(each for each in self.events if each.seq > seq), self.cursor, seq, self.head)


def seq_of(cursor: str) -> int:
    """The seq of a cursor that the daemon has sent."""
    return int(cursor.partition(":")[2].partition("@")[0])


def batch_of(reply: ReplyMessage, after: int = 0) -> Batch:
    """The batch of one message of a watch."""
    cursor, gap = str(reply.extra["cursor"]), reply.extra.get("gap")
    events: list[dict[str, Any]] = reply.body
    if events and events[0]["type"].startswith("snapshot."):
        last = len(events) - 1
        made = tuple(Event(each, cursor if place == last else None) for place, each in enumerate(events))
    else:
        log = cursor.partition(":")[0]
        made = tuple(Event(each, f"{log}:{each['seq']}") for each in events)
    lost = None if gap is None else VecError.from_wire(gap)
    return Batch(made, cursor, after, int(reply.extra["head"]), lost)


class FanOut:
    """All subscriptions of a gateway. All of it runs on one event loop."""

    def __init__(self, pool: DaemonPool, settings: Settings) -> None:
        self.pool = pool
        self._settings = settings
        self._channels: dict[Selection, Channel] = {}
        self._clients: list[tuple[AsyncClient, set[Channel]]] = []  # that channels share
        self._connecting = asyncio.Lock()
        self._catch_ups = asyncio.Semaphore(limits.CATCH_UPS)
        self._ring_bytes = 0
        self._wakes: set[asyncio.Future[None]] = set()
        self.subscriptions: set[Subscription] = set()
        self.writers: set[asyncio.Task[None]] = set()  # that send events to clients
        self.stopped = False

    async def subscribe(self, selection: Selection, start: Start = _NOW, *, follow: bool = True) -> Subscription:
        """A subscription that has begun: what is committed from now on will be delivered. Without `follow` it ends at
        the head of the log.

        Raises the VecError with which the daemon refuses it: `invalid_filter`, `invalid_cursor`, `foreign_cursor`,
        `compacted`, `consumer_held`, `not_found` …, or `no_daemon` and others if there is none.
        """
        self.check()
        kind = ConsumerSubscription if start.consumer is not None else SharedSubscription
        subscription = kind(self, selection, start, follow)
        self.subscriptions.add(subscription)
        try:
            await self._begin(subscription)
        except BaseException:
            subscription.close()
            raise
        return subscription

    async def _begin(self, subscription: Subscription) -> None:
        """A daemon that is being restarted is waited for: EventSource does not try again after an error."""
        loop = asyncio.get_running_loop()
        until, failures, spawn = loop.time() + limits.SUBSCRIBE_S, 0, True
        while True:
            try:
                await subscription.begin(spawn)
                return
            except VecError as error:
                if error.code not in (Code.CONNECTION_LOST, Code.SHUTTING_DOWN, Code.NO_DAEMON):
                    raise
                if loop.time() > until or (spawn and error.code == Code.NO_DAEMON):
                    raise
                spawn = await self.may_start_daemon(error)
            failures += 1
            await self.pause(pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
            self.check()

    def stop(self) -> None:
        """Ends all subscriptions: each raises `shutting_down`."""
        self.stopped = True
        for channel in self._channels.values():
            channel.wake()
        for each in list(self.subscriptions):
            each.stop()
        for future in self._wakes:
            if not future.done():
                future.set_result(None)
        asyncio.get_running_loop().call_later(limits.STREAM_END_S, self._give_up_writers)

    def _give_up_writers(self) -> None:
        """Clients that do not read do not get their last event."""
        for task in self.writers:
            task.cancel()

    async def close(self) -> None:
        """Closes the connections, after `stop`."""
        for channel in list(self._channels.values()):
            await channel.close()
        for client, _ in self._clients:
            client.close()

    def check(self) -> None:
        """Raises VecError `shutting_down` if the gateway stops."""
        if self.stopped:
            raise VecError(Code.SHUTTING_DOWN, "the gateway is stopping", "reconnect, and resume from the last cursor")

    # --- the daemon, while it comes and goes ----------------------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        """Waits, or until the gateway stops."""
        if self.stopped:
            return
        future = asyncio.get_running_loop().create_future()
        self._wakes.add(future)
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            self._wakes.discard(future)

    async def may_start_daemon(self, error: VecError) -> bool:
        """Whether a daemon that ended like this is to be started again: not if it was stopped on purpose."""
        return error.code != Code.SHUTTING_DOWN and not await asyncio.to_thread(was_stopped, self._settings)

    async def shared_client(self, channel: Channel, spawn: bool) -> AsyncClient:
        """A connection for the watch of a channel. It is always read, so channels can share it. Raises VecError."""
        async with self._connecting:
            self._clients = [each for each in self._clients if each[0].lost is None]
            for client, users in self._clients:
                if len(users) < _WATCHES_MAX:
                    users.add(channel)
                    return client
            client = await self.pool.connect(spawn=spawn)
            self._clients.append((client, {channel}))
            return client

    def release_client(self, channel: Channel) -> None:
        """The channel does not use its connection any more."""
        for client, users in self._clients:
            users.discard(channel)
            if not users:
                client.close()
        self._clients = [each for each in self._clients if each[1]]

    async def page(self, selection: Selection, start: Start, spawn: bool = True) -> Page:
        """What follows a position, up to the head or the page's bounds. Raises VecError."""
        async with self._catch_ups, self.pool.connection(spawn=spawn) as client:
            pending = client.submit(
                "watch", **{"from": start.position}, snapshot=start.snapshot, on_gap=start.on_gap, follow=False,
                limit=limits.CATCH_UP_EVENTS, **selection.fields(),
            )  # fmt: skip
            batches: list[Batch] = []
            size = 0
            while size < limits.CATCH_UP_BYTES:  # the rest is read when this has been delivered
                reply = await pending.next()
                assert reply is not None
                if reply.kind != "items":
                    if reply.body.get("reason") == "shutting_down":
                        raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
                    return Page(batches, str(reply.body["cursor"]))
                batches.append(batch_of(reply))
                size += batches[-1].size
            return Page(batches, batches[-1].cursor)

    # --- channels -------------------------------------------------------------------------------------------------

    def channel(self, selection: Selection, position: str) -> Channel:
        """The channel of a selection; a new one begins at `position`, a cursor. The caller leaves it at the end."""
        found = self._channels.get(selection)
        if found is None or found.error is not None:
            found = self._channels[selection] = Channel(self, selection, position)
        found.users += 1
        return found

    def leave(self, channel: Channel) -> None:
        """One subscription less; the last one closes the channel."""
        channel.users -= 1
        if channel.users == 0:
            if self._channels.get(channel.selection) is channel:
                del self._channels[channel.selection]
            channel.cancel()

    def account(self, change: int) -> None:
        """Rings have grown by `change` bytes, or shrunk. The largest ring is cut if all together are too large."""
        self._ring_bytes += change
        while self._ring_bytes > limits.RINGS_BYTES_MAX:
            largest = max(self._channels.values(), key=lambda each: each.ring_bytes)
            if not largest.ring:
                break
            largest.evict()


@dataclass(slots=True)
class Page:
    """Batches that were read for one subscription."""

    batches: list[Batch]
    cursor: str  # behind them


class Channel:
    """One watch of the daemon, for all subscriptions with the same selection."""

    def __init__(self, owner: FanOut, selection: Selection, position: str) -> None:
        self._owner = owner
        self.selection = selection
        self.cursor = position  # read up to there
        self.start = seq_of(position)  # the ring has what is behind it
        self.ring: deque[Batch] = deque()
        self.ring_bytes = 0
        self.first = 0  # the number of the oldest batch of the ring
        self.users = 0
        self.beats = 0  # heartbeats so far
        self.error: VecError | None = None  # why it has ended
        self._joined: tuple[int, int, Batch] | None = None  # the last answer of `next_from`, and its numbers
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def end(self) -> int:
        """The number of the batch that comes next."""
        return self.first + len(self.ring)

    def number_behind(self, seq: int) -> int:
        """The number of the first batch with events behind the seq; the ring must reach back to it."""
        return self.first + bisect_right(self.ring, seq, key=lambda batch: batch.seq)

    def next_from(self, number: int) -> tuple[int, Batch]:
        """What the ring has from that batch on, up to limits.STREAM_PIECE_BYTES or one batch, as one; and the number
        behind it. So a subscriber that is late pays for one piece, not for each batch, and catches up. Subscribers are
        late together, so the last answer is kept for the next one."""
        if self._joined is None or self._joined[0] != number or self._joined[1] != self.end:
            self._joined = number, self.end, self._join(number)
        batch = self._joined[2]
        return self.number_behind(batch.seq), batch

    def _join(self, number: int) -> Batch:
        first = self.ring[number - self.first]
        found, size = [first], len(first.sse)
        for batch in islice(self.ring, number + 1 - self.first, None):
            size += len(batch.sse)
            if size > limits.STREAM_PIECE_BYTES:
                break
            found.append(batch)
        if len(found) == 1:
            return first
        last = found[-1]
        joined = Batch(tuple(chain.from_iterable(each.events for each in found)), last.cursor, first.after, last.head)
        joined.sse = b"".join([each.sse for each in found])
        return joined

    async def changed(self) -> None:
        """Waits for the next batch, heartbeat or end."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # its task may have been cancelled
                future.set_result(None)

    def evict(self) -> None:
        """Drops the oldest batch of the ring."""
        batch = self.ring.popleft()
        self.first += 1
        self.start = batch.seq
        self._count(-batch.size)

    def cancel(self) -> None:
        """Nobody uses it any more."""
        self._task.cancel()
        self._count(-self.ring_bytes)
        self.ring.clear()
        self._joined = None

    async def close(self) -> None:
        self.cancel()
        await asyncio.wait((self._task,))

    def _count(self, change: int) -> None:
        self.ring_bytes += change
        self._owner.account(change)

    async def _run(self) -> None:
        """Watches, on one connection after the other, until nobody uses the channel or it cannot go on."""
        owner, failures, spawn = self._owner, 0, True
        beat_at = asyncio.get_running_loop().time()
        while not owner.stopped:
            pending: AsyncPending | None = None
            try:
                client = await owner.shared_client(self, spawn)
                pending = client.submit("watch", **{"from": self.cursor}, **self.selection.fields())
                while (reply := await pending.next()) is not None and reply.kind == "items":
                    failures = 0
                    self._take(batch_of(reply, seq_of(self.cursor)))
                raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
            except VecError as error:
                if error.code not in _AWAY:
                    self.error = error
                    self.wake()
                    return
                spawn = await owner.may_start_daemon(error)
            except Exception as error:
                self.error = VecError(Code.INTERNAL, f"a watch failed: {error!r}")
                self.wake()
                raise
            finally:
                if pending is not None:
                    pending.cancel()
                owner.release_client(self)
            failures += 1
            await owner.pause(pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
            now = asyncio.get_running_loop().time()
            if now - beat_at > limits.HEARTBEAT_S:  # the clients' connections must not look dead meanwhile
                beat_at = now
                self.beats += 1
                self.wake()

    def _take(self, batch: Batch) -> None:
        self.cursor = batch.cursor
        if batch.events:
            self.ring.append(batch)
            self._count(batch.size)
            while self.ring_bytes > limits.RING_BYTES and len(self.ring) > 1:
                self.evict()
        else:
            self.beats += 1
        self.wake()


class Subscription(ABC):
    """The events of one client, in the order of the log. Iterate over `batches` once, and close it."""

    def __init__(self, owner: FanOut, selection: Selection, start: Start, follow: bool) -> None:
        """FanOut.subscribe makes it."""
        self._owner = owner
        self._selection = selection
        self._start = start
        self._follow = follow
        self.cursor = start.position  # behind all that was delivered

    @abstractmethod
    async def begin(self, spawn: bool) -> None:
        """Asks the daemon; raises the VecError that it refuses with."""

    @abstractmethod
    def batches(self) -> AsyncGenerator[Batch, None]:
        """Batches in order, each event once; batches without events are heartbeats. Ends only without `follow`. Raises
        VecError `shutting_down` when the gateway stops, and what the daemon ends the watch with, as `compacted`."""

    @abstractmethod
    def stop(self) -> None:
        """The gateway stops: ends what it waits for."""

    def close(self) -> None:
        """Ends the subscription."""
        self._owner.subscriptions.discard(self)


class SharedSubscription(Subscription):
    """A position that moves from pages of its own to the ring of a channel, and back if it falls behind."""

    def __init__(self, owner: FanOut, selection: Selection, start: Start, follow: bool) -> None:
        super().__init__(owner, selection, start, follow)
        self._page: Page | None = None
        self._stop_seq: int | None = None
        self._channel: Channel | None = None

    async def begin(self, spawn: bool) -> None:
        self._page = await self._owner.page(self._selection, self._start, spawn)
        if not self._follow:
            self._stop_seq = self._page.batches[0].head
        self.cursor = self._page.batches[0].cursor

    async def batches(self) -> AsyncGenerator[Batch, None]:
        page, self._page = self._page, None
        assert page is not None
        begun = False  # the first batch tells where it begins
        try:
            while True:
                self._owner.check()
                if page is not None:
                    for batch in page.batches:
                        if batch.events or batch.gap or not begun:
                            yield self._delivered(batch)
                            begun = True
                            self._owner.check()
                    self.cursor = page.cursor
                    page = None
                if self._stop_seq is not None and "@" not in self.cursor and seq_of(self.cursor) >= self._stop_seq:
                    return
                if self._follow and "@" not in self.cursor and self._join():
                    async for batch in self._from_ring():
                        yield self._delivered(batch)
                    continue
                async for found in self._next_page():
                    if isinstance(found, Page):
                        page = found
                    else:
                        yield found
        finally:
            self.close()

    def stop(self) -> None:
        """The channel has been woken."""

    def close(self) -> None:
        super().close()
        if self._channel is not None:
            self._owner.leave(self._channel)
            self._channel = None

    def _delivered(self, batch: Batch) -> Batch:
        self.cursor = batch.cursor
        return batch

    def _join(self) -> bool:
        """Whether the ring has what comes next."""
        if self._channel is not None and self._channel.error is not None:
            self._give_up(self._channel.error)
            return False
        if self._channel is None:
            self._channel = self._owner.channel(self._selection, self.cursor)
        return seq_of(self.cursor) >= self._channel.start

    def _give_up(self, error: VecError) -> None:
        """Leaves a channel that has ended. Raises its error, unless a page of its own closes the gap."""
        if error.code != Code.COMPACTED or self._start.on_gap == "fail":
            raise error
        assert self._channel is not None
        self._owner.leave(self._channel)
        self._channel = None

    async def _from_ring(self) -> AsyncGenerator[Batch, None]:
        """Batches of the ring, until it has lost the next one."""
        channel, owner = self._channel, self._owner
        assert channel is not None
        seq = seq_of(self.cursor)
        number, beats = channel.number_behind(seq), channel.beats
        while number >= channel.first:
            if number < channel.end:
                number, batch = channel.next_from(number)
                if batch.seq > seq:  # pages may have been ahead of the channel
                    yield batch.behind(seq)
                    seq = batch.seq
            elif channel.beats != beats:
                beats = channel.beats
                # Nothing that it wants lies before the channel's position.
                cursor = channel.cursor if seq_of(channel.cursor) > seq else self.cursor
                seq = max(seq, seq_of(cursor))
                yield Batch((), cursor, head=seq_of(channel.cursor))
            elif channel.error is not None:
                return
            else:
                await channel.changed()
            owner.check()

    async def _next_page(self) -> AsyncGenerator[Page | Batch, None]:
        """The next page, once the daemon is there; heartbeats meanwhile."""
        failures, spawn, loop = 0, True, asyncio.get_running_loop()
        beat_at = loop.time()
        while True:
            try:
                yield await self._owner.page(self._selection, Start(self.cursor, on_gap=self._start.on_gap), spawn)
                return
            except VecError as error:
                if error.code not in _AWAY:
                    raise
                spawn = await self._owner.may_start_daemon(error)
            failures += 1
            await self._owner.pause(pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
            self._owner.check()
            if loop.time() - beat_at > limits.HEARTBEAT_S:
                beat_at = loop.time()
                yield Batch((), self.cursor)


class ConsumerSubscription(Subscription):
    """A watch of its own, which holds a consumer."""

    def __init__(self, owner: FanOut, selection: Selection, start: Start, follow: bool) -> None:
        super().__init__(owner, selection, start, follow)
        self._client: AsyncClient | None = None
        self._pending: AsyncPending | None = None
        self._first: Batch | None = None
        self._seen = 0  # the seq of the last event that was delivered

    async def begin(self, spawn: bool) -> None:
        self._disconnect()
        await self._watch(self._start, spawn)
        assert self._first is not None
        self.cursor = self._first.cursor

    async def _watch(self, start: Start, spawn: bool) -> None:
        self._client = await self._owner.pool.connect(spawn=spawn)
        self._owner.check()
        self._pending = self._client.submit(
            "watch", **{"from": start.position}, snapshot=start.snapshot, on_gap=start.on_gap, consumer=start.consumer,
            follow=self._follow, **self._selection.fields(),
        )  # fmt: skip
        reply = await self._pending.next()
        assert reply is not None
        if reply.kind != "items":
            raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
        self._first = batch_of(reply)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        loop = asyncio.get_running_loop()
        failures, spawn, beat_at = 0, True, loop.time()
        begun = False
        try:
            while True:
                self._owner.check()
                try:
                    if self._client is None:
                        await self._watch(replace(self._start, position=self.cursor), spawn)
                    assert self._pending is not None
                    first, self._first = self._first, None
                    if first is not None and (first.gap or not begun):
                        begun = True
                        yield first
                    while (reply := await self._pending.next()) is not None and reply.kind == "items":
                        failures = 0
                        # A consumer begins at what it has acknowledged, also after the daemon was restarted.
                        batch = batch_of(reply)
                        if self._seen:
                            if batch.seq < self._seen or (batch.events and batch.seq == self._seen):
                                continue
                            batch = batch.behind(self._seen)
                        if batch.events and "@" not in batch.cursor:
                            self._seen = batch.seq
                        self.cursor = batch.cursor
                        yield batch
                        self._owner.check()
                    if reply is None or reply.body.get("reason") != "shutting_down":
                        return
                    raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
                except VecError as error:
                    self._owner.check()
                    passes = error.code in _AWAY or (error.code == Code.CONSUMER_HELD and failures)
                    if not passes:
                        raise
                    spawn = await self._owner.may_start_daemon(error)
                self._disconnect()
                failures += 1
                await self._owner.pause(pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
                if loop.time() - beat_at > limits.HEARTBEAT_S:
                    beat_at = loop.time()
                    yield Batch((), self.cursor)
        finally:
            self.close()

    def stop(self) -> None:
        self._disconnect()

    def close(self) -> None:
        super().close()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
