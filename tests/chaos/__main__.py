"""`python -m tests.chaos`: runs all scenarios, or some, for as long as it is told."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from . import run
from .checks import Broken
from .scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    arguments = parser.parse_args()
    if unknown := [each for each in arguments.scenarios if each not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    failed = False
    for name in arguments.scenarios or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="vec-chaos-") as folder:
            try:
                print(f"{name}: {run.run(SCENARIOS[name], arguments.seconds, seed, Path(folder))}", flush=True)
            except Broken as broken:
                failed = True
                print(f"{name}: BROKEN: {broken}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
