"""Named consumers: cursors that the daemon keeps, moved by acks, each held by one watcher at a time."""

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
from ..store.events import format_time
from .broadcast import Broadcast
from .positions import Position, cursor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


class Consumers:
    """Who holds which. Lives on the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holders: dict[str, str] = {}
        self.acked = Broadcast()

    @contextlib.contextmanager
    def hold(self, name: str, who: str) -> Iterator[None]:
        """Nobody else has the consumer until the block ends. Raises VecError `consumer_held`, naming who has it."""
        _check_name(name)
        self._check_free(name)
        self._holders[name] = who
        try:
            yield
        finally:
            del self._holders[name]

    async def enter(self, name: str, start: Position) -> Position:
        """Where the consumer goes on; a new one begins at `start`."""
        made = await asyncio.wrap_future(self._database.submit(lambda tx: store.create(tx, name, *start)))
        return Position(made.seq, made.label)

    async def ack(self, name: str, position: Position) -> None:
        """The consumer has done with all up to there (inclusive). When it returns, that is on disk. It `frees`, as all
        that lets the log be trimmed.

        Raises VecError `not_found`.
        """
        await asyncio.wrap_future(self._database.submit(lambda tx: store.ack(tx, name, *position), frees=True))
        self.acked.beat()

    async def reset(self, name: str, position: Position) -> dict[str, Any]:
        """Moves it anywhere; returns it as `everyone` does. Raises VecError `not_found` or `consumer_held`."""
        self._check_free(name)
        moved = await asyncio.wrap_future(
            self._database.submit(lambda tx: store.reset(tx, name, *position), frees=True)
        )
        return self._shown(moved)

    async def delete(self, name: str) -> dict[str, Any]:
        """Forgets it; returns what it was. Raises VecError `not_found` or `consumer_held`."""
        self._check_free(name)
        gone = await asyncio.wrap_future(self._database.submit(lambda tx: store.delete(tx, name), frees=True))
        return self._shown(gone)

    def everyone(self) -> list[dict[str, Any]]:
        """All of them, by name: `{"name","cursor","seq","lag","holder","created_at","acked_at"}`; `lag` is how many
        events the log is ahead. Blocks."""
        with self._database.snapshot() as db:
            return [self._shown(each) for each in store.everyone(db)]

    def find(self, name: str) -> Position | None:
        """How far it has come; None if it is not there. Blocks."""
        with self._database.snapshot() as db:
            found = store.find(db, name)
            return None if found is None else Position(found.seq, found.label)

    def position(self, name: str) -> Position:
        """How far it has come. Blocks. Raises VecError `not_found`."""
        with self._database.snapshot() as db:
            found = store.find(db, name) or store.refuse(db, name)
            return Position(found.seq, found.label)

    def _check_free(self, name: str) -> None:
        if (holder := self._holders.get(name)) is not None:
            raise VecError(
                Code.CONSUMER_HELD,
                f"the consumer {name!r} is held by {holder}",
                "stop that one, or use another name",
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
            f"{name!r:.200} cannot be a consumer's name",
            f"use up to {limits.CONSUMER_NAME_BYTES_MAX} letters, digits, '.', '_', '@' and '-',"
            " beginning with a letter or digit",
            field="consumer",
        )
