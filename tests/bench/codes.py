"""Which codes to scan: variants of faiss's, beside exact search and a graph, in this process, on one thread.

    python -m tests.bench.codes [SIZE]

Of each variant: bytes a vector, seconds to train and add, milliseconds to scan all codes for the 256 best, and the
share of the ten nearest that are among these, for queries like the stored vectors and foreign ones: mean and worst.
`pq` compares more than 256 where that is not enough; here nothing does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from tests.bench import corpus
from tests.bench.library import Floats
from tests.bench.measure import sizes
from tests.bench.scale import FOREIGN
from vecd.text import embedders

_SIZE, _LIKE, _K, _CANDIDATES, _TRAIN = 200_000, 200, 10, 256, 16_384


def main() -> None:
    (size,) = sizes(_SIZE)
    faiss.omp_set_num_threads(1)
    _, vectors, what = corpus.vectors(size + _LIKE)
    vectors, like = vectors[:size], vectors[size:]
    embedder = embedders.make("wordllama")
    assert embedder is not None
    queries = {"like": like, "foreign": embedder.embed(list(FOREIGN))}
    least = {name: np.sort(asked @ vectors.T, axis=1)[:, -_K] for name, asked in queries.items()}
    print(f"  {size:,} vectors: {what}")
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((256, 256)))[0].astype(np.float32)
    same: Callable[[Floats], Floats] = lambda rows: rows  # noqa: E731
    turned: Callable[[Floats], Floats] = lambda rows: np.ascontiguousarray(rows @ rotation)  # noqa: E731
    variants: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
        "pq, 1 bit a dimension": ("IVF1,PQ64x4fs", turned),
        "pq, 2 bits a dimension": ("IVF1,PQ128x4fs", turned),
        "pq, 2 bits, not rotated": ("IVF1,PQ128x4fs", same),
        "pq, 4 bits a dimension": ("IVF1,PQ256x4fs", turned),
        "RaBitQ, 1 bit": ("IVF1,RaBitQfs", turned),
        "scalar, 8 bits": ("SQ8", same),
        "partition of 447, 8 probed": ("IVF447,PQ128x4fs", turned),
        "exact": ("Flat", same),
        "graph, M 24, ef 96": ("HNSW24,Flat", same),
    }
    for name, (factory, prepare) in variants.items():
        try:
            _measure(name, factory, prepare, vectors, queries, least)
        except RuntimeError as error:
            print(f"  {name:>26}: faiss cannot: {str(error).splitlines()[-1][:80]}")


def _measure(
    name: str,
    factory: str,
    prepare: Callable[[Floats], Floats],
    vectors: Floats,
    queries: dict[str, Floats],
    least: dict[str, Floats],
) -> None:
    rows = prepare(vectors)
    index: Any = faiss.index_factory(256, factory, faiss.METRIC_L2)
    if factory.startswith("IVF1,PQ"):
        index.by_residual = False
    started = time.perf_counter()
    if factory.startswith("HNSW"):
        faiss.omp_set_num_threads(2)
    index.train(rows[np.random.default_rng(2).choice(len(rows), min(_TRAIN, len(rows)), replace=False)])
    index.add(rows)
    built = time.perf_counter() - started
    faiss.omp_set_num_threads(1)
    if factory.startswith("IVF447"):
        index.nprobe = 8
    if factory.startswith("HNSW"):
        index.hnsw.efSearch = 96
    size = len(faiss.serialize_index(index)) / len(rows)
    found = []
    for asked_name, asked in queries.items():
        turned = prepare(asked)
        count = _K if factory in ("Flat", "HNSW24,Flat") else _CANDIDATES
        taken, recalls = [], []
        for place, query in enumerate(turned):
            started = time.perf_counter()
            _, near = index.search(query[None], count)
            taken.append(time.perf_counter() - started)
            near = near[0][near[0] >= 0]
            hits = np.count_nonzero(vectors[near] @ asked[place] >= least[asked_name][place] - 1e-6)
            recalls.append(min(_K, int(hits)) / _K)
        found.append(f"{asked_name} {np.mean(recalls):.4f} worst {min(recalls):.1f} in {np.median(taken) * 1e3:.2f} ms")
    print(f"  {name:>26}: {size:6.0f} bytes, built in {built:5.1f} s, {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
