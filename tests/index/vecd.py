"""`vecd` with a toy kind of index and a toy embedder, which are one entry each: `python -m tests.index.vecd`."""

from __future__ import annotations

from vecd.daemon import main
from vecd.index.kinds import MODULES
from vecd.text.embedders import EMBEDDERS

MODULES["toy"] = "tests.index.toy"
EMBEDDERS["toy"] = "tests.index.toy_embedder"

if __name__ == "__main__":
    main()
