"""A watch in the client: the log's events as they arrive, and the position in the log.

    with connect() as vec, vec.watch("beginning", types=["document.*"]) as feed:
        for event in feed:
            print(event["cursor"], event["type"], event["data"]["id"])

Rules: a Watch reads only when it is asked for more, so a slow caller costs the daemon nothing; it shares its connection
with any number of other requests; leaving it cancels the subscription and nothing else. `vec.watch(feed.cursor)`
continues behind the events that it returned. It uses the connection, not its socket.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from .. import limits
from ..errors import Code, VecError
from .connection import Connection, Pending

#: Unanswered acks. The daemon writes them in one commit; more would only wait in the same queue.
_ACKS_MAX = 16


class Message(NamedTuple):
    """Events that arrived together, and the cursor behind them. Without events it is a bookmark: the log has been read
    up to there, and nothing matched."""

    events: list[dict[str, Any]]
    cursor: str
    gap: VecError | None = None  # history that was lost before the events, and what `on_gap` did about it


class Watch:
    """A subscription. Iterate over its events, each with its `cursor`; or over `messages()`.

    An event's `cursor` is the position behind it. Inside a snapshot only the last item of a message has one, the
    others have None. A stop of the daemon is raised as `shutting_down`, its silence as `stalled`; `end` has any other
    end.
    """

    def __init__(self, connection: Connection, pending: Pending, consumer: str | None) -> None:
        """Waits until the subscription is active. Raises the VecError that it was refused with."""
        self._connection = connection
        self._pending = pending
        self._consumer = consumer
        self._events: deque[dict[str, Any]] = deque()  # of one message, not returned yet
        self._behind = ""  # the cursor behind them
        self._acks: deque[Pending] = deque()
        # A daemon that is silent for longer is dead or stopped.
        self.patience_s: float = limits.HEARTBEATS_MISSED * connection.limits.get("heartbeat_s", limits.HEARTBEAT_S)
        self.cursor = ""  # behind all that was returned
        self.head = 0  # the log's last event, as far as known
        self.gap: VecError | None = None  # the last gap that `on_gap` has closed
        self.end: dict[str, Any] | None = None  # why it ended: `{"reason","cursor"}`
        try:
            first = self._receive()
        except BaseException:
            self._connection.abandon(pending)
            raise
        if first is not None:
            self._keep(first)

    @property
    def lag(self) -> int:
        """How many events the log is ahead of what was returned, as far as known."""
        return max(0, self.head - int(self.cursor.partition(":")[2].partition("@")[0] or 0))

    @property
    def ready(self) -> bool:
        """Whether the next read returns without waiting: events, a bookmark, the end, or an error."""
        return bool(self._events) or self._pending.ready

    # --- events -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        while not self._events:
            message = self._receive()
            if message is None:
                raise StopIteration
            self._keep(message)
        event = self._events.popleft()
        self.cursor = (event["cursor"] or self.cursor) if self._events else self._behind
        return event

    def messages(self) -> Iterator[Message]:
        """The same events as they arrived together, and bookmarks. Begins with one: the start of the watch."""
        message: Message | None = Message(list(self._events), self._behind or self.cursor, self.gap)
        self._events.clear()
        while message is not None:
            self.cursor = message.cursor
            yield message
            message = self._receive()

    def _keep(self, message: Message) -> None:
        self._events.extend(message.events)
        self._behind = message.cursor
        if not message.events:
            self.cursor = message.cursor

    def _receive(self) -> Message | None:
        """Waits for the next message; None at the end. Raises VecError."""
        self._settle(_ACKS_MAX)
        if self.end is not None:
            return None
        if not self._connection.wait_until(lambda: self._pending.ready, self.patience_s):
            raise self.stalled()
        reply = self._pending.next()
        if reply is None or reply.kind != "items":
            self._finish({} if reply is None else dict(reply.body))
            return None
        cursor = str(reply.extra["cursor"])
        self.head = reply.extra["head"]
        gap = reply.extra.get("gap")
        if gap is not None:
            self.gap = VecError.from_wire(gap)
        events: list[dict[str, Any]] = reply.body
        if events:
            if events[0]["type"].startswith("snapshot."):
                for event in events:
                    event["cursor"] = None
                events[-1]["cursor"] = cursor
            else:
                log = cursor.partition(":")[0]
                for event in events:
                    event["cursor"] = f"{log}:{event['seq']}"
        return Message(events, cursor, self.gap if gap is not None else None)

    def stalled(self) -> VecError:
        """What `patience_s` of silence means."""
        return VecError(
            Code.STALLED,
            f"the daemon has sent nothing for {self.patience_s:g} s",
            f"it is suspended or does not respond; later, resume from {self.cursor or 'the last cursor'}",
        )

    def _finish(self, end: dict[str, Any]) -> None:
        end["cursor"] = end.get("cursor") or self.cursor
        self.end = end
        if end.get("reason") == "shutting_down":
            raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", f"resume from {end['cursor']}")
        self.cursor = end["cursor"]

    # --- acknowledgements -----------------------------------------------------------------------------------------

    def ack(self, cursor: str | None = None) -> None:
        """Moves the consumer behind all that was returned, or to `cursor`. Does not wait until that is durable:
        an error is raised by a later call, at the latest by `settle` or on leaving the watch."""
        assert self._consumer is not None, "only a consumer acknowledges"
        self._settle(_ACKS_MAX - 1)
        self._acks.append(self._connection.submit("ack", consumer=self._consumer, cursor=cursor or self.cursor))

    def settle(self) -> None:
        """Waits until all acks are durable. Raises VecError."""
        self._settle(0)

    def _settle(self, unanswered_max: int) -> None:
        while self._acks and (self._acks[0].done or len(self._acks) > unanswered_max):
            self._acks.popleft().result()

    def flush(self, timeout_s: float | None = None) -> str:
        """Waits until all that is committed now has arrived; the next reads return it without waiting. Returns the
        cursor of that. Raises VecError `timeout`."""
        answer = self._connection.request("flush", target=self._pending.number, timeout_s=timeout_s)
        return str(answer["cursor"])

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the subscription; its consumer is free when this returns. The connection stays open."""
        if self._pending.done or self._consumer is None:
            self._connection.abandon(self._pending)
            return
        self._connection.request("cancel", target=self._pending.number)
        self._connection.wait_for(lambda: self._pending.done)

    def __del__(self) -> None:
        """Cancels a watch whose loop was left."""
        with contextlib.suppress(Exception):
            self._connection.abandon(self._pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._connection.abandon(self._pending)
            return
        self.settle()
        self.close()
