"""Command of the crash tests (`make crash`): kills the daemon a thousand times. See `python -m tests.crash --help`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from . import loop, points


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill the daemon, start it, check it.")
    parser.add_argument("--kills", type=int, default=1_000, help="how often (default: 1000)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--epoch", type=int, default=40, help="kills of one store (default: 40)")
    parser.add_argument("--point", choices=sorted(points.POINTS), action="append", help="kill here only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="record into this folder, and leave it there")
    arguments = parser.parse_args()
    if not points.AVAILABLE:
        print("the crash points need Linux and a C compiler", file=sys.stderr)
        return 1
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    begun = time.monotonic()

    def report_progress(tally: loop.Tally) -> None:
        if tally.total % 10 == 0:
            print(f"{tally.total:5} kills, {time.monotonic() - begun:6.0f} s", flush=True)

    tally = loop.Tally()
    with tempfile.TemporaryDirectory(prefix="vec-crash-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        library = points.build(folder)
        try:
            loop.run(arguments.kills, seed, library, folder, arguments.epoch, report_progress, tally, arguments.point)
        except Exception as broken:
            print(f"after {tally.total} kills, with seed {seed}: {broken}", file=sys.stderr)
            raise
        finally:
            _report(tally)
    return 0


def _report(tally: loop.Tally) -> None:
    print(f"\n{'point':20} kills  not reached")
    for point in (*points.POINTS, loop.RANDOM):
        print(f"{point:20} {tally.kills[point]:5}  {tally.missed[point]:5}")
    print(
        f"\n{tally.total:,} kills, {tally.acked:,} answered writes, {tally.events:,} events, {tally.jobs:,} jobs,"
        f" {tally.trimmed_over:,} watches trimmed over"
    )


if __name__ == "__main__":
    sys.exit(main())
