"""Named consumers: durable cursors, moved by acknowledgements, each held by one watch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any

from .. import limits
from ..errors import Code, VecError
from ..store import consumers as store
from ..store.consumers import Consumer
from ..store.database import Database
from ..units import format_time
from .broadcast import Broadcast
from .positions import Position, cursor
from .run_blocking import RunBlocking

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


class Consumers:
    """The store's consumers, and which watch holds which. Runs on the event loop."""

    def __init__(self, database: Database, read: RunBlocking) -> None:
        self._database = database
        self._read = read
        self._holders: dict[str, str] = {}  # consumer -> a readable name of its holder
        self.acked = Broadcast()

    @contextlib.contextmanager
    def hold(self, name: str, who: str) -> Iterator[None]:
        """Holds the consumer until the block ends. Raises VecError `consumer_held`, naming the present holder."""
        _check_name(name)
        self._check_free(name)
        self._holders[name] = who
        try:
            yield
        finally:
            del self._holders[name]

    async def find_or_create(self, name: str, start: Position) -> Position:
        """The consumer's position; creates the consumer at `start` if it does not exist."""
        made = await asyncio.wrap_future(self._database.submit(lambda tx: store.create(tx, name, *start)))
        return Position(made.seq, made.label)

    async def ack(self, name: str, position: Position) -> None:
        """The consumer has processed everything up to there (inclusive). When it returns, that is on disk.

        Raises VecError `not_found`.
        """
        # `frees`: it lets the log be trimmed.
        await asyncio.wrap_future(self._database.submit(lambda tx: store.ack(tx, name, *position), frees=True))
        self.acked.notify()

    async def reset(self, name: str, position: Position) -> dict[str, Any]:
        """Moves it to any position; returns it as `all` does. Raises VecError `not_found` or `consumer_held`."""
        self._check_free(name)
        moved = await asyncio.wrap_future(
            self._database.submit(lambda tx: store.reset(tx, name, *position), frees=True)
        )
        return self._shown(moved)

    async def delete(self, name: str) -> dict[str, Any]:
        """Deletes it; returns it as `all` does. Raises VecError `not_found` or `consumer_held`."""
        self._check_free(name)
        gone = await asyncio.wrap_future(self._database.submit(lambda tx: store.delete(tx, name), frees=True))
        return self._shown(gone)

    async def all(self) -> list[dict[str, Any]]:
        """All consumers, by name: `{"name","cursor","seq","lag","holder","created_at","acked_at"}`; `lag` is how many
        events the log is ahead."""

        def read() -> list[Consumer]:
            with self._database.read_transaction() as db:
                return store.list_all(db)

        return [self._shown(each) for each in await self._read(read)]

    async def find(self, name: str) -> Position | None:
        """Its position; None if it does not exist."""

        def read() -> Position | None:
            with self._database.read_transaction() as db:
                found = store.find(db, name)
                return None if found is None else Position(found.seq, found.label)

        return await self._read(read)

    async def position(self, name: str) -> Position:
        """Its position. Raises VecError `not_found`."""

        def read() -> Position:
            with self._database.read_transaction() as db:
                found = store.find(db, name) or store.refuse(db, name)
                return Position(found.seq, found.label)

        return await self._read(read)

    def _check_free(self, name: str) -> None:
        if (holder := self._holders.get(name)) is not None:
            raise VecError(
                Code.CONSUMER_HELD,
                f"the consumer {name!r} is held by {holder}",
                "stop that watch, or use another consumer",
                consumer=name,
                holder=holder,
            )

    def _shown(self, consumer: Consumer) -> dict[str, Any]:
        return {
            "name": consumer.name,
            "cursor": cursor(self._database, Position(consumer.seq, consumer.label)),
            "seq": consumer.seq,
            "lag": max(0, self._database.head - consumer.seq),
            "holder": self._holders.get(consumer.name),
            "created_at": format_time(consumer.created_us),
            "acked_at": None if consumer.acked_us is None else format_time(consumer.acked_us),
        }


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > limits.CONSUMER_NAME_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name!r:.200} is not a valid name of a consumer",
            f"use up to {limits.CONSUMER_NAME_BYTES_MAX} letters, digits, '.', '_', '@' and '-',"
            " beginning with a letter or digit",
            field="consumer",
        )
