"""Search by words and by both among 300,000 titles through the socket: one client, and eight together.

    python -m tests.bench.hybrid [SIZE]

Titles are the first hundred characters of real texts, and made-up sentences where there are not enough. A query is
three to eight words of one of them, common words as well. Wanted of hybrid: a median under 8 ms, a p99 under 30 ms,
and 300 searches a second for eight clients.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

from tests.bench import corpus
from tests.bench.library import settle
from tests.bench.measure import resident_bytes, sentences, sizes, times_ms, told
from tests.support.instance import Instance
from vecd.client import Client

_SIZE, _BATCH, _TITLE_CHARS = 300_000, 1_000, 100
_QUERIES, _SEARCHES, _CLIENTS, _SECONDS = 1_000, 600, 8, 8.0


def main() -> None:
    (size,) = sizes(_SIZE)
    titles = [text[:_TITLE_CHARS] for text in corpus.texts(size)]
    made_up = size - len(titles)
    titles += sentences(made_up)
    print(f"  {size:,} titles, {made_up:,} of them made up", flush=True)
    queries = _queries(titles)
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect(None) as client:
            _fill(client, titles)
            settle(client, "default")
            print(f"  daemon {resident_bytes(daemon.pid) / 2**20:,.0f} MiB, texts and vectors and all", flush=True)
            for mode in ("vector", "text", "hybrid", "auto"):
                taken = times_ms(_in_turn(client, queries, mode), _SEARCHES)
                print(f"  {mode:>6}: {told(taken)}, slowest {taken[-1]:.1f} ms", flush=True)
        rate = _together(instance, queries)
        print(f"  {_CLIENTS} clients, hybrid: {rate:,.0f} searches/s", flush=True)


def _queries(titles: list[str]) -> list[str]:
    random = np.random.default_rng(11)
    chosen: list[str] = []
    while len(chosen) < _QUERIES:
        words = titles[int(random.integers(0, len(titles)))].split()
        count = int(random.integers(3, 9))
        start = int(random.integers(0, max(1, len(words) - count)))
        query = " ".join(words[start : start + count])
        if any(char.isalnum() for char in query):
            chosen.append(query)
    return chosen


def _fill(client: Client, titles: list[str]) -> None:
    started = time.perf_counter()
    flying: list[Any] = []
    for start in range(0, len(titles), _BATCH):
        documents = [
            {"id": str(start + place), "text": title} for place, title in enumerate(titles[start : start + _BATCH])
        ]
        flying.append(client.submit("ingest", library="default", documents=documents))
        if len(flying) > 4:
            flying.pop(0).result()
    for pending in flying:
        pending.result()
    print(f"  written at {len(titles) / (time.perf_counter() - started):,.0f} texts/s", flush=True)


def _in_turn(client: Client, queries: list[str], mode: str) -> Any:
    place = -1

    def search() -> None:
        nonlocal place
        place = (place + 1) % len(queries)
        list(client.search(queries[place], mode=mode))

    return search


def _together(instance: Instance, queries: list[str]) -> float:
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(_CLIENTS + 1)
    counts = context.Array("l", _CLIENTS)
    workers = [
        context.Process(target=_search_on, args=(instance, queries, begin, counts, number))
        for number in range(_CLIENTS)
    ]
    for worker in workers:
        worker.start()
    begin.wait()
    for worker in workers:
        worker.join()
    return float(sum(counts[number] for number in range(_CLIENTS))) / _SECONDS


def _search_on(instance: Instance, queries: list[str], begin: Barrier, counts: Any, number: int) -> None:
    with instance.connect(None) as client:
        begin.wait()
        deadline, done = time.perf_counter() + _SECONDS, 0
        while time.perf_counter() < deadline:
            list(client.search(queries[(done * 13 + number * 101) % len(queries)], mode="hybrid"))
            done += 1
    counts[number] = done


if __name__ == "__main__":
    main()
