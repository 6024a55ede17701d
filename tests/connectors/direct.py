"""Sinks and readers of transports, opened as the connector process opens them, and batches for them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support.waiting import PATIENCE_S
from vecd.connectors import messages, table
from vecd.connectors.definition import Definition, RelayDefinition, SourceDefinition
from vecd.connectors.messages import InMessage, OutMessage
from vecd.connectors.transport import MessageSink, Opening, SourceReader
from vecd.connectors.url import parse
from vecd.delivery import DeliveryBatch

LOG = "0123456789abcdef"


def _opening(definition: Definition, given: Mapping[str, Any], log: str, stop: threading.Event) -> Opening:
    transport, checked = table.check(definition.direction, definition.url, given)
    return Opening(definition, parse(definition.url), {**table.defaults(transport), **checked}, log, stop)


@contextlib.contextmanager
def open_sink(
    url: str,
    *,
    name: str = "out",
    log: str = LOG,
    generation: int = 1,
    stop: threading.Event | None = None,
    **parameters: Any,
) -> Iterator[MessageSink]:
    definition = RelayDefinition(name=name, url=url, generation=generation)
    opening = _opening(definition, parameters, log, stop or threading.Event())
    sink = table.load_sink(table.transport_of(definition))(opening)
    try:
        yield sink
    finally:
        sink.close()


@contextlib.contextmanager
def open_reader(
    url: str,
    offsets: Mapping[str, str] | None = None,
    *,
    name: str = "in",
    group: str | None = None,
    generation: int = 1,
    stop: threading.Event | None = None,
    **parameters: Any,
) -> Iterator[SourceReader]:
    definition = SourceDefinition(name=name, url=url, library="notes", group=group, generation=generation)
    opening = _opening(definition, parameters, LOG, stop or threading.Event())
    reader = table.load_source(table.transport_of(definition))(opening, offsets or {})
    try:
        yield reader
    finally:
        reader.close()


def events(first: int, last: int, *, log: str = LOG, text: str = "") -> list[OutMessage]:
    """Messages of the events `first` to `last` (inclusive), each of a document of its own."""
    made = [
        {
            "seq": seq, "cursor": f"{log}:{seq}", "type": "document.added", "library": "notes",
            "time": "2026-01-01T00:00:00.000000Z", "data": {"id": f"d{seq}", "title": text or None},
        }
        for seq in range(first, last + 1)
    ]  # fmt: skip
    return messages.encode(made, "vec", log)


def batch(items: Sequence[OutMessage]) -> DeliveryBatch[OutMessage]:
    return DeliveryBatch(items, len(items), items[-1].cursor)


def seqs(bodies: Sequence[bytes]) -> list[int]:
    """The seq of each event, from the lines of `events`."""
    return [json.loads(body)["seq"] for body in bodies]


def read_until(reader: SourceReader, count: int) -> list[InMessage]:
    """Reads until there are `count` messages, or more."""
    found: list[InMessage] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} messages of {count}"
        found += reader.read(count - len(found), 0.2)
    return found
