"""A daemon's start, which must not grow with what it holds, and the first search of a library not in memory yet."""

from __future__ import annotations

import signal
import time

from tests.bench.measure import clustered, sentences
from tests.support.instance import Instance


def main() -> None:
    for count in (0, 10_000, 100_000):
        vectors, texts = clustered(max(count, 1)), sentences(max(count, 1))
        with Instance() as instance:
            daemon = instance.start()
            with instance.connect() as client:
                client.request("library.create", library="bench", embedder="none", dimension=256, index="flat")
                for start in range(0, count, 1_000):
                    rows = range(start, start + 1_000)
                    client.ingest([{"id": str(r), "text": texts[r], "vector": vectors[r]} for r in rows], "bench")
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
            started = time.perf_counter()
            instance.start()
            up = time.perf_counter()
            with instance.connect() as client:
                list(client.search(vector=vectors[0], library="bench"))
            searched = time.perf_counter()
            print(
                f"  {count:>7,} vectors: ready after {up - started:.3f} s, first search {searched - up:.3f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
