"""kill -9 while documents are written, an index is rebuilt and a snapshot saved: what was acknowledged is all there."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import history
from tests.instance import Instance
from vecd.client import Client, Pending
from vecd.errors import VecError

_ROUNDS = 4
_DIMENSION, _BATCH = 16, 64
_BASE = 17_000  # documents that are there from the beginning: enough for each kind to make a structure
_KINDS = (
    {"index": "hnsw", "parameters": {"m": 4, "ef_construction": 16}},
    {"index": "pq"},
    {"index": "kdtree"},
    {"index": "flat"},
)


def vector(version: int) -> npt.NDArray[np.float32]:
    """Each version of a document has a vector that no other has."""
    return np.random.default_rng(version).normal(size=_DIMENSION).astype(np.float32)


def document(number: str, version: int) -> dict[str, Any]:
    """And a word."""
    return {"id": number, "text": f"version{version}", "vector": vector(version).tobytes()}


def test_after_every_kill_each_acked_document_is_found_by_vector_and_word_and_no_deleted_one_is() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    certain: dict[str, int | None] = {f"d{number}": number for number in range(_BASE)}  # id -> version; None: deleted
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            client.request("library.create", library="docs", embedder="none", dimension=_DIMENSION, **_KINDS[0])
            for start in range(0, _BASE, 4_000):
                versions = range(start, min(_BASE, start + 4_000))
                client.ingest([document(f"d{each}", each) for each in versions], "docs")
        for round_ in range(_ROUNDS):
            with instance.connect() as client:
                unsure = _work_until_killed(client, daemon.pid, chance, certain, (round_ + 1) * 1_000_000)
            assert daemon.wait() == -signal.SIGKILL
            for document_id in unsure:
                certain.pop(document_id, None)  # the outcome is unknown: either is right
            daemon = instance.start()
            with instance.connect() as client:
                _assert_right(client, chance, certain)
        with instance.connect() as client:
            history.check(client)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
        snapshots = (instance.settings.data / "indexes").glob("*")
        assert {path.name for path in snapshots} <= {"1.index", "1.text"}  # none half written, none damaged
        assert "level=error" not in instance.log()
        assert "level=warning" not in instance.log()


def _work_until_killed(
    client: Client, pid: int, chance: random.Random, certain: dict[str, int | None], version: int
) -> set[str]:
    """Pipelines writes, rebuilds and searches until the daemon dies; notes what was acknowledged; returns the ids whose
    outcome is unknown."""
    list(client.search(vector=vector(0), library="docs"))
    killer = threading.Timer(chance.uniform(0.05, 1.2), os.kill, (pid, signal.SIGKILL))
    flying: list[tuple[dict[str, int | None], Pending]] = []
    unsure: set[str] = set()
    killer.start()
    try:
        while True:
            kind = chance.choice(_KINDS)
            flying.append(({}, client.submit("library.rebuild", library="docs", **kind)))
            for _ in range(chance.randrange(2, 12)):
                changes: dict[str, int | None] = {}
                for number in chance.sample(range(_BASE + 2_000), _BATCH):
                    version += 1
                    changes[f"d{number}"] = None if chance.random() < 0.3 else version
                documents = [
                    {"op": "delete", "id": key} if each is None else document(key, each)
                    for key, each in changes.items()
                ]
                unsure = set(changes)  # until it is in flight: it may have been sent when the connection breaks
                flying.append((changes, client.submit("ingest", library="docs", documents=documents)))
                unsure = set()
            while len(flying) > 8:
                flying[0][1].result()
                certain.update(flying.pop(0)[0])
    except VecError as error:
        assert error.code == "connection_lost", error
    finally:
        killer.join()
    while flying and flying[0][1].done:  # answers that had arrived and were not looked at
        flying[0][1].result()
        certain.update(flying.pop(0)[0])
    return unsure | {key for changes, _ in flying for key in changes}


def _assert_right(client: Client, chance: random.Random, certain: dict[str, int | None]) -> None:
    """Everything is as it was acknowledged, by the exact search, by the index and by words."""
    there = {key for key, version in certain.items() if version is not None}
    found = {hit["document_id"] for hit in client.search(vector=vector(0), k=100_000, library="docs", exact=True)}
    assert there <= found
    assert not (certain.keys() - there) & found
    for key in chance.sample(sorted(there), 50):
        version = certain[key]
        assert version is not None
        (best,) = client.search(vector=vector(version), k=1, library="docs", exact=True)
        assert (best["document_id"], best["score"]) == (key, pytest.approx(1, abs=1e-5))
        assert [hit["document_id"] for hit in client.search(f"version{version}", mode="text", library="docs")] == [key]
        near = {hit["document_id"] for hit in client.search(vector=vector(version), library="docs")}
        assert len(near) == 10
        assert near <= found
