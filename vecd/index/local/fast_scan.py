"""FastScanCodes: 4-bit product quantization codes in faiss's fast-scan lists, scanned completely, on several cores.

The rows are distributed over *shards*, each a separate list, so that one search of many rows can use several cores:
faiss parallelizes over queries only. A shard is an inverted-file index with one list, because faiss's plain fast-scan
index does not support a selector of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np

from .. import native
from ..native import faiss
from ..rows import Allowed, Floats, Labels

T = TypeVar("T")

#: With more shards, the additional calls per search cost more than the additional cores gain.
_SHARDS_MAX: Final = 4
#: Bytes of codes from which one query uses several cores: below, waking a thread costs as much as it saves.
_SHARED_BYTES: Final = 16 << 20


class FastScanCodes:
    """Codes of rows with `subvectors` subvectors of `width` components, 4 bits each. Not thread-safe."""

    def __init__(self, subvectors: int, width: int, *, by_distance: bool) -> None:
        """`by_distance`: compares rows by squared distance, otherwise by inner product."""
        self._by_distance = by_distance
        self._bytes = subvectors // 2
        self._count = 0
        metric = faiss().METRIC_L2 if by_distance else faiss().METRIC_INNER_PRODUCT
        self._quantizer: Any = faiss().IndexFlat(subvectors * width, metric)
        self._quantizer.add(np.zeros((1, subvectors * width), np.float32))
        self._shards = [
            faiss().IndexIVFPQFastScan(self._quantizer, subvectors * width, 1, subvectors, 4, metric)
            for _ in range(min(native.CORES, _SHARDS_MAX))
        ]
        for shard in self._shards:
            shard.by_residual = False

    @property
    def nbytes(self) -> int:
        return self._count * self._bytes

    def train(self, sample: Floats) -> None:
        """Learns the centroids of each subvector; vectors of shape (n, subvectors * width)."""
        first, *others = self._shards
        first.pq.train(sample)
        first.is_trained = True
        centroids = faiss().vector_to_array(first.pq.centroids)
        for shard in others:
            faiss().copy_array_to_vector(centroids, shard.pq.centroids)
            shard.is_trained = True

    def add(self, vectors: Floats) -> Floats:
        """Adds rows with the next numbers; returns their squared quantization errors, shape (n,)."""
        shard = min(self._shards, key=lambda each: int(each.ntotal))
        shard.add_with_ids(vectors, np.arange(self._count, self._count + len(vectors), dtype=np.int64))
        self._count += len(vectors)
        decoded = shard.pq.decode(shard.pq.compute_codes(vectors))
        errors: Floats = np.square(vectors - decoded, dtype=np.float32).sum(axis=1)
        return errors

    def search(self, queries: Floats, count: int, allowed: Allowed) -> tuple[Floats, Labels]:
        """The `count` allowed rows with the best estimates for each query: estimated squared distances, or negated
        products, ascending, and row numbers, of shape (n, count); `count` is at most allowed.count."""
        parameters = None
        if allowed.mask is not None:
            parameters = faiss().IVFSearchParameters(nprobe=1, sel=allowed.selector)

        def scan(shard: Any) -> tuple[Floats, Labels]:
            found: tuple[Floats, Labels] = shard.search(queries, count, params=parameters)
            return found

        first, *others = self._shards
        if others and len(queries) == 1 and self.nbytes >= _SHARED_BYTES:
            waiting = [_submit(scan, shard) for shard in others]
            parts = [scan(first), *(each.result() for each in waiting)]
        else:
            parts = [scan(shard) for shard in self._shards if shard.ntotal]
        estimates = np.concatenate([each[0] for each in parts], axis=1)
        rows = np.concatenate([each[1] for each in parts], axis=1)
        if not self._by_distance:
            np.negative(estimates, out=estimates)
        estimates[rows < 0] = np.inf  # where a shard has fewer
        order = np.argsort(estimates, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(estimates, order, 1), np.take_along_axis(rows, order, 1)


def _submit(scan: Callable[[Any], T], shard: Any) -> Future[T]:
    """Scans a shard on another thread, or on this one if there is none."""
    try:
        return _threads().submit(scan, shard)
    except RuntimeError:  # the system gives no thread
        done: Future[T] = Future()
        done.set_result(scan(shard))
        return done


@cache
def _threads() -> ThreadPoolExecutor:
    """The additional threads that scan shards, one core each."""
    return ThreadPoolExecutor(_SHARDS_MAX - 1, "vecd-codes", initializer=native.one_core)
