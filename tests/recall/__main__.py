"""`python -m tests.recall`: measures recall; `python -m tests.recall compare BEFORE AFTER`: what changed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vecd.index import METRICS
from vecd.index.kinds import KINDS

from . import cells, data, door, report
from .report import Record


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["compare"]:
        _compare(given[1:])
        return
    options = _parser().parse_args(given)
    plan = cells.Plan(
        options.kinds, options.metrics, options.collections, options.queries, options.filters, options.lives,
        options.size, options.dimension, options.asked, options.rows_min, options.ef,
        ["default"] if options.no_variants else [],
    )  # fmt: skip
    records: list[Record] = []
    with ExitStack() as stack:
        file = stack.enter_context(options.json.open("w", encoding="utf-8")) if options.json else None

        def keep(record: dict[str, Any]) -> None:
            records.append(record)
            if file is not None:
                print(json.dumps(record), file=file, flush=True)

        started = time.monotonic()
        for seed in range(options.seed, options.seed + options.seeds):
            if not options.only_door:
                _vectors(plan, seed, keep)
            if options.door or options.only_door:
                for cell in door.cells(plan, seed):
                    keep(cell.record())
        _say(f"{len(records):,} cells in {time.monotonic() - started:.0f} s")
    if not records:
        sys.exit("nothing was measured: no cell has all that was asked for")
    print(report.table(records, every=options.all))


def _vectors(plan: cells.Plan, seed: int, keep: Callable[[dict[str, Any]], None]) -> None:
    last = None
    for cell in cells.Run(plan, seed).cells():
        now = tuple(cell.key[name] for name in ("collection", "kind", "metric", "variant", "life"))
        if now != last:
            _say(f"seed {seed}: {' '.join(now)}")
            last = now
        keep(cell.record())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _compare(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.recall compare")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    print(report.compare(report.read(options.before), report.read(options.after)))


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(line: str) -> list[str]:
        names = line.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.recall", description=__doc__)
    for flag, known in (
        ("--kinds", tuple(KINDS)), ("--metrics", tuple(METRICS)), ("--collections", data.NAMES),
        ("--filters", tuple(cells.FILTERS)), ("--lives", cells.LIVES),
    ):  # fmt: skip
        parser.add_argument(flag, type=_some_of(known), default=[], help=f"comma-separated: {', '.join(known)}")
    parser.add_argument("--queries", type=lambda line: line.split(","), default=[], help="kinds of queries")
    parser.add_argument("--size", type=int, default=10_000, help="vectors of a collection")
    parser.add_argument("--dimension", type=int, default=64, help="of generated vectors")
    parser.add_argument("--asked", type=int, default=50, help="queries of a cell; with a filter, a third")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--rows-min", type=int, default=1_000, help="rows from which a structure is built")
    parser.add_argument("--ef", type=int, help="the effort of every search")
    parser.add_argument("--no-variants", action="store_true", help="parameters by their defaults only")
    parser.add_argument("--door", action="store_true", help="also through a daemon: texts, --where, kill -9")
    parser.add_argument("--only-door", action="store_true", help="only through a daemon")
    parser.add_argument("--all", action="store_true", help="print every cell")
    parser.add_argument("--json", type=Path, help="write one object a cell and seed to this file")
    return parser


if __name__ == "__main__":
    main()
