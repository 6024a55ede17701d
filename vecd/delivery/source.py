"""The source of a delivery: events with cursors and a committed position; and the stop signal that ends its waits."""

from __future__ import annotations

from typing import Any, Protocol

Event = dict[str, Any]


class SourceMessage(Protocol):
    """Events that arrived together. Without events it is a bookmark: the log has been read up to `cursor`."""

    @property
    def events(self) -> list[Event]:
        """Each has `type`, and `cursor`: the position behind it, or None inside a snapshot."""

    @property
    def cursor(self) -> str:
        """The position behind the last event (inclusive)."""


class EventSource(Protocol):
    """Events in the order of the log."""

    @property
    def committed(self) -> str:
        """The position behind what was committed, at first where the source starts."""

    @property
    def rewinds(self) -> int:
        """How often the source went back to `committed`, for example to a new connection. What was read and not
        committed comes again then."""

    @property
    def ended(self) -> bool:
        """Whether `read` has returned all there is."""

    def read(self, wait_s: float | None) -> SourceMessage | None:
        """The next message. Waits up to `wait_s` seconds for it (None: without a bound).

        None if nothing came in that time, the source has ended, or the delivery is stopped. Raises VecError.
        """

    def commit(self, cursor: str, events: int) -> None:
        """All up to `cursor` (inclusive) is done: `events` events since the last commit. Durable when it returns.

        Raises VecError.
        """


class Stop(Protocol):
    """A request to stop. `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether the delivery is to stop."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is to stop, up to `timeout` seconds; returns `is_set()`."""
