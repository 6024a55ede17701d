"""The smallest transport: ops called in this process, without a socket. Answers are Python objects.

    async with daemon(folder) as here:
        ops = here.connect()
        await ops.call("ingest", documents=[{"id": "a", "text": "rotate logs"}])
        found = await ops.call("search", query="logs")
        async with ops.stream("watch", from_="beginning") as events:
            first = await anext(events)

A field whose name is a Python keyword takes a trailing underscore (`from_`). Errors are raised as VecError.
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

#: Unread messages of one stream beyond which the stream waits for its reader.
WINDOW = 4


class Daemon:
    """The daemon without its sockets: an engine, jobs and a scheduler, on the running event loop."""

    def __init__(self, service: Service, stopping: asyncio.Event) -> None:
        self.service = service
        self.engine = service.engine
        self.jobs = service.jobs
        self.stopping = stopping  # set by a request to shut down

    def connect(self, ops: Mapping[str, Op | Immediate] = OPS, **options: Any) -> Ops:
        """A new sender."""
        return Ops(self.service, ops, **options)


@contextlib.asynccontextmanager
async def daemon(folder: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Daemon]:
    """A daemon whose data is in `folder`. Jobs run; schedules do not."""
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
    """One sender. `message_bytes_max` is the largest message that the transport accepts."""

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
        """Sends a request; returns the body of its result, or of a stream's end with all `items`."""
        return await (await self.send(op, **fields)).whole()

    async def send(self, op: str, /, **fields: Any) -> Answer:
        """Sends a request as soon as the runner accepts one; its answer can be awaited later."""
        while not self.runner.takes_more:
            self._moved.clear()
            await self._moved.wait()
        return self.push(op, **fields)

    def push(self, op: str, /, *, number: int | None = None, **fields: Any) -> Answer:
        """Sends a request at once, even if too many are unanswered. `number` overrides the next request id."""
        fields = {name.removesuffix("_"): value for name, value in fields.items()}
        request = Request(op, next(self._numbers) if number is None else number, fields)
        answer = Answer(self, request.id)
        self.runner.run(request, answer, len(encode(fields)))
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, op: str, /, **fields: Any) -> AsyncIterator[Answer]:
        """The answer, to iterate over its items. A stream that is not over at the end of the block is cancelled."""
        answer = await self.send(op, **fields)
        try:
            yield answer
        finally:
            if not answer.is_over and not self.closed:
                await answer.cancel()

    async def drain(self) -> None:
        """Like a transport when the daemon stops: accepts no more requests, and waits until all are answered."""
        self.runner.drain()
        while not self.runner.is_idle:
            self._moved.clear()
            await self._moved.wait()

    def hang_up(self) -> None:
        """Ends the sender, as a lost connection does."""
        self.closed = True
        self.runner.abandon()
        self.count(-self.unread_bytes)

    def count(self, change: int) -> None:
        """Adds to the number of unread bytes."""
        if change and not (self.closed and change > 0):
            self.unread_bytes += change
            self._budget.unread_changed(change)

    def _changed(self) -> None:
        self._moved.set()


class EncodedPart:
    """A message of a stream as Python objects, and its encoded size."""

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
        self.streamed = False  # whether it ended with `end`
        self.messages: deque[tuple[dict[str, Any], int]] = deque()  # unread messages of the stream, and their bytes
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
        size = len(encode(body))
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
        """Whether the whole answer has been sent; it may be unread."""
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
        """The next `count` items."""
        return [await anext(self) for _ in range(count)]

    async def whole(self) -> dict[str, Any]:
        """Reads to the end: the body of the result, or of the end with all unread `items`."""
        items = [item async for item in self]
        assert self.ending is not None
        return {"items": items, **self.ending} if self.streamed else self.ending

    async def cancel(self) -> dict[str, Any]:
        """Cancels the stream; returns its end, with the unread items."""
        assert await self._ops.call("cancel", target=self.number) == {"cancelled": True}
        return await self.whole()
