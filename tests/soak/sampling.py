"""What is measured while the soak runs: of the daemon's process, of its files, of the answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

#: What latencies are kept of.
TIMED: Final = ("ingest", "search", "get")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `life` counts the daemon's starts, from 0."""

    at_s: float
    life: int
    memory_bytes: int
    descriptors: int
    threads: int
    files: int
    disk_bytes: int
    documents: int
    p50_ms: dict[str, float] = field(default_factory=dict)  # since the last sample; missing: nothing was done
    p99_ms: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def take(
    at_s: float, life: int, pid: int, home: Path, documents: int, latencies: Mapping[str, Sequence[float]]
) -> Sample:
    """Linux only: /proc. Raises FileNotFoundError if the process is gone."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    files, size = _files(home)
    timed = {name: sorted(latencies[name]) for name in TIMED if latencies.get(name)}
    return Sample(
        at_s=round(at_s, 3),
        life=life,
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(os.listdir(process / "fd")),
        threads=len(os.listdir(process / "task")),
        files=files,
        disk_bytes=size,
        documents=documents,
        p50_ms={name: round(1000 * _quantile(each, 0.5), 3) for name, each in timed.items()},
        p99_ms={name: round(1000 * _quantile(each, 0.99), 3) for name, each in timed.items()},
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _files(home: Path) -> tuple[int, int]:
    """How many there are, and their bytes; some may go meanwhile. The log is left out: it is rotated by others."""
    count = size = 0
    for folder, _, names in os.walk(home):
        for name in names:
            if name == "vecd.log":
                continue
            try:
                size += os.stat(os.path.join(folder, name)).st_size
                count += 1
            except FileNotFoundError:
                continue
    return count, size
