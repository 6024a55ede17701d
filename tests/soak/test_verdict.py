"""The soak's verdict: what grows is found, what swings or jumps once is not; the chart is well formed."""

from __future__ import annotations

import math
import random
from typing import Any
from xml.etree import ElementTree

import pytest

from .chart import svg
from .sampling import Sample
from .verdict import SERIES, judge, slope

_MIB = 1024 * 1024


def _sample(at: int, **changes: Any) -> Sample:
    """Flat, with noise; three lives of 100 samples."""
    noise = random.Random(at)
    usual: dict[str, Any] = {
        "at_s": 6.0 * at,
        "life": at // 100,
        "memory_bytes": int((300 + noise.gauss(0, 5)) * _MIB),
        "descriptors": 40 + noise.randrange(4),
        "threads": 30,
        "files": 9 + noise.randrange(2),
        "disk_bytes": int((100 + 30 * (at % 10) / 10) * _MIB),  # the write-ahead log comes and goes
        "documents": 8_000,
        "p50_ms": {name: 2 + noise.random() for name in ("ingest", "search", "get")},
        "p99_ms": {name: 20 + 10 * noise.random() for name in ("ingest", "search", "get")},
    }
    return Sample(**{**usual, **changes})


def _grown(**changes: Any) -> set[str]:
    """The names of the series that fail when these change, each by a function of the sample's place."""
    samples = [_sample(at, **{name: change(at) for name, change in changes.items()}) for at in range(300)]
    return {judged.name for judged in judge(samples) if not judged.passed}


def test_a_run_in_which_nothing_grows_passes_and_every_series_is_judged() -> None:
    judged = judge([_sample(at) for at in range(300)])
    assert all(each.passed for each in judged)
    assert {each.name.partition(", life")[0] for each in judged} == {series.name for series in SERIES}


@pytest.mark.parametrize(
    ("change", "value", "named"),
    [
        ("memory_bytes", lambda at: (300 + at % 100) * _MIB, {f"memory (MiB), life {life}" for life in (1, 2, 3)}),
        ("memory_bytes", lambda at: (300 + max(0, at - 200)) * _MIB, {"memory (MiB), life 3"}),
        ("descriptors", lambda at: 40 + at % 100 // 10, {f"descriptors, life {life}" for life in (1, 2, 3)}),
        ("threads", lambda at: 30 + at % 100 // 10, {f"threads, life {life}" for life in (1, 2, 3)}),
        ("files", lambda at: 9 + at // 50, {"files"}),
        ("disk_bytes", lambda at: (100 + at) * _MIB, {"disk (MiB)"}),
        ("p50_ms", lambda at: {"search": 2 + at / 100}, {"search, p50 (ms)"}),
        ("p99_ms", lambda at: {"ingest": 20 + at / 5}, {"ingest, p99 (ms)"}),
    ],
)
def test_what_grows_is_named(change: str, value: Any, named: set[str]) -> None:
    assert _grown(**{change: value}) == named


def test_a_burst_and_a_level_that_each_start_sets_anew_are_no_growth() -> None:
    assert _grown(memory_bytes=lambda at: (300 + 500 * (at % 100 == 60)) * _MIB) == set()
    assert _grown(memory_bytes=lambda at: (300 + 50 * (at // 100)) * _MIB) == set()
    assert _grown(memory_bytes=lambda at: (300 + 80 * math.exp(-(at % 100) / 5)) * _MIB) == set()


def test_a_life_of_a_few_minutes_says_nothing_of_memory() -> None:
    samples = [_sample(at, at_s=float(at), memory_bytes=(300 + at % 100) * _MIB) for at in range(300)]
    judged = judge(samples)
    assert all(each.passed for each in judged)
    assert not [each for each in judged if each.name.startswith("memory")]


def test_a_slope_is_the_median_of_all_pairs() -> None:
    assert slope([0, 1, 2, 3, 4], [1, 3, 5, 7, 900]) == pytest.approx(2)


def test_the_chart_is_an_image_with_a_panel_for_each_series_and_a_mark_for_each_start() -> None:
    root = ElementTree.fromstring(svg([_sample(at) for at in range(300)], "a < b & c"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polyline")) == len(SERIES)
    marks = [path for path in root.findall(f"{space}path") if "stroke-dasharray" in path.attrib]
    assert len(marks) == 2 * len(SERIES)
    assert ElementTree.fromstring(svg([], "nothing")) is not None
