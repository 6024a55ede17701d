"""The in-memory indexes of a library: vectors and full text. numpy, faiss and scipy; no SQL, no sockets, no event loop.

    live_index.py            LiveIndex: makes any structure searchable while it changes
    maintenance.py policy.py when the structure is drained, rebuilt, measured and saved, and how
    requests.py              writes, searches and answers of a LiveIndex
    source.py builder.py     the interface to the store; builds a structure from it, or restores one from a snapshot
    pools.py                 thread pools that all LiveIndexes share
    structure.py             the protocol of a structure;  kinds.py  the table of kinds and their parameters
    local/                   flat, pq, hnsw, lsh, kdtree: one kind per file, and their parts
    fulltext/                BM25 over an inverted index, as part of a LiveIndex
    recall_monitor.py recall_tracker.py recall_measurement.py
                             measures recall, and sets the effort that keeps the promise
    rows.py                  labels of rows, tombstones and filter masks; the documents of chunks
    brute_force.py           exact nearest neighbours in a matrix
    snapshot_file.py         the snapshot file format, with checksums
    native.py                faiss's threads, and the memory of the process

A structure compares in one of two *spaces*: `ip`, the inner product, or `l2`, the negated squared distance. In both,
higher scores are nearer. LiveIndex maps the metrics to them: for `cosine` it normalizes vectors to length 1.
"""

from __future__ import annotations

from typing import Final

#: Metric -> the score of a query and a stored vector; higher scores are nearer.
METRICS: Final[dict[str, str]] = {
    "cosine": "the cosine of the angle between them, from -1 to 1",
    "dot": "their inner product",
    "l2": "their negated Euclidean distance: 0 for equal vectors",
}

#: The maximum length of a vector: the sum of two squared lengths is still a float32.
LENGTH_MAX: Final = 9e18
