"""`vecd` for the crash loop: `python -m tests.crash.vecd`. It has smaller steps, and crash points in functions;
points.c has those at system calls.

Smaller steps give more boundaries between transactions, pages and files at which a kill can hit. The kinds of jobs in
tests/jobs/vecd.py are included.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import tests.jobs.vecd  # noqa: F401  (its kinds of job)
from vecd import limits
from vecd.daemon import main
from vecd.engine.indexes import Indexes
from vecd.index import kinds
from vecd.store import consumers, database, job_transitions, libraries, reembed, retention

#: Rows from which each kind of index has a structure; fewer are too few to train `pq`.
_ROWS_MIN = 650

_SMALLER = {
    "WAL_PAGES": 200, "VACUUM_ROWS": 100, "VACUUM_PAGES": 16, "EXPORT_DOCUMENTS": 16, "BACKUP_PAGES": 8,
    "STEP_DOCUMENTS": 8, "REEMBED_DOCUMENTS": 16, "REEMBED_SWITCH_CHUNKS": 32,
}  # fmt: skip

T = TypeVar("T", bound=Callable[..., Any])


def _around(owner: Any, name: str, before: str, after: str | None = None) -> None:
    """Adds crash points before and after a function."""
    inner, passed = getattr(owner, name), ctypes.CDLL(None).vec_crash_point

    @functools.wraps(inner)
    def outer(*arguments: Any, **options: Any) -> Any:
        passed(before.encode())
        result = inner(*arguments, **options)
        if after is not None:
            passed(after.encode())
        return result

    setattr(owner, name, outer)


def prepare() -> None:
    """Makes the steps smaller, and adds the crash points."""
    for name, value in _SMALLER.items():
        assert isinstance(getattr(limits, name), int)
        setattr(limits, name, value)
    for name, kind in kinds.KINDS.items():
        kinds.KINDS[name] = replace(kind, rows_min=min(kind.rows_min, _ROWS_MIN))
    _around(database.Database, "_commit", "begin", "published")
    _around(Indexes, "apply", "apply", "applied")
    _around(consumers, "ack", "ack")
    _around(libraries, "rebuilt", "rebuilt")
    _around(retention, "trim", "trim")
    _around(retention, "vacuum", "vacuum")
    _around(reembed, "switch", "switch", "switched")
    for name in ("insert", "claim", "checkpoint", "finish", "recover"):
        _around(job_transitions, name, f"job.{name}")


if __name__ == "__main__":
    prepare()
    main()
