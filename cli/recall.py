"""Formatting of recall measurements for a terminal."""

from __future__ import annotations

from typing import Any


def report(about: dict[str, Any]) -> str:
    """Formats the recall promise of an event `index.recall`, or of the measurements in `vec library show`."""
    if about["met"] is None:
        return f"promise {about['promise']:g}, not measured yet"
    verdict = "met" if about["met"] else "not met"
    return f"promise {about['promise']:g} {verdict}: {figures(about)}, effort {effort(about['effort'])}"


def figures(about: dict[str, Any]) -> str:
    """Formats the statistics of the recalls of some queries."""
    if not about["queries"]:
        return "no queries"
    of = "1 query" if about["queries"] == 1 else f"{about['queries']:,} queries"
    return f"mean {about['mean']:.3f}, 5th percentile {about['p5']:.3f}, worst {about['worst']:.3f} of {of}"


def effort(factor: float | str) -> str:
    """Formats the effort of a search, a multiple of the index's default or "exact"."""
    return factor if isinstance(factor, str) else f"×{factor:g}"
