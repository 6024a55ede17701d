"""Searches with filters among 200,000 vectors, by how much a filter lets through; beside faiss with a bitmap.

Wanted: recall@10 >= 0.95 and a median under 3 ms at each, and exactly min(k, matching) hits every time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import faiss
import numpy as np

from tests.bench import corpus
from tests.bench.library import NAME, Floats, document, found, in_turn, library, recall
from tests.bench.measure import times_ms, told
from vecd.client import Client
from vecd.index import native

_VECTORS, _QUERIES = 200_000, 500
_THOUSANDTHS = (1, 10, 50, 100, 200, 500, 900)


def main() -> None:
    _, vectors, what = corpus.vectors(_VECTORS + _QUERIES)
    vectors, queries = vectors[:_VECTORS], vectors[_VECTORS:]
    print(f"  {_VECTORS:,} vectors: {what}")
    alone = faiss.IndexHNSWFlat(256, 24, faiss.METRIC_INNER_PRODUCT)
    alone.hnsw.efConstruction, alone.hnsw.efSearch = 128, 96
    alone.add(vectors)
    faiss.omp_set_num_threads(1)
    classes = np.array([document(row, vectors[row])["metadata"]["thousandth"] for row in range(_VECTORS)])
    with library(vectors) as (_, client, _before):
        for thousandths in _THOUSANDTHS:
            where = [f"thousandth < {thousandths}"]
            matching = np.flatnonzero(classes < thousandths)
            exact = faiss.IndexFlatIP(256)
            exact.add(vectors[matching])
            wanted = matching[exact.search(queries, 10)[1]]
            rows = found(client, queries, where=where)
            short = int((rows < 0).any(axis=1).sum())
            wrong = int((classes[rows[rows >= 0]] >= thousandths).sum())
            ours = times_ms(in_turn(queries, partial(_search, client, where)), 500)
            bits = np.packbits(classes < thousandths, bitorder="little")
            selector = faiss.IDSelectorBitmap(_VECTORS, faiss.swig_ptr(bits))
            its: Any = native.faiss().SearchParametersHNSW(sel=selector, efSearch=96)
            raw = times_ms(in_turn(queries, partial(_search_alone, alone, its)), 500)
            its_recall = recall(alone.search(queries, 10, params=its)[1], wanted)
            print(
                f"  {thousandths / 10:>5.1f} %: recall@10 {recall(rows, wanted):.4f}, {told(ours)}; {short} answers too"
                f" short, {wrong} hits wrong; faiss alone with a bitmap: recall {its_recall:.4f}, {told(raw)}",
                flush=True,
            )


def _search(client: Client, where: list[str], query: Floats) -> None:
    list(client.search(vector=query, library=NAME, where=where))


def _search_alone(index: faiss.IndexHNSWFlat, parameters: Any, query: Floats) -> None:
    index.search(query[None], 10, params=parameters)


if __name__ == "__main__":
    main()
