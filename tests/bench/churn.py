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
from vecd.client import Client

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
            # A document that has been deleted stays so: writing it again would bring it back.
            rows = [row for row in updated[start : start + _BATCH].tolist() if row not in gone]
            client.ingest([document(row, vectors[row]) for row in rows], NAME)
            leaving = deleted[start * len(deleted) // len(updated) : (start + _BATCH) * len(deleted) // len(updated)]
            client.delete([str(row) for row in leaving], NAME)
            gone.update(leaving.tolist())
            dead_found += len(gone & set(found(client, queries[start // _BATCH][None]).flat))
        left = np.setdiff1d(np.arange(_VECTORS), deleted)
        assert client.count(NAME)["documents"] == len(left)
        exact = faiss.IndexFlatIP(256)
        exact.add(vectors[left])
        wanted = left[exact.search(queries, 10)[1]]
        before = recall(found(client, queries), wanted)
        settle(client)
        rows_found = found(client, queries)
        after = recall(rows_found, wanted)
        dead_found += len(gone & set(rows_found.flat))
        last = _figures(client, pid)
        client.request("library.rebuild", library=NAME)
        fresh = recall(found(client, queries), wanted)
        rebuilt = _figures(client, pid)
        counts = f"{len(updated):,} updated, {len(deleted):,} deleted, {len(left):,} left"
        print(f"  {counts}; dead documents found: {dead_found}")
        print(f"  recall@10 at once {before:.4f}, after compaction {after:.4f}, built afresh {fresh:.4f}")
        for what_of, (index, resident) in (("before", first), ("after", last), ("built afresh", rebuilt)):
            print(f"  memory {what_of}: index {index / 2**20:,.0f} MiB, daemon {resident / 2**20:,.0f} MiB")


def _figures(client: Client, pid: int) -> tuple[int, int]:
    """Bytes of the index and of the daemon, when nothing is left to do."""
    return settle(client)["memory_bytes"], resident_bytes(pid)


if __name__ == "__main__":
    main()
