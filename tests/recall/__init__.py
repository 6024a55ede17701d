"""A harness that looks for wrong answers: collections × queries × filters × lives × kinds × metrics, against an
independent exact search in float64.

    python -m tests.recall --kinds hnsw,flat --size 10000 --seeds 3 --json out.ndjson
    python -m tests.recall compare before.ndjson after.ndjson

- `texts.py`    real texts of this machine, and the queries that people would type to find them
- `data.py`     collections: embedded texts and generated vectors, each with its kinds of queries
- `truth.py`    what is right, decided without the project's code
- `subject.py`  a real LiveIndex with a collection in it, and what happens to it: deletes, updates, restarts
- `cells.py`    which combinations are measured, and measuring one
- `door.py`     the same through the daemon's socket, with texts, `--where` and `kill -9`
- `report.py`   tables, NDJSON, comparison
"""

from __future__ import annotations

import os

from vecd.daemon import NATIVE_THREADS

# Before numpy and faiss are loaded: native threads behave as they do in the daemon.
os.environ.update(NATIVE_THREADS)
