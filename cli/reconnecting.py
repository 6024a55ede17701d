"""ReconnectingWatch: a watch that reconnects when its connection is lost, and ends when no process reads its output.

Rules:
- `done` is the cursor after the events that were handled: printed and flushed, or delivered to the command. After the
  connection is lost, the watch continues from there: an event may arrive twice, and is never missed.
- A daemon that died is started again, as by any other command. A daemon that was stopped on purpose is not: the watch
  waits for it, and does not undo `vec daemon stop`.
- A watch that follows waits without a bound, within --timeout. One that ends at the head (--no-follow) waits for
  RESTART_S. Neither tries for longer than that to start a daemon that fails to start.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vecd import limits
from vecd.errors import Code, VecError

from .cursors import RESTART_S

if TYPE_CHECKING:
    from vecd.client import Client
    from vecd.client.watch import Message, Watch

    from .cursors import NoCursor

#: Seconds between two attempts to connect: the first pause, which doubles, and the longest.
_PAUSE_S: Final = 0.05
_PAUSE_S_MAX: Final = 1.0

#: What ends a watch from outside: file descriptors, each with the poll(2) events to wait for.
Enders = Sequence[tuple[int, int]]


class ReconnectingWatch:
    """A watch over any number of connections. Iterate over `messages` once."""

    def __init__(
        self,
        connect: Callable[[bool], Client],
        place: NoCursor,
        start: str,
        asked: dict[str, Any],
        *,
        reconnects: bool,
        was_stopped: Callable[[], bool],
        enders: Enders = (),
    ) -> None:
        """`connect` is given whether it may start a daemon; `was_stopped` says whether the last one was stopped on
        purpose. `asked` are arguments of `Client.watch`. Raises VecError when the first connection cannot be made, or
        the watch is refused."""
        self._connect = connect
        self._place = place
        self._asked = asked
        self._reconnects = reconnects
        self._was_stopped = was_stopped
        self._enders = enders
        self._limit: int | None = asked["limit"]
        self._deadline = None if asked["timeout_s"] is None else time.monotonic() + asked["timeout_s"]
        self.restarts = 0  # how often it resumed from `done`: unhandled events arrive again
        self.timed_out = False
        self.stopped = False  # by something in `enders`
        self._begin(start)
        self.done = self.watch.cursor  # the cursor after the events that were handled
        self._handled = 0  # events

    def _begin(self, start: str) -> None:
        """Makes the first connection. A daemon that dies during this does not end the watch."""
        until = time.monotonic() + RESTART_S
        while True:
            try:
                self.client = self._connect(True)
                try:
                    self.watch: Watch = self.client.watch(self._place.start(start), **self._asked)
                    return
                except BaseException:
                    self.client.close()
                    raise
            except VecError as error:
                if not self._reconnects or error.code != Code.CONNECTION_LOST or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)

    def close(self) -> None:
        self.client.close()

    # --- read -------------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[Message]:
        """The messages of the watch, the first without delay. They end with the watch, and when an ender is ready: then
        `stopped` is true. Raises VecError when the watch cannot continue.
        """
        watch: Watch | None = None
        while True:
            try:
                if watch is not self.watch:
                    watch, messages = self.watch, self.watch.messages()
                elif not self.wait(None):
                    self.stopped = True
                    return
                message = next(messages, None)
            except VecError as error:
                if not self.resume(error):
                    return
                continue
            if message is None:
                self.timed_out = (watch.end or {}).get("reason") == "timeout"
                return
            yield message

    def wait(self, seconds: float | None) -> bool:
        """Waits until `messages` returns without waiting; false when an ender is ready first, or after that time.
        Raises VecError `stalled` when the daemon sends nothing for too long."""
        poll = select.poll()
        poll.register(self.client, select.POLLIN)
        for fd, events in self._enders:
            poll.register(fd, events)
        patience_s = self.watch.patience_s if seconds is None else seconds
        silent_since = time.monotonic()
        while not self.watch.ready:
            left_s = silent_since + patience_s - time.monotonic()
            if left_s <= 0:
                if seconds is None:
                    raise self.watch.stalled()
                return False
            ready = {fd for fd, _ in poll.poll(max(1, int(min(left_s, limits.SILENCE_S) * 1000)))}
            if any(fd in ready for fd, _ in self._enders):
                return False
            try:
                if ready:
                    silent_since = time.monotonic() if seconds is None else silent_since
                    self.client.pump()
                elif left_s > limits.SILENCE_S:
                    self.client.check_daemon()
            except VecError:
                return True  # `messages` raises the same, after the messages that have arrived
        return True

    # --- keep the position ------------------------------------------------------------------------------------------

    def keep(self, cursor: str, events: int) -> None:
        """All up to `cursor` (inclusive) is handled, with `events` events since the last call. Raises VecError."""
        self.done = cursor
        self._handled += events
        self._place.keep(self.watch, cursor)

    def secure(self) -> None:
        """Returns when the position is durable. Raises VecError."""
        try:
            self._place.secure(self.watch)
        except VecError as error:
            if not error.disconnected:
                raise
            resumed = False
            try:
                resumed = self.resume(error)
            finally:
                if not resumed:
                    self._place.salvage()

    # --- continue on a new connection ---------------------------------------------------------------------------------

    def resume(self, error: VecError) -> bool:
        """Resumes from `done` on a new connection; false when an ender is ready first, or the timeout has passed.
        Raises VecError: `error`, if a new connection does not help, or why the watch cannot continue."""
        if not self._reconnects or not error.disconnected:
            raise error
        self.client.close()
        if self._limit is not None and self._handled >= self._limit:
            return False  # only the end of the watch was missing
        print(f"vec: {error.message}; resuming from {self.done} when it is back", file=sys.stderr, flush=True)
        spawns = error.code != Code.SHUTTING_DOWN  # a stuck one may be killed later
        restart_until = time.monotonic() + RESTART_S
        pause_s = _PAUSE_S
        while True:
            if self._ended(pause_s):
                self.stopped = True
                return False
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.timed_out = True
                return False
            try:
                self._begin_again(spawns and not self._was_stopped())
            except VecError as failure:
                self.client.close()
                late = time.monotonic() > restart_until
                # The daemon is not back yet, or has not noticed yet that the consumer's old connection is closed.
                passes = failure.retryable or failure.code == Code.TIMEOUT
                if not passes and (late or failure.code != Code.DAEMON_FAILED):
                    raise
                if late and not self._asked["follow"]:
                    raise error from failure
                continue
            self.restarts += 1
            return True

    def _begin_again(self, spawns: bool) -> None:
        self.client = self._connect(spawns)
        self._place.resume(self.client)
        left = dict(self._asked)
        if self._limit is not None:
            left["limit"] = max(1, self._limit - self._handled)
        if self._deadline is not None:
            left["timeout_s"] = max(0.0, self._deadline - time.monotonic())
        self.watch = self.client.watch(self.done, **left)

    def _ended(self, seconds: float) -> bool:
        """Whether an ender is ready within that time, or at its end."""
        poll = select.poll()
        for fd, events in self._enders:
            poll.register(fd, events)
        return bool(poll.poll(int(seconds * 1000)))
