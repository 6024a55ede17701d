"""What the tests of the feed share: a watch read to its end, one that is read step by step, an instance for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.support.instance import Instance
from vecd.client import Client
from vecd.wire.messages import ReplyMessage

Event = dict[str, Any]

#: The embedder of the instances here.
NO_MODEL = {"VEC_EMBEDDER": "hash"}


@contextlib.contextmanager
def daemon() -> Iterator[tuple[Instance, Client]]:
    """An instance whose embedder needs no model, running, and a connection to it."""
    with Instance(NO_MODEL) as instance:
        instance.start()
        with instance.connect() as client:
            yield instance, client


def put(client: Client, *ids: str, text: str = "a text", library: str = "default", **fields: Any) -> int:
    """Writes these documents; returns the last seq."""
    answer = client.ingest([{"id": each, "text": text, **fields} for each in ids], library)
    assert answer["failed"] == 0, answer["errors"]
    return int(answer["seq"])


def past(client: Client, start: str = "beginning", **fields: Any) -> list[Event]:
    """The events behind `start` up to the head."""
    return read(client, start, **{"follow": False, **fields})[0]


def read(client: Client, start: str = "now", **fields: Any) -> tuple[list[Event], dict[str, Any]]:
    """All events of a watch that ends, and its end."""
    events: list[Event] = []
    for reply in client.pages("watch", **{"from": start, **fields}):
        if reply.kind != "items":
            return events, dict(reply.body)
        events += reply.body
    raise AssertionError("a watch without an end")


class Watching:
    """A watch that goes on, read when it is asked for."""

    def __init__(self, client: Client, start: str = "now", **fields: Any) -> None:
        self.pending = client.submit("watch", **{"from": start, **fields})
        self._replies = self.pending.parts()
        self.cursor = ""
        self.first = self.page()  # it stands

    def page(self) -> ReplyMessage:
        """The next message."""
        reply = next(self._replies)
        self.cursor = (reply.extra if reply.kind == "items" else reply.body)["cursor"]
        return reply

    def events(self, count: int) -> list[Event]:
        """The events that have arrived, when there are at least `count`."""
        events: list[Event] = []
        while len(events) < count:
            reply = self.page()
            assert reply.kind == "items", reply
            events += reply.body
        return events

    def rest(self) -> tuple[list[Event], dict[str, Any]]:
        """What still comes, and the end."""
        events: list[Event] = []
        while (reply := self.page()).kind == "items":
            events += reply.body
        return events, dict(reply.body)


def ids(events: list[Event], kind: str = "document.") -> list[str]:
    """The documents of the events of this kind, in order."""
    return [event["data"]["id"] for event in events if event["type"].startswith(kind)]


def seqs(events: list[Event]) -> list[int]:
    return [event["seq"] for event in events]
