"""What `rq worker vecd` runs: the task of a job that a daemon has sent (executor_rq.py)."""

from __future__ import annotations

from rq import get_current_job

from . import messages, tasks
from .executor_redis import answer


def embed(message: bytes) -> None:
    job = get_current_job()
    assert job is not None
    answer(job.connection, messages.request(message).answers, tasks.embed(message, job.worker_name or ""))
