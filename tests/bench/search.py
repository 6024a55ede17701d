"""Exact search among 50,000 x 256 through the socket, k=10, beside faiss's own flat index in this process.

Wanted: median under 4 ms.
"""

from __future__ import annotations

import itertools

import faiss

from tests.bench.measure import clustered, sentences, times_ms, told
from tests.support.instance import Instance

_VECTORS, _BATCH = 50_000, 500


def main() -> None:
    vectors, texts = clustered(_VECTORS), sentences(_VECTORS)
    queries = clustered(500, seed=8)
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(256)
    flat.add(vectors)
    with Instance() as instance:
        instance.start()
        with instance.connect() as client:
            client.request("library.create", library="bench", embedder="none", dimension=256, index="flat")
            for start in range(0, _VECTORS, _BATCH):
                client.ingest(
                    [
                        {"id": f"doc-{row}", "text": texts[row], "vector": vectors[row]}
                        for row in range(start, start + _BATCH)
                    ],
                    "bench",
                )
            _, wanted = flat.search(queries[:50], 10)
            for query, rows in zip(queries[:50], wanted, strict=True):
                found = [hit["document_id"] for hit in client.search(vector=query, library="bench")]
                assert found == [f"doc-{row}" for row in rows]
            client.set_timeout(None)
            turn = itertools.cycle(queries)
            for _ in range(3):
                alone = times_ms(lambda: flat.search(next(turn)[None], 10), 500)
                ours = times_ms(lambda: list(client.search(vector=next(turn), library="bench")), 500)
                print(f"  faiss flat, in process: {told(alone)}")
                print(f"  through vecd:           {told(ours)}", flush=True)


if __name__ == "__main__":
    main()
