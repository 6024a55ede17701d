"""Reply: the protocol by which a transport sends the answer of one request.

An answer is one `result`, or any number of `items` and `part` and then one `end`, or an `error` in place of any of
these. None of them waits: what the reader does not take is buffered, and `writable` is the back-pressure.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Protocol

from ..errors import VecError


class Reply(Protocol):
    """The answer of one request. Once the sender has disconnected, what is sent is dropped."""

    def result(self, body: dict[str, Any]) -> None:
        """The whole answer. Raises VecError `frame_too_large` if it does not fit one message."""

    def items(self, items: list[Any], extra: dict[str, Any]) -> int:
        """A part of a stream, with `extra` keys beside the items; returns its bytes. Raises VecError
        `frame_too_large` if it does not fit one message."""

    def part(self, body: Sized) -> None:
        """A part of a stream as `encode_part` made it."""

    def end(self, body: dict[str, Any]) -> None:
        """The end of a stream."""

    def error(self, error: VecError) -> None:
        """The request failed."""

    @property
    def encode_part(self) -> Callable[[dict[str, Any]], Sized]:
        """Encodes a part once for all who are sent the same; its length is in bytes. The same function for all replies
        of a transport: those who watch the same share what it made. Any thread."""

    @property
    def is_writable(self) -> bool:
        """Whether the sender is connected, and has read enough of what it was sent."""

    async def writable(self) -> None:
        """Waits until `is_writable`. Raises CancelledError if the sender is gone."""

    @property
    def unread_bytes(self) -> int:
        """What this sender has not read of all its answers, as counted in the budget."""
