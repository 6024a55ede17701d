"""Vectors and terms in memory: numpy, faiss and scipy; no SQL, no sockets, no event loop.

    live_index.py            LiveIndex: makes any structure searchable while it changes
    maintenance.py policy.py when the structure is drained, rebuilt, measured and saved, and how
    requests.py              writes, searches and answers of a LiveIndex
    source.py builder.py     where vectors come from; a structure built from them, or restored from a snapshot
    pools.py                 the threads that all LiveIndexes share
    structure.py             the protocol of a structure;  kinds.py  the table of kinds and their parameters
    local/                   flat, pq, hnsw, lsh, kdtree: one kind a file, and what they are made of
    fulltext/                BM25 over an inverted index, and how it lives in a LiveIndex
    recall_monitor.py recall_tracker.py recall_measurement.py
                             the recall of the queries that come, and the effort that keeps the promise
    rows.py                  labels of a structure's rows, tombstones and filter masks; documents of chunks
    brute_force.py           exact nearest rows of a matrix
    snapshot_file.py         a structure in a file, with checksums
    native.py                faiss's threads, and memory of the process

A structure compares under one of two *spaces*: `ip`, the inner product, or `l2`, the squared distance negated; in both,
more is nearer. LiveIndex makes the metrics of them: vectors are brought to length 1 for `cosine` before they come here.
"""

from __future__ import annotations

from typing import Final

#: How a score is made of a query q and a stored vector v; higher is always better.
METRICS: Final[dict[str, str]] = {
    "cosine": "the cosine of the angle between them, from -1 to 1",
    "dot": "their inner product",
    "l2": "their Euclidean distance, negated: 0 is the same vector",
}

#: The longest a vector may be: two of them, squared and added, are still a float32.
LENGTH_MAX: Final = 9e18
