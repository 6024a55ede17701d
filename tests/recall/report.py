"""Reports: NDJSON for machines, tables for people. A mean never stands alone: the worst query is always beside it.

The columns: mean, 5th percentile and worst recall@10; the share of queries below 0.5 and below 0.7; `best`, the share
whose best hit was found; the number of queries; `broken`, answers that no approximation excuses (a deleted or filtered
row, a row twice, a wrong score, too few hits); the median time of a search.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from .cells import summary

Record = Mapping[str, Any]

#: What makes a cell; seeds are put together.
KEY: Final = ("kind", "variant", "metric", "collection", "dimension", "queries", "filter", "life", "size")
#: What the summaries are by.
_BY: Final = ("collection", "queries", "filter", "life", "metric", "variant")
_SHOWN: Final = 25
_HEAD: Final = "    mean      p5   worst    <0.5    <0.7    best       n  broken      ms"


def merged(records: Iterable[Record], by: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Cells that have the same `by`, as one: over all their queries."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[tuple(record[name] for name in by)].append(record)
    made = {}
    for key, group in groups.items():
        worst = min(group, key=lambda record: (record["worst"], record["mean"]))
        told = [f"{worst[name]}" for name in ("metric", "collection", "queries", "filter", "life") if name not in by]
        made[key] = {
            **summary([recall for record in group for recall in record["recalls"]]),
            "first": round(sum(record["first"] for record in group) / sum(record["n"] for record in group), 4),
            "broken": sum(record["broken"] for record in group),
            "broken_first": next((record["broken_first"] for record in group if record["broken"]), None),
            "median_ms": float(np.median([record["median_ms"] for record in group])),
            "worst_query": f"{worst['worst_query']} ({', '.join(told)})" if told else worst["worst_query"],
        }
    return made


def table(records: Sequence[Record], *, every: bool = False) -> str:
    """Per kind: by collection, queries, filter, life; then the worst cells, or every cell."""
    lines: list[str] = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        mine = [record for record in records if record["kind"] == kind]
        (whole,) = merged(mine, ("kind",)).values()
        lines += [f"== {kind}: {len(mine):,} cells", f"{'':<30}{_HEAD}  worst query", _line("all", whole)]
        for name in _BY:
            parts = merged(mine, (name,))
            if len(parts) > 1:
                lines += [f"-- by {name}", *(_line(str(key), part) for (key,), part in parts.items())]
        cells = merged(mine, KEY)
        ranked = sorted(cells.items(), key=lambda item: (item[1]["mean"], item[1]["worst"]))
        shown = ranked if every else [each for each in ranked if each[1]["mean"] < 1][:_SHOWN]
        lines.append("-- every cell" if every else f"-- the worst cells of {len(cells):,}")
        lines += [_line(_short(key), part, 62) for key, part in shown]
        lines += [f"  BROKEN {_short(key)}: {part['broken_first']}" for key, part in ranked if part["broken"]]
        lines.append("")
    return "\n".join(lines)


def _short(key: tuple[Any, ...]) -> str:
    named = dict(zip(KEY, key, strict=True))
    variant = "" if named["variant"] == "default" else f" {named['variant']}"
    return (
        f"{named['metric']}{variant} {named['collection']} / {named['queries']} / {named['filter']} / {named['life']}"
    )


def _line(name: str, part: Record, width: int = 30) -> str:
    shares = "".join(f"{part[field]:>8.2%}" for field in ("below_half", "below_07", "first"))
    recalls = f"{part['mean']:>8.4f}{part['p5']:>8.2f}{part['worst']:>8.2f}{shares}"
    return f"{name:<{width}}{recalls}{part['n']:>8,}{part['broken']:>8}{part['median_ms']:>8.2f}  {part['worst_query']}"


def read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def compare(before: Sequence[Record], after: Sequence[Record]) -> str:
    """Per kind and collection, and the cells that changed most; only cells that both have."""
    lines: list[str] = []
    keys = merged(before, KEY).keys() & merged(after, KEY).keys()

    def common(records: Sequence[Record]) -> list[Record]:
        return [record for record in records if tuple(record[name] for name in KEY) in keys]

    old, new = common(before), common(after)
    lines.append(f"{len(keys):,} cells in both; before -> after")
    head = f"{'mean':>18}{'p5':>14}{'worst':>14}{'<0.5':>18}{'<0.7':>18}{'broken':>12}{'ms':>16}"
    for by in (("kind",), *(("kind", name) for name in _BY)):
        left, right = merged(old, by), merged(new, by)
        lines.append(f"-- by {' and '.join(by):<44}{head}")
        lines += [_change(" ".join(map(str, key)), left[key], right[key]) for key in sorted(left, key=str)]
    left, right = merged(old, KEY), merged(new, KEY)
    ranked = sorted(keys, key=lambda key: right[key]["mean"] - left[key]["mean"])
    for title, some in (("worse", ranked[:15]), ("better", ranked[::-1][:15])):
        lines.append(f"-- {title}")
        for key in some:
            difference = right[key]["mean"] - left[key]["mean"]
            if (difference < 0) == (title == "worse") and difference:
                told = f"{left[key]['mean']:.3f} -> {right[key]['mean']:.3f}, worst {right[key]['worst']:.2f}"
                lines.append(f"  {key[0]} {_short(key)}: {told} ({right[key]['worst_query']})")
    return "\n".join(lines)


def _change(name: str, left: Record, right: Record) -> str:
    def pair(field: str, form: str, width: int) -> str:
        return f"{left[field]:{form}} → {right[field]:{form}}".rjust(width)

    return (
        f"{name:<50}{pair('mean', '.4f', 19)}{pair('p5', '.2f', 14)}{pair('worst', '.2f', 14)}"
        f"{pair('below_half', '.2%', 18)}{pair('below_07', '.2%', 18)}{pair('broken', 'd', 12)}"
        f"{pair('median_ms', '.2f', 16)}"
    )
