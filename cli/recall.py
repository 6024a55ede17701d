"""How well searches find what is there, for people."""

from __future__ import annotations

from typing import Any


def report(about: dict[str, Any]) -> str:
    """A report of the recall promise, as the event `index.recall` and `vec library show` have it."""
    if about["met"] is None:
        return f"promise {about['promise']:g}, not measured yet"
    verdict = "met" if about["met"] else "not met"
    return f"promise {about['promise']:g} {verdict}: {figures(about)}, effort {effort(about['effort'])}"


def figures(about: dict[str, Any]) -> str:
    """The recalls of some queries."""
    if not about["queries"]:
        return "no queries"
    of = "1 query" if about["queries"] == 1 else f"{about['queries']:,} queries"
    return f"mean {about['mean']:.3f}, 5th percentile {about['p5']:.3f}, worst {about['worst']:.3f} of {of}"


def effort(factor: float | str) -> str:
    """How much more than a structure's own default a search takes."""
    return factor if isinstance(factor, str) else f"×{factor:g}"
