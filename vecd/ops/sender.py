"""Sender: the requests of one sender that are in progress. A sender is a connection, or whatever a transport numbers
requests by."""

from __future__ import annotations

import asyncio

from .. import limits
from ..feed.watch import Watch
from ..write_order import WriteOrder


class Sender:
    """A sender's requests, by the sender's numbers for them."""

    def __init__(self) -> None:
        self.name = "a client"  # a readable name, for messages
        self.order = WriteOrder()
        self.stopping = False  # no more requests are taken; requests in progress are answered
        self.tasks: dict[int, asyncio.Task[None]] = {}  # not answered yet
        self.streams: set[int] = set()  # of `tasks`: subscriptions; may be cancelled, and are no back-pressure
        self.paged: set[int] = set()  # of `tasks`: answers that come in pages, each made when there is room for it
        self.watches: dict[int, Watch] = {}  # of `streams`
        self.answers = asyncio.Semaphore(limits.CONNECTION_ANSWERS_AT_ONCE)  # that may be made at once

    def cancel(self, target: int) -> bool:
        """Cancels a stream. False if there is none of that number."""
        return target in self.streams and self.tasks[target].cancel()

    def cancel_streams(self) -> None:
        for number in self.streams:
            self.tasks[number].cancel()
