"""Streaming ingest: NDJSON in, by chunks of any length, and the outcome of each document out while it goes on.

Lines become batches, of which WINDOW are in flight, as `vec ingest` does it (wire/ingest_batch.py); so memory is
bounded for an endless body. Two tasks work: one reads the body and sends batches, the other takes the daemon's answers
in order. What both say goes through one bounded queue to the client, so one that does not read its answer stops the
reading of its body.

Every line that was read gets an outcome. If the connection to the daemon is lost, batches without an answer are sent
again, which is safe: writing the same document twice changes nothing. What ends the stream early (a stopping gateway, a
library that was deleted) is the `error` of the summary, which is always the last line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect

from .. import limits
from ..client.aio import AsyncClient
from ..errors import Code, VecError
from ..json_values import id_text
from ..wire.decompress import decompressed
from ..wire.encodings import utf8
from ..wire.ingest_batch import BATCH_DOCUMENTS, IDLE_S, STATUSES, WINDOW, IngestBatch, Outcome
from ..wire.mapping import DocumentMapping
from ..wire.ndjson import Line, split
from .call import Call
from .mappings import saved_mapping

log = logging.getLogger("vecd.http")

#: Parts of the answer that wait for the client.
_OUT_MAX: Final = 2 * WINDOW
#: Lines between two looks at the clock, and how long the event loop is kept.
_LINES_A_LOOK: Final = 64
_SLICE_S: Final = 0.005
_RECONNECTS_MAX: Final = 6
_NAME: Final = "body"


class _Pieces:
    """The body's chunks, for the reader of lines, which is sans I/O: None means that there is none yet."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.ended = False
        self.starved = False  # None was returned: the reader needs the next chunk

    def __iter__(self) -> _Pieces:
        return self

    def __next__(self) -> bytes | None:
        if self.waiting:
            return self.waiting.popleft()
        if self.ended:
            raise StopIteration
        self.starved = True
        return None


class IngestStream:
    """One request. `open` it, and send `parts`, which also closes it."""

    def __init__(self, call: Call, *, progress: bool, failed_only: bool, mapped: bool) -> None:
        """`mapped`: lines are objects that become documents by the library's mapping, if it has one."""
        self._call = call
        self._mapped = mapped
        self._mapping: DocumentMapping | None = None
        self._library = call.path["library"]
        self._progress = progress  # also say which documents are being processed
        self._failed_only = failed_only
        self._client: AsyncClient
        self._chunks = call.request.stream()
        self._receiving: asyncio.Future[bytes] | None = None
        self._batch = IngestBatch()
        self._lines = 0  # taken
        self._flying: deque[IngestBatch] = deque()  # sent, and not answered
        self._window = asyncio.Semaphore(WINDOW)
        self._sent = asyncio.Event()  # something was sent, or all was read
        self._read_all = False
        self._stopped = asyncio.Event()  # no more of the body is read
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue(_OUT_MAX)
        self._counts: Counter[str] = Counter()
        self._seq: int | None = None
        self._error: VecError | None = None
        self._gone = False  # the client

    async def open(self) -> None:
        """Connects, and begins to read the body. Raises VecError, also for a library that does not exist."""
        self._client = await self._call.gateway.pool.connect()
        try:
            self._seq = (await self._client.request("count", library=self._library))["seq"]
            if self._mapped:
                self._mapping = await saved_mapping(self._client.request, self._library)
        except BaseException:
            self._client.close()
            raise
        # Before the answer begins: a client may wait for "100 Continue", which comes with the first read.
        self._receiving = asyncio.ensure_future(anext(self._chunks))
        await asyncio.sleep(0)

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The answer. Never raises a VecError."""
        began = time.monotonic()
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(each) for each in (self._read(), self._take_answers(), self._stop_with_gateway())
        ]
        try:
            while (part := await self._out.get()) is not None:
                if part:
                    yield part
            yield self._summary(time.monotonic() - began)
            await self._linger()
        finally:
            if self._receiving is not None:
                tasks.append(self._receiving)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._client.close()

    # --- the body ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            await self._read_lines()
            if not self._gone:
                await self._send()
        except VecError as error:  # damaged gzip
            self._fail(error)
            await self._send()
        except Exception as error:
            log.error("the body of an ingest stream could not be read", exc_info=error)
            self._fail(VecError(Code.INTERNAL, f"an internal error ({error!r:.200})"))
        finally:
            self._read_all = True
            self._sent.set()

    async def _read_lines(self) -> None:
        pieces = _Pieces()
        yield_at = time.perf_counter() + _SLICE_S
        for count, line in enumerate(split(_NAME, utf8(_NAME, "ndjson", _pausing(decompressed(_NAME, pieces))))):
            if self._stopped.is_set():
                return
            if line is not None:
                await self._add(line)
            elif pieces.starved:
                pieces.starved = False
                if not await self._receive(pieces):
                    return
                yield_at = time.perf_counter() + _SLICE_S
            if not count % _LINES_A_LOOK and time.perf_counter() > yield_at:
                await asyncio.sleep(0)
                yield_at = time.perf_counter() + _SLICE_S

    async def _receive(self, pieces: _Pieces) -> bool:
        """Waits for the next chunk; a pause sends what there is. False if nothing more is to be read."""
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            while True:
                if self._receiving is None:
                    self._receiving = asyncio.ensure_future(anext(self._chunks))
                idle_s = None if self._batch.empty else IDLE_S
                done, _ = await asyncio.wait(
                    (self._receiving, stopped), timeout=idle_s, return_when=asyncio.FIRST_COMPLETED
                )
                if self._receiving in done:
                    break
                if stopped in done:
                    return False
                await self._send()
        finally:
            stopped.cancel()
        receiving, self._receiving = self._receiving, None
        try:
            piece = receiving.result()
        except ClientDisconnect:
            self._gone = True
            return False
        except StopAsyncIteration:
            piece = b""
        if piece:
            pieces.waiting.append(piece)
        else:
            pieces.ended = True
        return True

    async def _add(self, line: Line) -> None:
        if not self._batch.has_room(line):
            await self._send()
        order, self._lines = self._lines, line.number
        if self._batch.add(line, order, self._mapping) and self._batch.is_full(BATCH_DOCUMENTS):
            await self._send()

    async def _stop_with_gateway(self) -> None:
        await self._call.gateway.stopping.wait()
        if not self._read_all:
            self._fail(
                VecError(
                    Code.SHUTTING_DOWN,
                    f"the gateway is stopping, and has read the body up to line {self._lines:,}",
                    "send the rest again",
                    line=self._lines,
                )
            )

    async def _linger(self) -> None:
        """After an early end, reads on for a moment: closing a connection with unread data would discard our last
        lines before the client has read them."""
        with contextlib.suppress(TimeoutError, ClientDisconnect, StopAsyncIteration):
            async with asyncio.timeout(limits.HTTP_CLOSE_S):
                while True:
                    receiving = self._receiving or asyncio.ensure_future(anext(self._chunks))
                    self._receiving = None
                    if not await receiving:
                        return

    # --- batches ----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Sends the current batch."""
        batch, self._batch = self._batch, IngestBatch()
        if not batch.empty:
            await self._send_batch(batch)

    async def _send_batch(self, batch: IngestBatch) -> None:
        await self._window.acquire()
        self._flying.append(batch)
        try:
            self._submit(batch)
        except VecError as error:
            if error.code not in (Code.FRAME_TOO_LARGE, Code.INVALID_REQUEST):
                raise
            if len(batch.documents) > 1:
                self._flying.pop()
                self._window.release()
                for half in batch.halves():
                    await self._send_batch(half)
                return
            batch.refuse(error)
        self._sent.set()
        if self._progress and batch.documents:
            await self._out.put(_processing(batch))
        with contextlib.suppress(VecError):  # the one who takes the answers sees it too
            await self._client.drain()

    def _submit(self, batch: IngestBatch) -> None:
        """Sends a batch; one for which there is no connection is sent by `_reconnect`."""
        if batch.documents and self._client.lost is None:
            batch.pending = self._client.submit(
                "ingest", library=self._library, documents=batch.documents, detail=None if self._failed_only else True
            )

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _take_answers(self) -> None:
        try:
            while True:
                while not self._flying:
                    if self._read_all:
                        await self._out.put(None)
                        return
                    self._sent.clear()
                    await self._sent.wait()
                batch = self._flying[0]
                answer = await self._answer(batch)
                self._flying.popleft()
                self._window.release()
                await self._out.put(self._tell(batch, answer))
        except asyncio.CancelledError:
            raise  # nobody takes parts any more, so another one may wait for ever
        except Exception as error:
            log.error("the answers of an ingest stream failed", exc_info=error)
            self._fail(VecError(Code.INTERNAL, f"an internal error ({error!r:.200})"))
        await self._out.put(None)

    async def _answer(self, batch: IngestBatch) -> dict[str, Any]:
        """The answer to a batch; if there is none, its documents are refused."""
        while batch.documents:
            try:
                if batch.pending is None:
                    await self._reconnect()
                answer: dict[str, Any] = await batch.pending.result()
            except VecError as error:
                if error.disconnected and self._error is None and batch.pending is not None:
                    batch.pending = None
                    continue
                self._fail(error)
                return {"errors": [{"index": index, **error.to_wire()} for index in range(len(batch.documents))]}
            return answer
        return {}

    async def _reconnect(self) -> None:
        """Connects again, and sends everything again that has no answer. Raises VecError."""
        for attempt in range(_RECONNECTS_MAX):
            try:
                client = await self._call.gateway.pool.connect()
                break
            except VecError as error:
                if not error.retryable or attempt == _RECONNECTS_MAX - 1:
                    raise
            await asyncio.sleep(0.05 * 2**attempt)
        self._client.close()
        self._client = client
        for batch in self._flying:
            self._submit(batch)

    def _fail(self, error: VecError) -> None:
        """Ends the reading; the first error is the summary's."""
        self._error = self._error or error
        self._stopped.set()

    def _tell(self, batch: IngestBatch, answer: dict[str, Any]) -> bytes:
        refused = batch.errors(answer)
        for status in STATUSES[:-1]:
            self._counts[status] += answer.get(status, 0)
        self._counts["failed"] += len(refused)
        self._seq = answer.get("seq", self._seq)
        return b"".join([orjson.dumps(_told(each)) + b"\n" for each in batch.outcomes(answer, refused)])

    def _summary(self, elapsed_s: float) -> bytes:
        body: dict[str, Any] = {"status": "summary", **{status: self._counts[status] for status in STATUSES}}
        body |= {"seq": self._seq, "elapsed_s": round(elapsed_s, 3)}
        if self._error is not None:
            body["error"] = self._error.to_wire()
        return orjson.dumps(body) + b"\n"


def _pausing(pieces: Any) -> Any:
    """The pieces, each followed by None: a chunk may be decompressed to many, and the event loop has more to do."""
    for piece in pieces:
        yield piece
        if piece is not None:
            yield None


def _processing(batch: IngestBatch) -> bytes:
    told = [
        {"status": "processing", "line": place.number, "id": id_text(document.get("id"))}
        for place, document in zip(batch.places, batch.documents, strict=True)
    ]
    return b"".join([orjson.dumps(each) + b"\n" for each in told])


def _told(found: Outcome) -> dict[str, Any]:
    document = found.document or {}
    if found.error is not None:
        given = id_text(document.get("id"))
        body = {"status": "failed", "line": found.place.number, "error": found.error.to_wire()}
        return body | {"id": given} if isinstance(given, str) else body
    assert found.outcome is not None
    return {
        "status": "completed", "line": found.place.number, "id": found.outcome["id"], "title": document.get("title"),
        "result": found.outcome["status"], "seq": found.outcome["seq"],
    }  # fmt: skip
