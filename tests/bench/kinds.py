"""The kinds of index beside each other: how long they take to build, what they find, how fast, in how much memory; and
beside faiss's flat index in this process."""

from __future__ import annotations

import faiss

from tests.bench import corpus
from tests.bench.library import NAME, Floats, found, in_turn, library, recall
from tests.bench.measure import clustered, times_ms, told

_QUERIES = 500


def main() -> None:
    _, vectors, what = corpus.vectors(100_000 + _QUERIES)
    print(f"  256 dimensions: {what}")
    _compare(vectors[:100_000], vectors[100_000:], ("flat", "hnsw", "lsh"))
    few = clustered(100_000 + _QUERIES, 8)
    print("  8 dimensions: made-up clusters")
    _compare(few[:100_000], few[100_000:], ("flat", "hnsw", "lsh", "kdtree"))


def _compare(vectors: Floats, queries: Floats, kinds: tuple[str, ...]) -> None:
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    _, wanted = exact.search(queries, 10)
    faiss.omp_set_num_threads(1)
    print(
        f"  faiss flat alone: {told(times_ms(in_turn(queries, lambda q: exact.search(q[None], 10)), 200))}", flush=True
    )
    with library(vectors, index="flat") as (_, client, _before):
        for kind in kinds:
            body = client.request("library.rebuild", library=NAME, index=kind)
            rows = found(client, queries)
            taken = times_ms(in_turn(queries, lambda q: list(client.search(vector=q, library=NAME))), 500)
            memory = body["memory"]["memory_bytes"] / vectors.nbytes
            print(
                f"  {kind:<6} of {len(vectors):,} built in {body['seconds']:.2f} s, {memory:.2f} x raw;"
                f" recall@10 {recall(rows, wanted):.4f}, {told(taken)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
