"""Whether anything grew. A slope is Theil and Sen's: the median of the slopes between all pairs of samples, which a few
wild samples do not move (Sen 1968, "Estimates of the Regression Coefficient Based on Kendall's Tau").

Memory, descriptors and threads belong to a process, so each life of the daemon is judged by itself, without its first
third: caches and pools fill. Memory swings with what is being built, so a life of a few minutes says nothing of it.
Files, bytes on disk and latencies are judged over the whole run, without its first tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .sampling import TIMED, Sample

#: Samples below which a series is not judged.
_SAMPLES_MIN: Final = 8
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Judged:
    """One series: what it grew by from the beginning of the judged part to its end, by its slope."""

    name: str
    level: float  # the median
    growth: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.growth <= self.allowed


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    of: Callable[[Sample], float | None]
    share: float  # of its level, that it may grow by
    least: float  # that it may grow by, whatever its level
    by_life: bool = False
    life_min_s: float = 0.0  # lives that are shorter are not judged


def _timed(quantile: str, name: str) -> Callable[[Sample], float | None]:
    return lambda sample: getattr(sample, quantile).get(name)


#: Bytes on disk move with the write-ahead log (32 MiB before it is copied back), memory with a rebuild that goes on.
SERIES: Final = (
    _Series("memory (MiB)", lambda sample: sample.memory_bytes / _MIB, 0.1, 16.0, by_life=True, life_min_s=240),
    _Series("descriptors", lambda sample: sample.descriptors, 0.1, 3.0, by_life=True),
    _Series("threads", lambda sample: sample.threads, 0.1, 2.0, by_life=True),
    _Series("files", lambda sample: sample.files, 0.0, 2.0),
    _Series("disk (MiB)", lambda sample: sample.disk_bytes / _MIB, 0.1, 32.0),
    *(_Series(f"{name}, p50 (ms)", _timed("p50_ms", name), 0.5, 1.0) for name in TIMED),
    *(_Series(f"{name}, p99 (ms)", _timed("p99_ms", name), 1.0, 10.0) for name in TIMED),
)


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Per unit of `at`: the median over all pairs."""
    times, numbers = np.asarray(at, np.float64), np.asarray(values, np.float64)
    first, second = np.triu_indices(len(times), 1)
    apart = times[second] - times[first]
    some = apart > 0
    return float(np.median((numbers[second] - numbers[first])[some] / apart[some]))


def judge(samples: Sequence[Sample]) -> list[Judged]:
    """Every series; one that has too few samples is left out."""
    found = []
    lives = sorted({sample.life for sample in samples})
    for series in SERIES:
        if not series.by_life:
            found += _judged(series, series.name, samples, 0.1)
            continue
        for life in lives:
            its = [sample for sample in samples if sample.life == life]
            if its[-1].at_s - its[0].at_s >= series.life_min_s:
                found += _judged(series, f"{series.name}, life {life + 1}", its, 1 / 3)
    return found


def _judged(series: _Series, name: str, samples: Sequence[Sample], unjudged: float) -> list[Judged]:
    pairs = [(sample.at_s, value) for sample in samples if (value := series.of(sample)) is not None]
    pairs = pairs[int(unjudged * len(pairs)) :]
    if len(pairs) < _SAMPLES_MIN:
        return []
    at, values = zip(*pairs, strict=True)
    level = float(np.median(values))
    growth = slope(at, values) * (at[-1] - at[0])
    return [Judged(name, level, growth, max(series.share * level, series.least))]
