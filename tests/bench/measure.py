"""What the benchmarks share: timing, percentiles, vectors that look like text's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def sizes(*default: int) -> list[int]:
    """The numbers among the arguments, `python -m tests.bench.NAME SIZE…`, or the default."""
    given = [int(each.replace(",", "")) for each in sys.argv[1:] if each.replace(",", "").isdigit()]
    return given or list(default)


def times_ms(run: Callable[[], object], count: int, warm_up: int = 20) -> list[float]:
    """Milliseconds of each of `count` runs, ascending, after some that are not counted."""
    for _ in range(warm_up):
        run()
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1e3)
    return sorted(taken)


def told(taken: list[float]) -> str:
    def at(share: float) -> float:
        return taken[min(len(taken) - 1, int(share * len(taken)))]

    return f"median {at(0.5):.3f} ms, p99 {at(0.99):.3f} ms (n={len(taken)})"


def clustered(count: int, dimension: int = 256, seed: int = 7) -> npt.NDArray[np.float32]:
    """Vectors of length 1 in clusters, as text embeddings are: shape (count, dimension), float32."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, count // 100), dimension), np.float32)
    rows: npt.NDArray[np.float32] = centres[random.integers(0, len(centres), count)]
    rows += 0.7 * random.standard_normal((count, dimension), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


_WORDS = ("the", "of", "and", "to", "log", "rotate", "index", "vector", "search", "daemon", "socket", "cursor")


def sentences(count: int, words: int = 14, seed: int = 7) -> list[str]:
    """Texts of about 80 bytes, with words as rare and as frequent as in prose (Zipf)."""
    random = np.random.default_rng(seed)
    picks = random.zipf(1.3, (count, words)) % 20_000
    names = [*_WORDS, *(f"w{number}" for number in range(20_000))]
    return [" ".join(names[pick] for pick in row) for row in picks.tolist()]


def resident_bytes(pid: int) -> int:
    """A process's resident size now (Linux)."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
