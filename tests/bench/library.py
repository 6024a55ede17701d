"""A real daemon with a library of many vectors, for the benchmarks of the indexes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.measure import resident_bytes
from tests.support.instance import Instance
from vecd.client import Client

NAME = "bench"
_BATCH = 500
Floats = npt.NDArray[np.float32]


def fill(client: Client, vectors: Floats, first: int = 0, name: str = NAME) -> None:
    """Writes a document for each vector: its number as id, a text, and metadata to filter by."""
    for start in range(0, len(vectors), _BATCH):
        client.ingest(
            [document(first + row, vectors[row]) for row in range(start, min(start + _BATCH, len(vectors)))], name
        )


def document(number: int, vector: Floats) -> dict[str, Any]:
    thousandth = number * 7_919 % 1_000
    return {"id": str(number), "text": f"text {number}", "vector": vector, "metadata": {"thousandth": thousandth}}


def settle(client: Client, name: str = NAME) -> dict[str, Any]:
    """Waits until the index has nothing left to do; returns what it says of itself."""
    dimension = client.request("library.show", library=name)["dimension"]
    list(client.search(vector=np.zeros(dimension, np.float32), k=1, library=name))  # loads it
    while True:
        told: list[dict[str, Any]] = client.request("library.list")["libraries"]
        memory: dict[str, Any] = next(each for each in told if each["name"] == name)["memory"]
        if memory["state"] == "ready" and memory["maintenance"] is None:
            return memory
        time.sleep(0.1)


@contextmanager
def library(vectors: Floats, **options: Any) -> Iterator[tuple[Instance, Client, int]]:
    """An instance with a library of these vectors, settled; and the daemon's resident size before."""
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect(None) as client:
            before = resident_bytes(daemon.pid)
            client.request("library.create", library=NAME, embedder="none", dimension=vectors.shape[1], **options)
            fill(client, vectors)
            settle(client)
            yield instance, client, before


def found(client: Client, queries: Floats, **options: Any) -> npt.NDArray[np.int64]:
    """The ids of the ten best of each query, -1 where there are fewer: shape (n, 10)."""
    rows = np.full((len(queries), 10), -1, np.int64)
    for place, query in enumerate(queries):
        ids = [int(hit["document_id"]) for hit in client.search(vector=query, library=NAME, **options)]
        rows[place, : len(ids)] = ids
    return rows


def recall(rows: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> float:
    return sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), wanted.tolist(), strict=True)) / wanted.size


def searches_per_second(instance: Instance, queries: Floats, clients: int, seconds: float = 8.0) -> float:
    """What so many clients, each a process with one connection, get answered together."""
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(clients + 1)
    counts = context.Array("l", clients)
    workers = [
        context.Process(target=_search_on, args=(instance, queries, begin, seconds, counts, number))
        for number in range(clients)
    ]
    for worker in workers:
        worker.start()
    begin.wait()
    for worker in workers:
        worker.join()
    return float(sum(counts[number] for number in range(clients))) / seconds


def _search_on(instance: Instance, queries: Floats, begin: Barrier, seconds: float, counts: Any, number: int) -> None:
    with instance.connect(None) as client:
        begin.wait()
        deadline, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < deadline:
            list(client.search(vector=queries[(done * 13 + number * 101) % len(queries)], library=NAME))
            done += 1
    counts[number] = done


def in_turn(queries: Floats, search: Callable[[Floats], Any]) -> Callable[[], Any]:
    """A function that searches for the next query each time."""
    place = -1

    def next_one() -> Any:
        nonlocal place
        place = (place + 1) % len(queries)
        return search(queries[place])

    return next_one
