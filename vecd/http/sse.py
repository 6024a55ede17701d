"""Server-sent events: a subscription as a response of type text/event-stream.

    event: document.added
    id: 77d5d23b47fbedfa:42
    data: {"library_id":"notes","document_id":"a","seq":42,…}

The `id` is the cursor behind the event. Between events, an `id` without data moves the position from which EventSource
resumes, and comments keep the connection alive. A stream that ends says why: `end` if the gateway stops or there is no
more, `error` (a problem, as problems.py makes it) if it cannot continue, and `gap` tells of history that was lost.

The client's speed is the stream's: a batch is taken from the subscription when the one before has been taken by the
transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from .. import limits
from ..errors import Code, VecError
from .endpoint import EVENTS
from .fan_out import Batch, FanOut, Subscription
from .json_bytes import dumps
from .problems import problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("vecd.http")

#: `no-store`: no cache keeps it. `X-Accel-Buffering`: nginx passes it on at once.
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def encode_event(kind: str, data: Any, cursor: str | None = None) -> bytes:
    """One event that is not of the log."""
    place = b"" if cursor is None else b"id: %b\n" % cursor.encode()
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), place, dumps(data))


def retry(milliseconds: int) -> bytes:
    """How long EventSource waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


class EventStream(Response):
    """The events of a subscription, until the client leaves, the subscription ends, or the gateway stops."""

    def __init__(self, fan_out: FanOut, subscription: Subscription) -> None:
        super().__init__(None, 200, HEADERS, EVENTS)
        del self.headers["content-length"]
        self._fan_out = fan_out
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        writing = loop.create_task(self._write(send))
        leaving = loop.create_task(_disconnected(receive))
        self._fan_out.writers.add(writing)
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._fan_out.writers.discard(writing)
            for task in (writing, leaving):
                task.cancel()
            await asyncio.wait((writing, leaving))
            self._subscription.close()
        if not writing.cancelled():
            writing.result()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(send, retry(limits.STREAM_RETRY_MS))
        subscription = self._subscription
        try:
            async with contextlib.aclosing(subscription.batches()) as batches:
                cursor = ""
                async for batch in batches:
                    await _send(send, _encoded(batch, cursor))
                    cursor = batch.cursor
            last = encode_event("end", {"reason": "done", "cursor": subscription.cursor}, subscription.cursor)
        except VecError as error:
            last = last_event(error, subscription.cursor)
        await _send(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _encoded(batch: Batch, before: str) -> bytes:
    """The bytes of a batch; `before` is the cursor that the client has."""
    if batch.gap is not None:
        return encode_event("gap", {**problem(batch.gap), "cursor": batch.cursor}, _resumable(batch.cursor)) + batch.sse
    if batch.events:
        return batch.sse
    if batch.cursor == before:
        return b":\n"
    return b"id: %b\n\n" % batch.cursor.encode()


def _resumable(cursor: str) -> str | None:
    return cursor or None


def last_event(error: VecError, cursor: str) -> bytes:
    """The last event of a stream that ends with an error. A stop of the gateway is none."""
    if error.code == Code.SHUTTING_DOWN:
        return encode_event("end", {"reason": "shutting_down", "cursor": cursor}, cursor)
    return retry(limits.STREAM_RETRY_ERROR_MS) + encode_event("error", problem(error))


class ErrorStream(Response):
    """A stream of one event, `error`: EventSource does not show the body of any status but 200."""

    def __init__(self, error: VecError) -> None:
        super().__init__(last_event(error, ""), 200, HEADERS, EVENTS)


async def _send(send: Send, data: bytes) -> None:
    """Waits for a slow client before each piece."""
    for start in range(0, len(data), limits.STREAM_PIECE_BYTES):
        piece = data if len(data) <= limits.STREAM_PIECE_BYTES else data[start : start + limits.STREAM_PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
