"""Answers that are produced while they are sent: NDJSON lines, and JSON with a long list.

Rules: an answer begins only with its first part, so that an error before it is a problem with a status of its own. The
last line of a stream of lines says how it ended: `{"status": "summary", …}`, or `{"status": "failed", "error": …}`. A
slow reader holds its own answer up, and nothing else; one that has gone ends the work for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import VecError
from .call import Call
from .endpoint import JSON, NDJSON
from .json_bytes import dumps

#: Asks proxies not to collect an answer before they pass it on (nginx).
UNBUFFERED: Final = {"x-accel-buffering": "no", "cache-control": "no-store"}


def lines(items: Iterable[Any]) -> bytes:
    """Items as NDJSON."""
    return b"".join([dumps(each) + b"\n" for each in items])


def summary(**fields: Any) -> bytes:
    """The last line of a stream that has succeeded."""
    return orjson.dumps({"status": "summary", **fields}) + b"\n"


def failure(error: VecError) -> bytes:
    """The last line of a stream that has failed."""
    return orjson.dumps({"status": "failed", "error": error.to_wire()}) + b"\n"


class StreamAnswer(Response):
    """A response whose body is produced while it is sent. The generator is closed when the client has gone."""

    def __init__(
        self, parts: AsyncGenerator[bytes, None], media_type: str, *, duplex: bool = False, closes: bool = False
    ) -> None:
        """`duplex`: the generator reads the request's body itself, and so finds out when the client has gone. `closes`:
        the connection ends with the answer, because the body may not have been read to its end."""
        super().__init__(None, 200, dict(UNBUFFERED), media_type)
        self.raw_headers = [each for each in self.raw_headers if each[0] != b"content-length"]
        if closes:
            self.headers["connection"] = "close"
        self._parts = parts
        self._duplex = duplex

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        waiting = {sending} if self._duplex else {sending, asyncio.ensure_future(_until_gone(receive))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._parts) as parts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(parts: AsyncGenerator[bytes, None], media_type: str = NDJSON) -> StreamAnswer:
    """The answer, once its first part is there. Raises what the generator raises before that; an error after it is the
    last line, or, in JSON, cuts the answer off."""
    first = await anext(parts, b"")

    async def rest() -> AsyncGenerator[bytes, None]:
        async with aclosing(parts):
            yield first
            try:
                async for part in parts:
                    yield part
            except VecError as error:
                if media_type != NDJSON:
                    raise
                yield failure(error)

    return StreamAnswer(rest(), media_type)


async def list_answer(call: Call, op: str, key: str, **fields: Any) -> Response:
    """The daemon's answer with a list `key`, which it sends whole or, if that is long, in parts."""

    async def parts() -> AsyncGenerator[bytes, None]:
        head = b'{"%s":[' % key.encode()
        async with call.gateway.pool.connection() as client:
            pending = client.submit(op, **fields)
            async with aclosing(pending.parts()) as replies:
                async for reply in replies:
                    if reply.kind == "result":
                        yield dumps(reply.body)
                        return
                    if reply.kind == "items":
                        if reply.body:
                            yield head + b",".join([dumps(each) for each in reply.body])
                            head = b","
                    else:
                        end = dumps(reply.body)[1:]
                        yield (head if head != b"," else b"") + b"]" + (b"," if end != b"}" else b"") + end

    whole = parts()
    first = await anext(whole)
    second = await anext(whole, None)
    if second is None:
        return Response(first, media_type=JSON)

    async def rest() -> AsyncGenerator[bytes, None]:
        async with aclosing(whole):
            yield first
            yield second
            async for part in whole:
                yield part

    return StreamAnswer(rest(), JSON)
