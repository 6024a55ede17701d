"""The smallest transport: ops called in this process, without a socket. Answers are Python objects.

    async with daemon(folder) as here:
        ops = here.connect()
        await ops.call("ingest", documents=[{"id": "a", "text": "rotate logs"}])
        found = await ops.call("search", query="logs")
        async with ops.stream("watch", from_="beginning") as events:
            first = await anext(events)

A field whose name is a word of Python's own takes an underscore behind it (`from_`). Errors are raised as VecError.
Fixtures for tests, which may be `async def`, are in tests/ops/conftest.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sized
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import PATIENCE_S
from vecd import limits
from vecd.engine.engine import Engine
from vecd.errors import Code, VecError
from vecd.jobs.jobs import Jobs
from vecd.jobs.scheduler import Scheduler
from vecd.ops.runner import Runner
from vecd.ops.service import Service
from vecd.ops.table import OPS, Immediate, Op
from vecd.settings import load
from vecd.wire.messages import Request, encode, encode_part

#: Messages of one stream that wait for their reader before the stream does.
WINDOW = 4


class Daemon:
    """What vecd is without its sockets: an engine, jobs and a scheduler, on the running event loop."""

    def __init__(self, service: Service, stopping: asyncio.Event) -> None:
        self.service = service
        self.engine = service.engine
        self.jobs = service.jobs
        self.stopping = stopping  # somebody has asked for a shutdown

    def connect(self, ops: Mapping[str, Op | Immediate] = OPS, **options: Any) -> Ops:
        """A sender of its own."""
        return Ops(self.service, ops, **options)


@contextlib.asynccontextmanager
async def daemon(folder: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Daemon]:
    """Everything lives in the folder. Jobs run; schedules do not."""
    settings = load({"VEC_HOME": str(folder), "VEC_EMBEDDER": "hash", **(environment or {})})
    settings.data.mkdir(parents=True, exist_ok=True)
    loop, failures = asyncio.get_running_loop(), list[VecError]()
    engine = Engine(settings)
    engine.open(loop, failures.append)
    jobs = Jobs(engine, settings.workers)
    jobs.open(loop)
    jobs.start()
    stopping = asyncio.Event()
    try:
        yield Daemon(Service(jobs, Scheduler(jobs), stopping.set), stopping)
    finally:
        await jobs.stop()
        await asyncio.to_thread(jobs.close)
        engine.end_tasks()
        await asyncio.to_thread(engine.close)
    assert not failures, failures


class Ops:
    """One sender. `message_bytes_max` is the size of a message that the transport refuses to carry beyond."""

    def __init__(
        self,
        service: Service,
        ops: Mapping[str, Op | Immediate] = OPS,
        *,
        window: int = WINDOW,
        message_bytes_max: int = limits.FRAME_BYTES_MAX,
    ) -> None:
        self.runner = Runner(service, self._changed, ops)
        self.window = window
        self.message_bytes_max = message_bytes_max
        self.unread_bytes = 0
        self.closed = False
        self._budget = service.budget
        self._numbers = itertools.count(1)
        self._moved = asyncio.Event()  # a request was taken or answered

    async def call(self, op: str, /, **fields: Any) -> dict[str, Any]:
        """The answer: a result's body; or, of a stream, its end with all `items`."""
        return await (await self.send(op, **fields)).whole()

    async def send(self, op: str, /, **fields: Any) -> Answer:
        """Sends a request when the runner takes one more; its answer may be awaited later."""
        while not self.runner.takes_more:
            self._moved.clear()
            await self._moved.wait()
        return self.push(op, **fields)

    def push(self, op: str, /, *, number: int | None = None, **fields: Any) -> Answer:
        """Sends a request at once, whatever is unanswered. `number` is another one than the next."""
        fields = {name.removesuffix("_"): value for name, value in fields.items()}
        request = Request(op, next(self._numbers) if number is None else number, fields)
        answer = Answer(self, request.id)
        self.runner.run(request, answer, len(encode(fields)))
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, op: str, /, **fields: Any) -> AsyncIterator[Answer]:
        """The answer, item by item. If the block ends before it, it is cancelled."""
        answer = await self.send(op, **fields)
        try:
            yield answer
        finally:
            if not answer.is_over and not self.closed:
                await answer.cancel()

    async def drain(self) -> None:
        """As a transport does when the daemon stops: takes no more, and waits until all is answered."""
        self.runner.drain()
        while not self.runner.is_idle:
            self._moved.clear()
            await self._moved.wait()

    def hang_up(self) -> None:
        """The sender is gone, as when a connection is lost."""
        self.closed = True
        self.runner.abandon()
        self.count(-self.unread_bytes)

    def count(self, change: int) -> None:
        """So many bytes more wait for their reader."""
        if change and not (self.closed and change > 0):
            self.unread_bytes += change
            self._budget.unread_changed(change)

    def _changed(self) -> None:
        self._moved.set()


class EncodedPart:
    """A part of a stream as Python objects, and what it takes as bytes."""

    def __init__(self, body: dict[str, Any], size: int) -> None:
        self.body = body
        self._size = size

    def __len__(self) -> int:
        return self._size


def plain(body: dict[str, Any]) -> EncodedPart:
    """The `encode_part` of this transport."""
    return EncodedPart(body, len(encode_part(body)))


class Answer:
    """The Reply of one request, and what the test reads of it: an async iterator over the items."""

    def __init__(self, ops: Ops, number: int) -> None:
        self.number = number
        self.ending: dict[str, Any] | None = None  # the body of the result or of the end
        self.failure: VecError | None = None
        self.streamed = False  # it ended with `end`
        self.messages: deque[tuple[dict[str, Any], int]] = deque()  # of the stream, not read yet, and their bytes
        self._ops = ops
        self._items: deque[Any] = deque()  # of the message that is being read
        self._came = asyncio.Event()
        self._read = asyncio.Event()

    # --- what the runner sends --------------------------------------------------------------------------------------

    def result(self, body: dict[str, Any]) -> None:
        self._measured(body)
        self._over(body)

    def items(self, items: list[Any], extra: dict[str, Any]) -> int:
        body = {"items": items, **extra}
        size = self._measured(body)
        self._queue(body, size)
        return size

    def part(self, body: Sized) -> None:
        assert isinstance(body, EncodedPart)
        self._queue(body.body, len(body))

    def end(self, body: dict[str, Any]) -> None:
        self.streamed = True
        self._over(body)

    def error(self, error: VecError) -> None:
        self._over(None, error)

    @property
    def encode_part(self) -> Callable[[dict[str, Any]], Sized]:
        return plain

    @property
    def is_writable(self) -> bool:
        return len(self.messages) < self._ops.window and not self._ops.closed

    async def writable(self) -> None:
        while not self.is_writable:
            if self._ops.closed:
                raise asyncio.CancelledError
            self._read.clear()
            await self._read.wait()

    @property
    def unread_bytes(self) -> int:
        return self._ops.unread_bytes

    def _measured(self, body: dict[str, Any]) -> int:
        size = len(encode_part(body)) if body else 1
        if size > self._ops.message_bytes_max:
            raise VecError(Code.FRAME_TOO_LARGE, f"a message of {size:,} bytes")
        return size

    def _queue(self, body: dict[str, Any], size: int) -> None:
        assert not self.is_over, "a message after the end"
        if not self._ops.closed:
            self.messages.append((body, size))
            self._ops.count(size)
            self._came.set()

    def _over(self, body: dict[str, Any] | None, failure: VecError | None = None) -> None:
        assert not self.is_over, "a second answer"
        self.ending, self.failure = body, failure
        self._came.set()

    # --- what the test reads ----------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the whole answer has been sent, though perhaps not read."""
        return self.ending is not None or self.failure is not None

    async def message(self) -> dict[str, Any] | None:
        """The next message of the stream; None at its end. Raises the VecError that ended it."""
        while not self.messages:
            if self.failure is not None:
                raise self.failure
            if self.ending is not None:
                return None
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), PATIENCE_S)
        body, size = self.messages.popleft()
        self._ops.count(-size)
        self._read.set()
        return body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            message = await self.message()
            if message is None:
                raise StopAsyncIteration
            self._items.extend(message["items"])
        return self._items.popleft()

    async def take(self, count: int) -> list[Any]:
        """The next items, so many."""
        return [await anext(self) for _ in range(count)]

    async def whole(self) -> dict[str, Any]:
        """Reads to the end: the result's body, or the end's with all `items` that are left."""
        items = [item async for item in self]
        assert self.ending is not None
        return {"items": items, **self.ending} if self.streamed else self.ending

    async def cancel(self) -> dict[str, Any]:
        """Cancels the stream; returns its end, with the items that were not read."""
        assert await self._ops.call("cancel", target=self.number) == {"cancelled": True}
        return await self.whole()
