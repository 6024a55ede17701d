"""Output formats of `vec watch`, as NDJSON: events, or lines that `vec ingest` accepts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from vecd import limits
from vecd.errors import Code, VecError
from vecd.wire.event_documents import document_form
from vecd.wire.event_lines import event_object, unpack_vectors

from .output import load_orjson

#: The settings that a mirror takes from the library that it is of.
_SETTINGS = frozenset(
    (
        "dimension", "metric", "index", "parameters", "embedder", "embedder_parameters", "first_embedder",
        "chunk_chars", "chunk_overlap", "recall", "language",
    )
)  # fmt: skip


class EventLines:
    """Formats events; vectors are lists of numbers."""

    def __init__(self, *, payload: bool, vectors: bool) -> None:
        #: Arguments of `Client.watch` that this format needs.
        self.asks: dict[str, Any] = {"payload": payload or vectors, "vectors": vectors}
        self.refused = 0  # documents that could not be written
        self.end: VecError | None = None  # why there are no more lines, though there may be more events
        self._vectors = vectors
        orjson = load_orjson()
        self._dumps: Callable[[Any], bytes] = partial(orjson.dumps, option=orjson.OPT_APPEND_NEWLINE)

    def lines(self, events: Iterable[dict[str, Any]]) -> list[bytes]:
        """A line for each event, with a newline. Changes the events."""
        return [self._dumps(each) for each in self.objects(events)]

    def objects(self, events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return map(event_object, events)


class IngestLines(EventLines):
    """Formats documents as `vec ingest` accepts them: a library that ingests them equals the watched one."""

    def __init__(self, *, vectors: bool) -> None:
        super().__init__(payload=True, vectors=vectors)
        self.asks |= {"replaced": False, "types": ["document.*", "library.deleted"]}

    def lines(self, events: Iterable[dict[str, Any]]) -> list[bytes]:
        found: list[bytes] = []
        for event in events:
            kind, data = event["type"], event["data"]
            if kind == "library.deleted":
                self.end = VecError(
                    Code.NOT_FOUND,
                    f"library {event['library']!r} was deleted at {event['cursor']}",
                    "the documents in the mirror remain; start over with --snapshot and without a cursor",
                )
                break
            if kind == "snapshot.library":
                settings = {key: value for key, value in data.items() if key in _SETTINGS and value not in (None, {})}
                found.append(self._dumps({"op": "create", "settings": settings}))
                continue
            if kind == "snapshot.end":
                continue
            if kind == "document.deleted" or data.get("left"):
                found.append(self._dumps({"op": "delete", "id": data["id"]}))
            elif (line := self._document(event)) is not None:
                found.append(line)
        return found

    def _document(self, event: dict[str, Any]) -> bytes | None:
        """The document's line; None, with a message on stderr, if it cannot have one."""
        document = event["data"].get("document")
        its_id, where = event["data"]["id"], event["cursor"] or event["seq"]
        if document is None:
            self._refuse(its_id, where, "it is too large for a message")
            return None
        if self._vectors:
            unpack_vectors(event["data"])
        line = document_form(document, vectors=self._vectors)
        vectors = line.pop("vectors", None)
        has_text = "texts" in line or ("title" in line and len(document["chunks"]) == 1)
        if vectors is not None:
            written = self._dumps({**line, "vectors": vectors})
            if len(written) <= limits.LINE_BYTES_MAX:
                return written
            if has_text:
                _say(f"document {its_id!r} ({where}) exceeds the limit of a line; its vectors are omitted")
        elif not has_text:
            self._refuse(its_id, where, "it has no text and no title, and vectors are omitted")
            return None
        written = self._dumps(line)
        if has_text and len(written) <= limits.LINE_BYTES_MAX:
            return written
        self._refuse(its_id, where, f"its line would exceed {limits.LINE_BYTES_MAX:,} bytes")
        return None

    def _refuse(self, its_id: str, where: Any, why: str) -> None:
        self.refused += 1
        _say(f"document {its_id!r} ({where}) was skipped: {why} ({Code.TOO_LARGE})")


def _say(line: str) -> None:
    print(f"vec: {line}", file=sys.stderr, flush=True)
