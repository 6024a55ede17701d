"""`python -m tests.bench [NAME…]`: runs the benchmarks, one after the other."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "startup", "ping", "ingest", "search", "load", "relevance", "hnsw", "stream", "churn", "filters", "kinds", "jobs",
    "background", "reembed", "two_stages", "feed", "watchers", "text", "analysis", "scale", "hybrid", "codes",
    "fairness", "fanout", "http", "relays", "sources", "formats", "files", "sync",
    "metadata", "workers", "executors",
)  # fmt: skip

for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    print(f"--- {name}", flush=True)
    importlib.import_module(f"tests.bench.{name}").main()
