"""What becomes of a job whose attempt failed: another attempt, and after how long; or its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from vecd.errors import Code, VecError
from vecd.jobs.kinds import KINDS
from vecd.jobs.retry_policy import failed
from vecd.store import jobs as store


def ended(kind: str, failures: int, code: str) -> str:
    job = cast(Any, SimpleNamespace(job_id=1, kind=kind, failures=failures))
    ending = failed(job, KINDS[kind], VecError(code, "why"), None)
    assert ending.delay_us <= KINDS[kind].backoff_max_s * 1e6
    return ending.state


@pytest.mark.parametrize("failures", [0, 4, 5, 10_000])
def test_a_job_that_writes_to_the_store_waits_for_room_there_however_often_it_has_failed(failures: int) -> None:
    assert ended("ingest", failures, Code.DISK_FULL) == store.PENDING
    assert ended("reembed", failures, Code.DISK_FULL) == store.PENDING


def test_a_job_that_fills_another_disk_does_so_no_more_than_five_times() -> None:
    for kind in ("export", "backup"):
        states = [ended(kind, failures, Code.DISK_FULL) for failures in range(KINDS[kind].attempts_max)]
        assert states == [store.PENDING] * 4 + [store.DEAD]


def test_an_error_that_another_attempt_may_mend_is_followed_by_four_and_another_by_none() -> None:
    assert [ended("ingest", failures, Code.BUSY) for failures in (0, 3, 4)] == [
        store.PENDING,
        store.PENDING,
        store.DEAD,
    ]
    assert ended("ingest", 0, Code.NOT_FOUND) == store.FAILED
