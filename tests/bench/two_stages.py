"""A library with a slow embedder in one stage and in two: how long an ack takes, how long until all is embedded, what a
search costs meanwhile and afterwards, and the memory of both indexes.

    python -m tests.bench.two_stages [EMBEDDER [DOCUMENTS]]

EMBEDDER is minilm by default. The figures of wordllama alone are for comparison, in the same run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.bench.measure import sentences, told
from tests.support.instance import Instance
from vecd.client import Client
from vecd.text.embedders import EMBEDDERS

_DOCUMENTS: Final = 1_000
_QUERIES: Final = 200
#: Documents that are written one by one to measure acks.
_SINGLE: Final = 20


def main() -> None:
    given = [*sys.argv[1:], "", ""]
    embedder = given[0] if given[0] in EMBEDDERS else "minilm"
    count = int(given[1]) if given[1].isdigit() else _DOCUMENTS
    texts = sentences(count + _SINGLE)
    documents = [{"id": f"d{row}", "text": text} for row, text in enumerate(texts)]
    with Instance() as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client:
            client.create_library("fast", embedder="wordllama")
            client.create_library("one", embedder=embedder, first_embedder="none")
            client.create_library("two", embedder=embedder)
            for library in ("fast", "two", "one"):
                _measure_writes(client, library, documents)
            for seed, library in enumerate(("fast", "one", "two"), 101):
                took_ms, again_ms = (_searches(client, library, seed) for _ in range(2))
                memory = client.library(library)["memory"]
                size = memory["memory_bytes"] + memory.get("second", {}).get("memory_bytes", 0)
                print(
                    f"  {library:>4}: searches {told(sorted(took_ms))}; the same again {told(sorted(again_ms))};"
                    f" vectors {size / (count + _SINGLE + 1):,.0f} bytes a chunk"
                )


def _measure_writes(client: Client, library: str, documents: list[dict[str, Any]]) -> None:
    count = len(documents) - _SINGLE
    _warm(client, library)
    acks = [_timed(partial(client.ingest, [each], library)) for each in documents[count:]]
    bulk_ms = _timed(partial(client.ingest, documents[:count], library))
    print(f"  {library:>4}: ack of one document {told(sorted(acks))}; of {count:,} {bulk_ms:,.0f} ms")
    if library != "two":
        return
    started = time.perf_counter()
    print(f"        searches while it embeds: {told(sorted(_searches(client, library, 100)))}")
    while (about := client.library("two")["second_stage"])["embedded"] < len(documents) + 1:
        time.sleep(0.1)
    took_s = time.perf_counter() - started + bulk_ms / 1e3
    print(f"        all embedded after {took_s:.1f} s: {count / took_s:.0f} texts/s; {about}", flush=True)


def _warm(client: Client, library: str) -> None:
    """Loads the embedders and the indexes."""
    client.ingest([{"id": "warm", "text": "the first document"}], library)
    while (about := client.library(library)["second_stage"]) is not None and not about["embedded"]:
        time.sleep(0.05)
    while "warnings" in client.request("search", query=f"the query {time.time()}", library=library):
        time.sleep(0.5)  # the embedder of queries has to load its model


def _searches(client: Client, library: str, seed: int) -> list[float]:
    """Milliseconds of searches. With the same seed again, the daemon remembers the queries' vectors."""
    queries = sentences(_QUERIES, seed=seed)
    return [_timed(partial(client.request, "search", query=query[:60], library=library)) for query in queries]


def _timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main()
