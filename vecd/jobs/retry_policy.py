"""The retry policy: the next state of a job after an attempt that did not complete it.

A transient error is followed by another attempt, after an exponential pause with full jitter (Brooker, 2015,
"Exponential Backoff And Jitter"): at most `attempts_max` attempts, without a bound while the store's disk is full. Any
other error fails the job at once.
"""

from __future__ import annotations

import errno
import logging
from typing import Final

from .. import backoff
from ..errors import Code, VecError
from ..resources import exhausted
from ..store import jobs as store
from ..store.job_transitions import Ending
from ..store.jobs import Job
from .clocks import wall_us
from .kinds.kind import JobKind

log = logging.getLogger("vecd.jobs")

#: The maximum pause after the first failure; it doubles with each failure.
_BACKOFF_S: Final = 1.0


def stopped(job: Job, why: str | None) -> Ending:
    """The next state of a job whose attempt was told to stop, and `why`."""
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


def failed(job: Job, kind: JobKind, error: Exception, stop: str | None, *, retryable: bool | None = None) -> Ending:
    """The next state of a job whose attempt ended with an error. The error code says whether a retry may help, unless
    the worker does (`retryable`)."""
    if isinstance(error, VecError) and error.code == Code.SHUTTING_DOWN:
        return stopped(job, stop if stop == "cancelled" else "stopped")
    error = exhausted(error) or error
    if not isinstance(error, VecError):
        log.error("a job failed", exc_info=error, extra={"job": job.job_id, "kind": job.kind})
        if isinstance(error, OSError):
            message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            error = VecError(Code.DISK_FULL if full else Code.INTERNAL, message)
        else:
            what = f"a bug in the job {job.kind!r}: {type(error).__name__}: {error}"
            error = VecError(Code.INTERNAL, what, "see the daemon's log, and report this bug")
    if retryable is None:  # `internal`: an error that is not a VecError may be a transient fault of the machine
        retryable = error.retryable or error.code == Code.INTERNAL
    if not retryable:
        return Ending(job, store.FAILED, "failed", error=error.to_wire())
    # A job waits for space in the store without a bound. A job that fills another disk must not do so repeatedly.
    waits = error.code == Code.DISK_FULL and not kind.begins_again
    if job.failures + 1 >= kind.attempts_max and not waits:
        return Ending(job, store.DEAD, "failed", error=error.to_wire())
    pause_us = int(backoff.pause_s(job.failures + 1, _BACKOFF_S, kind.backoff_max_s) * 1e6)
    ready_us = wall_us() + pause_us
    return Ending(job, store.PENDING, "failed", error=error.to_wire(), ready_us=ready_us, delay_us=pause_us)
