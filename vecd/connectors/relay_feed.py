"""The log as the source of a relay's delivery, and the place of its position and its dead letters.

Both are stored by `relay.commit`. The position is stored behind what the broker has confirmed, at most every
limits.RELAY_COMMIT_S, and without waiting for the answer, unless there are dead letters.

The watch has a connection of its own. It stays unread while a slow broker takes what was read before, and the daemon
reads no request from a connection whose answers stay unread: a commit on it would wait for as long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from .. import limits
from ..client import Client, Message, Pending
from ..delivery import AttemptFailed, DeliveryBatch
from ..errors import Code, VecError
from . import dead_letters
from .definition import RelayDefinition
from .messages import OutMessage
from .stopping import Stopping

log = logging.getLogger("vecd.connectors")

#: The daemon has no room for dead letters now, and may take the same ones later.
_LATER: Final = frozenset((Code.BUSY, Code.DISK_FULL))


class RelayFeed:
    """One watch of a relay. Implements vecd.delivery's EventSource and DeadLetters. Use on one thread."""

    def __init__(
        self,
        client: Client,
        watching: Client,
        definition: RelayDefinition,
        stop: Stopping,
        *,
        between: Callable[[], None],
        full: Callable[[VecError | None, int], None],
    ) -> None:
        """`watching` is a connection for the watch alone. `between` is called again and again, before the next batch
        and while nothing comes. `full` is called with the error and the number of attempts after each one at which
        there is no room for dead letters: it waits, and raises the error if the relay is to stop; and without an error
        when there is room again.

        Raises VecError `lease_lost`, `consumer_held` or `compacted`.
        """
        self._client = client
        self._watching = watching
        self._watch = watch = watching.watch_relay(definition.name, definition.generation)
        self._messages = watch.messages()
        self._between = between
        self._full = full
        self._first = True
        self._stop = stop
        self._who = definition.name, definition.generation
        self._letters: list[dict[str, Any]] = []  # of the batch that is being delivered
        self._sent = self._wanted = watch.cursor  # the position that was sent to be stored, and the one to send
        self._sent_at = 0.0
        self._pending: Pending | None = None
        self.committed = watch.cursor
        self.rewinds = 0
        self.ended = False

    # --- read -------------------------------------------------------------------------------------------------------

    def read(self, wait_s: float | None) -> Message | None:
        if self._first:  # the beginning of the watch
            self._first = False
            return next(self._messages, None)
        if wait_s is None:
            self._between()
        until = None if wait_s is None else time.monotonic() + wait_s
        silent_since = time.monotonic()
        if not self._watch.ready:
            self._watching.pump()
        while not self._watch.ready:
            now = time.monotonic()
            if self._stop.is_set() or (until is not None and now >= until):
                return None
            if now - silent_since > self._watch.patience_s:
                raise self._watch.stalled()
            due_s = self._commit_if_due()
            if self._stop.wait_with(self._watching, min(due_s, 1.0 if until is None else until - now)):
                silent_since = time.monotonic()
            elif until is None:
                self._between()
        message = next(self._messages, None)
        if message is None:
            raise VecError(Code.CONNECTION_LOST, f"the watch has ended: {(self._watch.end or {}).get('reason')}")
        return message

    # --- commit -----------------------------------------------------------------------------------------------------

    def commit(self, cursor: str, events: int) -> None:
        if self._letters:
            self._commit_letters(cursor)
        else:
            self._wanted = cursor
        self._commit_if_due()

    def add(self, batch: DeliveryBatch[OutMessage], failure: AttemptFailed) -> None:
        """Keeps dead letters until the commit of their batch."""
        for message in batch.items:
            self._letters.append(dead_letters.of_message(message, failure.reason, batch.attempt))

    def _commit_letters(self, cursor: str) -> None:
        """Stores the dead letters of a batch, in requests of a moderate size; the last moves the position too. Until
        it is accepted, no request has the position behind the batch."""
        self.settle()
        pages = list(_pages(self._letters))
        for page in pages[:-1]:
            self._store(page, None)
        self._store(pages[-1], cursor)
        letters, self._letters = self._letters, []
        about = {"relay": self._who[0], "count": len(letters), "reason": letters[0]["reason"], "cursor": cursor}
        log.warning("a relay has dead letters", extra=about)
        self._wanted = self._sent = cursor
        self._sent_at = time.monotonic()

    def _store(self, page: Sequence[Mapping[str, Any]], cursor: str | None) -> None:
        """Stores dead letters; waits while there is no room for them. Raises VecError."""
        failures = 0
        while True:
            try:
                self._client.commit_relay(*self._who, dead_letters=page, cursor=cursor).result()
                break
            except VecError as error:
                if error.code not in _LATER:
                    raise
                failures += 1
                self._full(error, failures)
            self._between()
        if failures:
            self._full(None, failures)

    def _commit_if_due(self) -> float:
        """Sends the position to be stored, if it is time. Returns after how many seconds to look again."""
        if self._pending is not None:
            if not self._pending.ready:
                self._client.pump()
            if not self._pending.ready:
                return limits.RELAY_COMMIT_S
            pending, self._pending = self._pending, None
            pending.result()
        if self._wanted == self._sent:
            return 1.0
        left_s = self._sent_at + limits.RELAY_COMMIT_S - time.monotonic()
        if left_s > 0:
            return left_s
        self._send()
        return limits.RELAY_COMMIT_S

    def _send(self) -> None:
        self._sent, self._sent_at = self._wanted, time.monotonic()
        self._pending = self._client.commit_relay(*self._who, cursor=self._sent)

    def settle(self) -> None:
        """Returns when the position behind the last committed batch is stored. Raises VecError."""
        while self._pending is not None or self._wanted != self._sent:
            if self._pending is None:
                self._send()
            pending, self._pending = self._pending, None
            assert pending is not None
            pending.result()

    # --- dead letters that are tried again --------------------------------------------------------------------------

    def letters_to_retry(self) -> list[dict[str, Any]]:
        """Some of the dead letters that somebody has asked to try again, with their bodies."""
        page: list[dict[str, Any]] = []
        for letter in self._client.relay_dead_letters(self._who[0], bodies=True, retrying=True):
            page.append(letter)
            if len(page) == limits.DEAD_LETTERS_PAGE:
                break
        return page

    def retried(self, delivered: Sequence[int], refused: Sequence[dict[str, Any]]) -> None:
        """Some were delivered after all, and some refused again."""
        self._client.commit_relay(*self._who, letter_ids=delivered, dead_letters=refused).result()


def _pages(letters: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The letters in groups that fit a request, one group at least."""
    page: list[dict[str, Any]] = []
    size = 0
    for letter in letters:
        size += len(letter["body"])
        if page and (len(page) == limits.DEAD_LETTERS_PAGE or size > limits.DEAD_LETTERS_PAGE_BYTES):
            yield page
            page, size = [], len(letter["body"])
        page.append(letter)
    yield page
