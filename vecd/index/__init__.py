"""Vectors and terms in memory: numpy, faiss and scipy; no SQL, no sockets, no event loop.

    structure.py   what a structure is
    kinds.py       the kinds of index and their parameters: one visible table
    rows.py        the labels of a structure's rows, which are alive, what a filter permits; the documents of chunks
    native.py      faiss, and on how many cores
    kernels.py     exact nearest rows of a matrix;  matrix.py  one that grows
    flat.py pq.py hnsw.py lsh.py kdtree.py     one structure a file
    codes.py       what pq scans;  copies.py  what hnsw links once
    estimating.py  whether an approximate search has compared enough
    recall.py measuring.py     how many of the nearest searches find, and the effort that keeps the promise
    inverted.py    full-text search by BM25: the index of terms, its merges and snapshots
    segments.py vocabulary.py maxscore.py     its pieces, its terms, how it finds the best rows
    snapshot.py    a structure in a file, with checksums
    requests.py    what a LiveIndex is asked and told
    loading.py     a structure made from the store, or from its snapshot and the store
    upkeep.py      draining, building, saving: what keeps a LiveIndex fast
    live_text.py   full text as a part of a LiveIndex
    live.py        LiveIndex: what makes structures and text real-time, once, for every kind

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
