"""Running attempts, and the leases of workers outside the daemon.

A worker outside the daemon holds a job until its lease expires; each heartbeat and each step renews the lease. When the
lease expires, the attempt is lost: another worker takes the job, and requests of the late worker are refused, because
they carry the number of its attempt (the fencing number; Kleppmann, 2016, "How to do distributed locking").

Leases are measured in the daemon's working time (WorkingTime), and are not stored:
- Setting the wall clock does not end or extend a lease.
- While the machine sleeps, or the daemon is stopped (SIGSTOP), it cannot receive a heartbeat: this time does not count.
- When the daemon starts, the leases of jobs that run outside start again: their workers may still be running. The time
  limit of an attempt (`timeout_s`) does not start again: it counts from the attempt's start, by the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ..store.jobs import Job
from .queue import QueuedJob

#: The interval at which working time advances while there are leases, and the maximum advance.
TICK_S: Final = 0.25
_TICK_MAX_S: Final = 1.0

CANCELLED: Final = "cancelled"
PAUSED: Final = "paused"
TIMEOUT: Final = "timeout"
STOPPED: Final = "stopped"


class WorkingTime:
    """The seconds during which the daemon was running: a clock that stops while the daemon is stopped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.now = 0.0

    def tick(self) -> None:
        """Call it when a lease begins, and every TICK_S while there are any. A longer pause means that the daemon, or
        the machine, was stopped."""
        now = self._clock()
        self.now += min(now - self._last, _TICK_MAX_S)
        self._last = now


class Attempt:
    """A running attempt: its worker, its progress, and whether it must stop."""

    __slots__ = (
        "_begun", "_deadline", "_done_before", "_ends", "_time", "done", "entry", "finishing", "job", "kind", "lease_s",
        "stop", "total", "worker",
    )  # fmt: skip

    def __init__(self, entry: QueuedJob, worker: str, time: WorkingTime, lease_s: float | None = None) -> None:
        """`lease_s` is None for a thread of the daemon, which has no lease."""
        self.entry = entry
        self.kind = entry.kind
        self.worker = worker
        self.lease_s = lease_s
        self.stop: str | None = None  # why it must stop: cancelled, paused, timeout or stopped
        self.job: Job | None = None  # as claimed; None before the claim is durable
        self.finishing = False  # its end is being written
        self.done: int | None = None
        self.total: int | None = None
        self._time = time
        self._ends = 0.0 if lease_s is None else time.now + lease_s
        self._begun = _now()
        self._deadline: float | None = None
        self._done_before = 0

    def begin(self, job: Job, ago_s: float = 0.0) -> None:
        """The claim is durable since `ago_s` seconds, in an earlier daemon unless that is 0. The time limit counts from
        then."""
        self.job = job
        self._begun = _now()
        self._deadline = None if job.timeout_s is None else self._begun + job.timeout_s - ago_s
        self.done, self.total, self._done_before = job.done, job.total, job.done or 0
        if self.lease_s is not None:
            self._time.tick()
            self._ends = self._time.now + self.lease_s

    @property
    def reason(self) -> str | None:
        """Why it must stop; None if it continues."""
        if self.stop is None and self._deadline is not None and _now() >= self._deadline:
            self.stop = TIMEOUT
        return self.stop

    def extend(self) -> None:
        """Renews the lease, unless the worker was told to stop: then it has the rest of its lease to end its step."""
        if self.lease_s is not None and self.reason is None:
            self._ends = self._time.now + self.lease_s

    @property
    def lease_left_s(self) -> float | None:
        """None for an attempt without a lease."""
        return None if self.lease_s is None else max(0.0, self._ends - self._time.now)

    @property
    def expired(self) -> bool:
        return self.lease_left_s == 0.0

    def progressed(self, done: int | None, total: int | None) -> None:
        """Updates the progress; None leaves a value unchanged."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total

    def progress(self) -> dict[str, Any]:
        """`rate` in units per second over this attempt, `left_s` until completion at that rate; None if unknown."""
        elapsed_s = _now() - self._begun
        made = (self.done or 0) - self._done_before
        rate = made / elapsed_s if made > 0 and elapsed_s > 0 else None
        left_s = None if rate is None or self.total is None else max(0.0, (self.total - (self.done or 0)) / rate)
        return {
            "done": self.done,
            "total": self.total,
            "rate": None if rate is None else round(rate, 1),
            "left_s": None if left_s is None else round(left_s, 1),
        }


def _now() -> float:
    return time.monotonic()
