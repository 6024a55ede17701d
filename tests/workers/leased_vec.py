"""`vec` with a slow embedder, for `vec worker`: `python -m tests.workers.leased_vec`."""

from __future__ import annotations

from cli.main import main
from vecd.text.embedders import EMBEDDERS

EMBEDDERS["slow"] = "tests.workers.leased_embedder"

if __name__ == "__main__":
    main()
