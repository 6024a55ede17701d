"""Many documents: as a stream with the outcome of each, or as a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson
from starlette.responses import Response

from ... import limits
from ...client.spool import SpoolFile
from ...errors import Code, VecError
from ..call import Call
from ..endpoint import JSON, NDJSON, Answer, Body, Endpoint, Parameter
from ..ingest_stream import IngestStream
from ..jobs import submitted
from ..mappings import MAPPING, wants_mapping
from ..parameters import LIBRARY
from ..schemas import ref
from ..streams import StreamAnswer

_PROGRESS = Parameter(
    "progress", "query", {"type": "boolean"}, "Also say which documents are being processed, before their outcomes."
)
_RESULTS = Parameter(
    "results", "query", {"type": "string", "enum": ["all", "failed"], "default": "all"},
    "Which outcomes to send: `failed` suits a client that reads the answer only after it has sent everything.",
)  # fmt: skip


async def stream(call: Call) -> Response:
    results = call.query.get("results", "all")
    if results not in ("all", "failed"):
        raise VecError(Code.INVALID_REQUEST, f"results must be all or failed, not {results!r:.80}", field="results")
    ingest = IngestStream(
        call,
        progress=call.query.get("progress", False),
        failed_only=results == "failed",
        mapped=wants_mapping(call.query),
    )
    await ingest.open()
    return StreamAnswer(ingest.parts(), NDJSON, duplex=True, closes=True)


async def batch_async(call: Call) -> Response:
    library = call.path["library"]
    await call.daemon("count", library=library)  # reports a missing library before the body is read
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    pieces = _body(call) if "ndjson" in kind or "jsonl" in kind else _documents(call)
    with SpoolFile(await call.unchecked("jobs.spool"), "the body") as copy:
        async for piece in pieces:
            await _on_thread(copy.write, piece)
        await _on_thread(copy.sync)
        params: dict[str, Any] = {"files": [copy.path], "names": ["batch"]}
        if not wants_mapping(call.query):
            params["map"] = []
        return submitted(await call.unchecked("jobs.submit", kind="ingest", params=params, library=library))


async def _on_thread(function: Callable[..., None], *arguments: Any) -> None:
    """Runs what blocks on a thread. A cancelled caller waits for it: a file that is closed while a thread writes to it
    may have its descriptor reused, by a connection of another client."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


async def _body(call: Call) -> AsyncGenerator[bytes, None]:
    """The body, in pieces that are worth a write."""
    held: list[bytes] = []
    size = 0
    async for piece in call.request.stream():
        held.append(piece)
        size += len(piece)
        if size >= limits.MIB:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


async def _documents(call: Call) -> AsyncGenerator[bytes, None]:
    """The documents of a JSON body, a line each."""
    body: dict[str, Any] = await call.json_body(exact=True)
    given = body["documents"]
    if not isinstance(given, list):
        raise VecError(Code.INVALID_REQUEST, "'documents' must be a list", field="documents")
    yield b"".join([orjson.dumps(each) + b"\n" for each in given])


_DOCUMENTS = Body(
    ref("NewDocument"), "A document a line, as for `vec ingest`; can be gzipped.", (NDJSON,), required=False
)

ENDPOINTS = (
    Endpoint(
        "POST", "/v1/libraries/{library}/documents/stream", stream, "write", "Write a stream of documents.",
        "documents",
        {200: Answer("The outcome of each document, while the body is read; the last line is the summary.",
                     ref("IngestLine"), NDJSON)},
        (LIBRARY, _PROGRESS, _RESULTS, MAPPING), _DOCUMENTS, op="ingest",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/documents/batch-async", batch_async, "write",
        "Write documents by a background job.", "documents",
        {202: Answer("The documents and the job are on disk.", ref("Submitted"))}, (LIBRARY, MAPPING),
        Body(ref("AsyncBatch"), "A JSON object, or NDJSON of any length.", (JSON, NDJSON)), op="jobs.submit",
    ),
)  # fmt: skip
