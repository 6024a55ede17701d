"""`vecd` with a slow embedder: `python -m tests.workers.leased_vecd`."""

from __future__ import annotations

from vecd.daemon import main
from vecd.text.embedders import EMBEDDERS

EMBEDDERS["slow"] = "tests.workers.leased_embedder"

if __name__ == "__main__":
    main()
