"""A pool of blocking clients on threads, until the asynchronous client is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ..client import Client, connect
from ..errors import VecError
from ..settings import Settings


class AsyncClient:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.request, op, **fields)


class DaemonPool:
    def __init__(self, settings: Settings, *, spawn: bool = True) -> None:
        self._settings, self._spawn = settings, spawn
        self._idle: list[Client] = []

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncClient]:
        client = self._idle.pop() if self._idle else await asyncio.to_thread(self._connect)
        try:
            yield AsyncClient(client)
        except VecError as error:
            if error.disconnected:
                client.close()
                raise
            self._idle.append(client)
            raise
        else:
            self._idle.append(client)

    def _connect(self) -> Client:
        return connect(self._settings.socket if self._settings.named else None, spawn=self._spawn)

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        async with self.connection() as client:
            return await client.request(op, **fields)

    async def close(self) -> None:
        for client in self._idle:
            client.close()
