"""Connections to the daemon that requests of the gateway borrow.

A request has a connection to itself while it runs: the daemon shares its time fairly over connections, and a client
that reads its answer slowly holds up nobody else. Idle connections are kept for the next requests, and replaced when
the daemon has been restarted.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from ..client.aio import AsyncClient
from ..errors import Code, VecError
from ..settings import Settings

#: Idle connections that are kept: enough for a burst, and few of the connections that the daemon accepts.
_IDLE_MAX: Final = 32

#: Ops that `request` sends once more when the connection is lost before the answer: reads, and writes that change
#: nothing the second time.
REPEATABLE: Final = frozenset(
    (
        "ping", "status", "library.list", "library.show", "ingest", "delete", "update", "get", "count", "search", "ack",
        "consumers.list", "consumers.reset", "trim", "jobs.status", "jobs.kinds", "jobs.show", "jobs.logs",
        "jobs.cancel", "schedule.list",
    )
)  # fmt: skip


class DaemonPool:
    """Connections to one instance's daemon. All of it runs on one event loop."""

    def __init__(self, settings: Settings, *, spawn: bool = True) -> None:
        """`spawn`: whether a request may start a daemon if none runs."""
        self._settings = settings
        self.spawns = spawn
        self._idle: list[AsyncClient] = []
        self._open: set[AsyncClient] = set()  # whose sockets are not closed yet
        self._closed = False

    async def connect(self, *, spawn: bool = True) -> AsyncClient:
        """A new connection, which the caller closes. Raises VecError."""
        client = await AsyncClient.connect(self._settings, spawn=self.spawns and spawn)
        self._open.add(client)
        client.closed.add_done_callback(lambda _: self._open.discard(client))
        return client

    @contextlib.asynccontextmanager
    async def connection(self, *, spawn: bool = True, new: bool = False) -> AsyncIterator[AsyncClient]:
        """A connection for one request; `new`: not one that was used before. What is unanswered at the end of the block
        is cancelled with the connection. Raises VecError if there is no daemon."""
        client = (None if new else self._reuse()) or await self.connect(spawn=spawn)
        try:
            yield client
        finally:
            self._give_back(client)

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request and its answer, a map. If the connection is lost, a request that may be repeated is sent once
        more. Raises VecError."""
        return (await self.request_once_or_twice(op, **fields))[0]

    async def request_once_or_twice(self, op: str, **fields: Any) -> tuple[dict[str, Any], bool]:
        """As `request`; also whether it was sent twice, so that the first may have been carried out already."""
        try:
            async with self.connection() as client:
                return await client.request(op, **fields), False
        except VecError as error:
            if error.code != Code.CONNECTION_LOST or op not in REPEATABLE:
                raise
        async with self.connection(new=True) as client:  # the idle ones may be lost too, and not know it yet
            return await client.request(op, **fields), True

    async def close(self) -> None:
        """Closes all connections that are not in use; others are closed when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        for client in [each for each in self._open if each.lost is not None]:
            await client.wait_closed()

    def _reuse(self) -> AsyncClient | None:
        while self._idle:
            client = self._idle.pop()
            if client.lost is None:
                return client
        return None

    def _give_back(self, client: AsyncClient) -> None:
        if client.lost is None and not client.unanswered and not self._closed and len(self._idle) < _IDLE_MAX:
            self._idle.append(client)
        else:
            client.close()
