"""Replays an event log and compares it with the tables: data and events must be written in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vecd.client import Client


def log_of(client: Client) -> list[dict[str, Any]]:
    """All events from the beginning to the head."""
    return list(client.watch("beginning", follow=False))


def replayed(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Library -> document id -> number of chunks, from the events alone. Asserts that each event is valid: seqs are
    consecutive, times never go back, chunk events follow their document's, nothing is added twice."""
    libraries: dict[str, dict[str, int]] = {}
    expected: list[tuple[str, str]] = []  # events that must follow, as (type, chunk id)
    seq, time = 0, ""
    for event in events:
        assert event["seq"] == seq + 1, f"seq {event['seq']} follows {seq}"
        assert event["time"] >= time
        seq, time = event["seq"], event["time"]
        kind, name, data = event["type"], event["library"], event["data"]
        if kind.startswith("chunk."):
            assert (kind, data["chunk_id"]) == expected.pop(0)
            continue
        assert not expected, f"{kind} in the middle of a document's events"
        if kind.startswith("job."):
            assert {"job_id", "kind"} <= data.keys()
            continue
        if kind == "library.created":
            assert name not in libraries
            libraries[name] = {}
            continue
        if kind == "library.deleted":
            del libraries[name]
            continue
        if kind == "library.embedded":
            assert name in libraries
            assert data.keys() == {"embedder", "chunks"}
            continue
        if kind == "index.rebuilt":
            assert name in libraries
            assert data.keys() == {"kind", "parameters", "vectors", "seconds", "reason"}
            continue
        if kind == "index.recall":
            assert name in libraries
            assert data.keys() == {"promise", "met", "queries", "mean", "p5", "worst", "effort"}
            continue
        documents, document_id = libraries[name], data["id"]
        before = documents.pop(document_id, 0)
        assert (kind == "document.added") == (before == 0), f"{kind} of {document_id}"
        expected = [("chunk.deleted", f"{document_id}#{position}") for position in range(before)]
        if kind != "document.deleted":
            documents[document_id] = data["chunks"]
            expected += [("chunk.added", chunk) for chunk in data["chunk_ids"]]
            assert len(data["chunk_ids"]) == data["chunks"]
    assert not expected
    return libraries


def tables(client: Client) -> dict[str, dict[str, int]]:
    """Library -> document id -> number of chunks, from lists; asserts that counts agree with them."""
    found: dict[str, dict[str, int]] = {}
    for each in client.request("library.list")["libraries"]:
        name = each["name"]
        documents = {each["id"]: each["chunks"] for each in client.items("list", "documents", library=name)}
        counted = client.count(name)
        assert (counted["documents"], counted["chunks"]) == (len(documents), sum(documents.values()))
        found[name] = documents
    return found


def check(client: Client) -> dict[str, dict[str, int]]:
    """Asserts that a replay of the whole log gives the tables; returns them."""
    libraries = replayed(log_of(client))
    assert libraries == tables(client)
    return libraries
