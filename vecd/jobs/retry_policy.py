"""An attempt at a job: what is known of it while it is made, and what becomes of the job when it is over.

An error that another attempt may mend is followed by one: after a pause, exponential with full jitter (Brooker, 2015,
"Exponential Backoff And Jitter"), at most `attempts_max` times; without a bound while the store's disk is full. The
other errors end the job at once.
"""

from __future__ import annotations

import errno
import logging
import time
from typing import Any, Final

from .. import backoff
from ..errors import Code, VecError
from ..resources import exhausted
from ..store import jobs as store
from ..store.job_transitions import Ending
from ..store.jobs import Job
from .clocks import wall_us
from .kinds.kind import JobKind

log = logging.getLogger("vecd.jobs")

#: The longest pause after the first failure; it doubles with each.
_BACKOFF_S: Final = 1.0


class Control:
    """What is known of a running job in memory: how it is to stop, how far it has come."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stop: str | None = None  # cancelled, paused or stopped
        self._since = time.monotonic()
        self._deadline: float | None = None
        self.done: int | None = None
        self.total: int | None = None
        self._done_before = 0

    def begin(self, job: Job) -> None:
        self._since = time.monotonic()
        self._deadline = None if job.timeout_s is None else self._since + job.timeout_s
        self.done, self.total, self._done_before = job.done, job.total, job.done or 0

    @property
    def reason(self) -> str | None:
        """Why it is to stop; None if it is to go on."""
        if self.stop is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop = "timeout"
        return self.stop

    def told(self) -> dict[str, Any]:
        """`rate` in units a second over this attempt, `left_s` until all is done at that rate; None if unknown."""
        elapsed_s = time.monotonic() - self._since
        made = (self.done or 0) - self._done_before
        rate = made / elapsed_s if made > 0 and elapsed_s > 0 else None
        left_s = None if rate is None or self.total is None else max(0.0, (self.total - (self.done or 0)) / rate)
        return {
            "done": self.done,
            "total": self.total,
            "rate": None if rate is None else round(rate, 1),
            "left_s": None if left_s is None else round(left_s, 1),
        }


def stopped(job: Job, why: str | None) -> Ending:
    """What becomes of a job that was told to stop."""
    if why == "cancelled":
        return Ending(job, store.CANCELLED, "cancelled")
    if why == "timeout":
        error = VecError(
            Code.TIMEOUT,
            f"job {job.job_id} did not end within {job.timeout_s:g} s",
            f"use vec jobs retry {job.job_id} to try it again",
        )
        return Ending(job, store.FAILED, "timeout", error=error.to_wire())
    return Ending(job, store.PENDING, why or "stopped")


def failed(job: Job, kind: JobKind, error: Exception, stop: str | None) -> Ending:
    """What becomes of a job whose attempt ended with an error."""
    if isinstance(error, VecError) and error.code == Code.SHUTTING_DOWN:
        return stopped(job, stop if stop == "cancelled" else "stopped")
    error = exhausted(error) or error
    if not isinstance(error, VecError):
        log.error("a job failed", exc_info=error, extra={"job": job.job_id, "kind": job.kind})
        if isinstance(error, OSError):
            told = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            error = VecError(Code.DISK_FULL if full else Code.INTERNAL, told)
        else:
            what = f"a bug in the job {job.kind!r}: {type(error).__name__}: {error}"
            error = VecError(Code.INTERNAL, what, "see the daemon's log, and report this bug")
    # `internal`: what is not a VecError may be a fault of the machine that passes.
    if not error.retryable and error.code != Code.INTERNAL:
        return Ending(job, store.FAILED, "failed", error=error.to_wire())
    # For room in the store a job waits, however long. What fills another disk is not to do so again and again.
    waits = error.code == Code.DISK_FULL and not kind.begins_again
    if job.failures + 1 >= kind.attempts_max and not waits:
        return Ending(job, store.DEAD, "failed", error=error.to_wire())
    pause_us = int(backoff.pause_s(job.failures + 1, _BACKOFF_S, kind.backoff_max_s) * 1e6)
    ready_us = wall_us() + pause_us
    return Ending(job, store.PENDING, "failed", error=error.to_wire(), ready_us=ready_us, delay_us=pause_us)
