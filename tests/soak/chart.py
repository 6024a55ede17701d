"""The samples as an SVG: a panel a series, one below the other, with a line at each start of the daemon."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .sampling import Sample
from .verdict import SERIES

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 900, 90, 90, 60, 46
_INK, _FAINT, _MARK = "#1f4e79", "#d0d0d0", "#c0392b"


def svg(samples: Sequence[Sample], title: str) -> str:
    """Time runs from left to right, in minutes; each panel's axis begins at 0."""
    end = max((sample.at_s for sample in samples), default=0.0) or 1.0
    starts = _starts(samples)
    parts = []
    for number, series in enumerate(SERIES):
        pairs = [(sample.at_s, value) for sample in samples if (value := series.of(sample)) is not None]
        parts.append(_panel(series.name, pairs, end, starts, _TOP + number * (_HEIGHT + _GAP)))
    height = _TOP + len(SERIES) * (_HEIGHT + _GAP) + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" height="{height}"'
        f' font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{_LEFT}" y="28" font-size="16">{escape(title)}</text>\n{"".join(parts)}</svg>\n'
    )


def _starts(samples: Sequence[Sample]) -> list[float]:
    """When the first sample of each later life was taken."""
    return [after.at_s for before, after in itertools.pairwise(samples) if after.life != before.life]


def _panel(name: str, pairs: Sequence[tuple[float, float]], end: float, starts: Sequence[float], top: int) -> str:
    high = max((value for _, value in pairs), default=0.0) * 1.1 or 1.0
    bottom = top + _HEIGHT

    def x(at: float) -> float:
        return round(_LEFT + _WIDTH * at / end, 1)

    points = " ".join(f"{x(at)},{round(bottom - _HEIGHT * value / high, 1)}" for at, value in pairs)
    lines = "".join(f'<path d="M{x(at)} {top}V{bottom}" stroke="{_MARK}" stroke-dasharray="3"/>' for at in starts)
    return (
        f'<text x="{_LEFT}" y="{top - 6}">{escape(name)}</text>\n'
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" stroke="{_FAINT}" fill="none"/>\n'
        f'<text x="{_LEFT - 6}" y="{top + 8}" text-anchor="end">{high:,.4g}</text>\n'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>\n'
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 14}" text-anchor="end">{end / 60:.3g} min</text>\n'
        f'{lines}<polyline points="{points}" fill="none" stroke="{_INK}"/>\n'
    )
