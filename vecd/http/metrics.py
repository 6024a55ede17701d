"""Metrics in Prometheus's text format (version 0.0.4): what the gateway counts, and the daemon's figures.

Written by hand: the format is three kinds of line, and the usual client library costs more per request than the
counting does. `Metrics.measured` is a pure ASGI middleware around the whole application; it sees every request and
WebSocket, also refused ones, and nobody else has to report. All state belongs to the event loop's thread.

Labels are bounded. A request is labelled with the template of its route, never with its path; methods and statuses are
those of HTTP; only the largest libraries, and the consumers that lag most, have lines of their own.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from .. import __version__, limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds (inclusive) of the latency histogram, in seconds: from a search on a warm connection to a long poll.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_NO_ROUTE: Final = "(none)"
_INDEX_STATES: Final = ("unloaded", "loading", "ready", "failed")
_JOB_STATES: Final = ("pending", "running", "completed", "failed", "cancelled", "dead")


class Family:
    """One metric: its name, type and help, and its samples."""

    def __init__(self, name: str, kind: str, about: str) -> None:
        self.name, self.kind, self.about = name, kind, about
        self._lines: list[str] = []

    def add(self, value: float, suffix: str = "", /, **labels: str) -> Family:
        shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        self._lines.append(f"{self.name}{suffix}{f'{{{shown}}}' if shown else ''} {_number(value)}")
        return self

    def lines(self) -> Iterator[str]:
        if self._lines:
            yield f"# HELP {self.name} {self.about}"
            yield f"# TYPE {self.name} {self.kind}"
            yield from self._lines


class Histogram:
    """Counts of durations, by BUCKETS_S."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def show(self, family: Family, **labels: str) -> None:
        total = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            family.add(total, "_bucket", **labels, le=bound)
        family.add(self.sum_s, "_sum", **labels)
        family.add(total, "_count", **labels)


class Metrics:
    """What this gateway has done since it started."""

    def __init__(self) -> None:
        self._started_s = time.time()
        self._requests: Counter[tuple[str, str, str]] = Counter()  # route, method, status
        self._durations: dict[tuple[str, str], Histogram] = {}  # route, method
        self._bytes: Counter[str] = Counter()  # direction
        self._running: Counter[str] = Counter()  # http, sse or websocket
        self._gauges: list[tuple[str, str, str, Callable[[], float]]] = []
        self._figures: dict[str, Any] = {}
        self._figures_at_s = -limits.METRICS_AGE_S
        self._reading = asyncio.Lock()

    def register(self, name: str, about: str, read: Callable[[], float], kind: str = "gauge") -> None:
        """Adds a metric that is read whenever the metrics are. `kind` is "gauge" or "counter"."""
        self._gauges.append((name, kind, about, read))

    async def figures(self, read: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """What `read` answers, or has answered less than METRICS_AGE_S ago. One call of it at a time."""
        async with self._reading:
            if time.monotonic() - self._figures_at_s >= limits.METRICS_AGE_S:
                self._figures = await read()
                self._figures_at_s = time.monotonic()
            return self._figures

    def measured(self, app: ASGIApp) -> ASGIApp:
        """The application, measured. It must be the outermost one, and may not copy the scope."""

        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket"):
                await _Measured(self, scope, receive, send).run(app)
            else:
                await app(scope, receive, send)

        return middleware

    def families(self) -> Iterator[Family]:
        """The gateway's metrics."""
        yield Family("vec_http_info", "gauge", "The version of the gateway.").add(1, version=__version__)
        requests = Family("vec_http_requests_total", "counter", "Answers, by the route, the method and the status.")
        for (route, method, status), count in sorted(self._requests.items()):
            requests.add(count, route=route, method=method, status=status)
        yield requests
        durations = Family(
            "vec_http_request_duration_seconds",
            "histogram",
            "Time until the last byte of an answer; of an event stream, until the first. WebSockets do not count.",
        )
        for (route, method), histogram in sorted(self._durations.items()):
            histogram.show(durations, route=route, method=method)
        yield durations
        transferred = Family("vec_http_body_bytes_total", "counter", "Bytes of bodies and of WebSocket messages.")
        for direction in ("received", "sent"):
            transferred.add(self._bytes[direction], direction=direction)
        yield transferred
        running = Family("vec_http_open", "gauge", "Requests, event streams and WebSockets that are open now.")
        for kind in ("request", "event_stream", "websocket"):
            running.add(self._running[kind], kind=kind)
        yield running
        for name, kind, about, read in self._gauges:
            yield Family(name, kind, about).add(read())
        yield from _process(self._started_s)


class _Measured:
    """One request or WebSocket."""

    __slots__ = ("_began_s", "_kind", "_metrics", "_receive", "_scope", "_send", "_status")

    def __init__(self, metrics: Metrics, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics, self._scope, self._receive, self._send = metrics, scope, receive, send
        self._kind = "websocket" if scope["type"] == "websocket" else "request"
        self._status = 0
        self._began_s = time.perf_counter()

    async def run(self, app: ASGIApp) -> None:
        running = self._metrics._running
        running[self._kind] += 1
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            running[self._kind] -= 1
            route, method = _route(self._scope), self._scope.get("method", "WEBSOCKET")
            if method not in _METHODS and method != "WEBSOCKET":
                method = "other"
            # 499, as nginx counts it: the client left before an answer began.
            self._metrics._requests[route, method, str(self._status or 499)] += 1
            if self._kind == "request" and self._status:
                self._observe()

    def _observe(self) -> None:
        method = self._scope["method"]
        key = _route(self._scope), method if method in _METHODS else "other"
        if (histogram := self._metrics._durations.get(key)) is None:
            histogram = self._metrics._durations[key] = Histogram()
        histogram.observe(time.perf_counter() - self._began_s)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._metrics._bytes["received"] += len(message.get("body", b""))
        elif message["type"] == "websocket.receive":
            self._metrics._bytes["received"] += _size(message)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.body", "websocket.http.response.body"):
            self._metrics._bytes["sent"] += len(message.get("body", b""))
        elif kind == "websocket.send":
            self._metrics._bytes["sent"] += _size(message)
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._status = message["status"]
            if kind == "http.response.start" and _is_event_stream(message.get("headers", ())):
                self._observe()
                self._metrics._running[self._kind] -= 1
                self._kind = "event_stream"
                self._metrics._running[self._kind] += 1
        elif kind == "websocket.accept":
            self._status = 101
        elif kind == "websocket.close" and not self._status:
            self._status = 403  # what a server answers if the application closes before it accepts
        await self._send(message)


def _size(message: Message) -> int:
    if data := message.get("bytes"):
        return len(data)
    text = message.get("text") or ""
    return len(text) if text.isascii() else len(text.encode())


def _route(scope: Scope) -> str:
    """The path of the endpoint, by which its route is named (app.py)."""
    name = getattr(scope.get("route"), "name", None)
    return name if isinstance(name, str) else _NO_ROUTE


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def text(families: Iterable[Family]) -> str:
    """The exposition: what a scrape answers."""
    return "\n".join(line for family in families for line in family.lines()) + "\n"


# --- the process ----------------------------------------------------------------------------------------------------


def _process(started_s: float) -> Iterator[Family]:
    """The usual metrics of a process, by their usual names."""
    yield Family("process_start_time_seconds", "gauge", "When the gateway started, as Unix time.").add(started_s)
    yield Family("process_cpu_seconds_total", "counter", "The gateway's processor time.").add(time.process_time())
    try:
        import os

        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:  # without /proc, as on macOS
        return
    yield Family("process_resident_memory_bytes", "gauge", "The gateway's memory.").add(resident)
    yield Family("process_open_fds", "gauge", "The gateway's open file descriptors.").add(descriptors)


# --- the daemon -----------------------------------------------------------------------------------------------------


def daemon_families(
    status: Mapping[str, Any] | None,
    consumers: Iterable[Mapping[str, Any]] | None = (),
    disk: Mapping[str, int] | None = None,
) -> Iterator[Family]:
    """The daemon's metrics from its answers to `status` and `consumers.list`; without a status, the daemon is down.
    Without `consumers`, who asks may not see them. `disk` has the bytes of the store (`store`), and the file system's
    `free` and `total`."""
    yield Family("vec_daemon_up", "gauge", "1 if the daemon answers.").add(0 if status is None else 1)
    if disk is not None:
        yield Family("vec_store_bytes", "gauge", "Size of the store and its write-ahead log.").add(disk["store"])
        yield Family("vec_disk_free_bytes", "gauge", "Free space where the store is.").add(disk["free"])
        yield Family("vec_disk_total_bytes", "gauge", "Size of the file system of the store.").add(disk["total"])
    if status is None:
        return
    yield Family("vec_daemon_info", "gauge", "The daemon's version, and the id of its log.").add(
        1, version=status["version"], log=status["log"]
    )
    head, oldest = status["seq"], int(status["oldest"].rpartition(":")[2])
    yield Family("vec_daemon_uptime_seconds", "gauge", "Time since the daemon started.").add(status["uptime_s"])
    yield Family("vec_daemon_resident_memory_bytes", "gauge", "The daemon's memory.").add(status["memory_bytes"])
    yield Family("vec_daemon_connections", "gauge", "Connections to the daemon's socket.").add(status["connections"])
    yield Family("vec_daemon_watchers", "gauge", "Subscriptions to the log.").add(status["watchers"])
    yield Family("vec_log_head_seq", "gauge", "Sequence number of the last event.").add(head)
    yield Family("vec_log_trimmed_seq", "gauge", "Sequence number of the last event that was trimmed.").add(oldest)
    jobs = Family("vec_jobs", "gauge", "Background jobs, by state; the ended ones as far as they are kept.")
    for state in _JOB_STATES:
        jobs.add(status["jobs"][state], state=state)
    yield jobs
    yield Family("vec_job_workers", "gauge", "Threads for background jobs.").add(status["jobs"]["workers"])
    yield from _library_families(status["libraries"])
    if consumers is not None:
        yield from _consumer_families(list(consumers), head)


def _library_families(libraries: list[Mapping[str, Any]]) -> Iterator[Family]:
    by_state = Family("vec_libraries", "gauge", "Libraries, by the state of their index in memory.")
    counted = Counter(library["memory"]["state"] for library in libraries)
    for name in _INDEX_STATES:
        by_state.add(counted[name], state=name)
    yield by_state
    missed = sum(library["recall"]["met"] is False for library in libraries)
    yield Family("vec_libraries_recall_missed", "gauge", "Libraries that miss their promised recall.").add(missed)
    documents = Family("vec_library_documents", "gauge", "Documents of a library; of the largest libraries.")
    chunks = Family("vec_library_chunks", "gauge", "Chunks of a library.")
    ready = Family("vec_library_index_ready", "gauge", "1 if the library's index is in memory and answers.")
    memory = Family("vec_library_index_bytes", "gauge", "Memory of a library's index, and of its full-text index.")
    recall = Family("vec_library_recall_met", "gauge", "1 if the library meets its promised recall, 0 if it misses it.")
    largest = sorted(libraries, key=lambda library: (-library["chunks"], library["name"]))
    for library in largest[: limits.METRICS_LABELS_MAX]:
        name, held = library["name"], library["memory"]
        documents.add(library["documents"], library=name)
        chunks.add(library["chunks"], library=name)
        ready.add(held["state"] == "ready", library=name)
        memory.add(held.get("memory_bytes", 0), library=name, index="vectors")
        memory.add(held.get("text", {}).get("memory_bytes", 0), library=name, index="text")
        if library["recall"]["met"] is not None:
            recall.add(library["recall"]["met"], library=name)
    yield from (documents, chunks, ready, memory, recall)


def _consumer_families(consumers: list[Mapping[str, Any]], head: int) -> Iterator[Family]:
    yield Family("vec_consumers", "gauge", "Consumers of the log.").add(len(consumers))
    lag = Family("vec_consumer_lag_events", "gauge", "Events after a consumer's cursor; of those that lag most.")
    held = Family("vec_consumer_held", "gauge", "1 if a watch holds the consumer.")
    slowest = sorted(consumers, key=lambda consumer: (-consumer["lag"], consumer["name"]))
    for consumer in slowest[: limits.METRICS_LABELS_MAX]:
        lag.add(min(consumer["lag"], head), consumer=consumer["name"])
        held.add(consumer["holder"] is not None, consumer=consumer["name"])
    yield from (lag, held)


# --- the format -----------------------------------------------------------------------------------------------------


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int) else repr(float(value))
