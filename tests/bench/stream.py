"""Searches among 200,000 vectors while documents stream in: p99 of the searches and of the writes' acks.

Wanted: with 1,000 documents/s under 5 ms and under 20 ms. Beside it the same searches in faiss alone, which takes no
writes.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import faiss

from tests.bench import corpus
from tests.bench.library import NAME, Floats, document, in_turn, library, settle
from tests.bench.measure import times_ms, told
from tests.support.instance import Instance
from vecd.client import Client

_VECTORS, _QUERIES, _SECONDS = 200_000, 1_000, 10.0
_RATES = (0, 500, 1_000, 2_000, 5_000)
#: Batches of a stream a second.
_BATCHES_S = 50


def main() -> None:
    extra = int(sum(_RATES) * (_SECONDS + 5))
    _, vectors, what = corpus.vectors(_VECTORS + _QUERIES)
    queries, coming = vectors[_VECTORS:], vectors[:_VECTORS]
    print(f"  {_VECTORS:,} vectors: {what}; up to {extra:,} more, copies of them moved a little")
    alone = faiss.IndexHNSWFlat(256, 24, faiss.METRIC_INNER_PRODUCT)
    alone.hnsw.efConstruction, alone.hnsw.efSearch = 128, 96
    alone.add(vectors[:_VECTORS])
    faiss.omp_set_num_threads(1)
    with library(vectors[:_VECTORS]) as (instance, client, _):
        print(f"  faiss alone: {told(times_ms(in_turn(queries, lambda q: alone.search(q[None], 10)), 2_000))}")
        first = _VECTORS
        for rate in _RATES:
            first = _measure(instance, client, queries, coming, rate, first)


def _measure(instance: Instance, client: Client, queries: Floats, coming: Floats, rate: int, first: int) -> int:
    context = multiprocessing.get_context("fork")
    stop, (near, far) = context.Event(), context.Pipe()
    writer = context.Process(target=_stream, args=(instance, coming, rate, first, stop, far))
    if rate:
        writer.start()
        near.recv()  # the stream has begun
    search = in_turn(queries, lambda q: list(client.search(vector=q, library=NAME)))
    taken: list[float] = []
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        search()
        taken.append((time.perf_counter() - started) * 1e3)
    stop.set()
    acks, written = near.recv() if rate else ([], 0)
    if rate:
        writer.join()
    line = f"  {rate:>5,} documents/s: searches {told(sorted(taken))}"
    if rate:
        line += f"; {written / _SECONDS:,.0f}/s written, acks {told(sorted(acks))}"
    memory = client.request("library.list")["libraries"][0]["memory"]
    print(f"{line}; tail {memory['tail']:,}", flush=True)
    settle(client)
    return first + int(written)


def _stream(instance: Instance, coming: Floats, rate: int, first: int, stop: Event, told: Connection) -> None:
    """Writes batches at that rate; a batch that is late is not waited for twice."""
    size = rate // _BATCHES_S
    taken: list[float] = []
    with instance.connect(None) as client:
        begun, batches = time.perf_counter(), 0
        while not stop.is_set():
            rows = [(first + batches * size + row) for row in range(size)]
            documents = [document(row, coming[row % len(coming)] + 0.01 * coming[row % 977]) for row in rows]
            started = time.perf_counter()
            client.ingest(documents, NAME)
            taken.append((time.perf_counter() - started) * 1e3)
            batches += 1
            if batches == 1:
                told.send("begun")
            time.sleep(max(0.0, begun + batches / _BATCHES_S - time.perf_counter()))
    told.send((taken, batches * size))


if __name__ == "__main__":
    main()
