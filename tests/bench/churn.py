"""Half of 200,000 documents updated and a fifth deleted, in random order: what becomes of recall and memory.

Wanted: recall within 0.01 of an index built afresh, no dead document ever found, and memory after compaction within 1.2
times that of the fresh one.
"""

from __future__ import annotations

import faiss
import numpy as np

from tests.bench import corpus
from tests.bench.library import NAME, document, found, library, recall, settle
from tests.bench.measure import resident_bytes

_VECTORS, _QUERIES, _BATCH = 200_000, 1_000, 500


def main() -> None:
    _, vectors, what = corpus.vectors(_VECTORS + _QUERIES)
    vectors, queries = vectors[:_VECTORS].copy(), vectors[_VECTORS:]
    print(f"  {_VECTORS:,} vectors: {what}")
    random = np.random.default_rng(11)
    updated = random.permutation(_VECTORS)[: _VECTORS // 2]
    deleted = random.permutation(_VECTORS)[: _VECTORS // 5]
    with library(vectors) as (_, client, _before):
        pid = client.status()["pid"]
        first = _figures(client, pid)
        moved = vectors[updated] + 0.3 * vectors[random.permutation(updated)]
        vectors[updated] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        dead_found = 0
        gone: set[int] = set()
        for start in range(0, len(updated), _BATCH):
            client.ingest([document(int(row), vectors[row]) for row in updated[start : start + _BATCH]], NAME)
            leaving = deleted[start * 2 // 5 : (start + _BATCH) * 2 // 5]
            client.delete([str(row) for row in leaving], NAME)
            gone.update(leaving.tolist())
            dead_found += len(gone & set(found(client, queries[start // _BATCH][None]).flat))
        alive = np.setdiff1d(np.arange(_VECTORS), deleted)
        client.delete([str(row) for row in np.intersect1d(deleted, updated)[:10_000]], NAME)
        left = np.array(sorted(int(each["id"]) for each in client.items("list", "documents", library=NAME)))
        exact = faiss.IndexFlatIP(256)
        exact.add(vectors[left])
        wanted = left[exact.search(queries, 10)[1]]
        before = recall(found(client, queries), wanted)
        settle(client)
        after = recall(found(client, queries), wanted)
        dead_found += len(set(np.setdiff1d(np.arange(_VECTORS), left).tolist()) & set(found(client, queries).flat))
        last = _figures(client, pid)
        client.request("library.rebuild", library=NAME)
        fresh = recall(found(client, queries), wanted)
        rebuilt = _figures(client, pid)
        print(f"  {len(left):,} left of which {len(alive):,} were never deleted; dead documents found: {dead_found}")
        print(f"  recall@10 at once {before:.4f}, after compaction {after:.4f}, built afresh {fresh:.4f}")
        for what_of, (index, resident) in (("before", first), ("after", last), ("built afresh", rebuilt)):
            print(f"  memory {what_of}: index {index / 2**20:,.0f} MiB, daemon {resident / 2**20:,.0f} MiB")


def _figures(client: object, pid: int) -> tuple[int, int]:
    from vecd.client import Client

    assert isinstance(client, Client)
    memory = settle(client)
    return memory["memory_bytes"], resident_bytes(pid)


if __name__ == "__main__":
    main()
