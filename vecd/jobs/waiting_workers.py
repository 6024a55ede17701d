"""Workers outside the daemon that wait for work: each job and each task is given to the one that has waited longest,
among those that take its kind. The others are not woken.

Rules: pure; it knows no thread and no store. The dispatcher guards it with its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

from ..store.jobs import Job
from ..workers.leased_tasks import Lease, Takes

#: A task; or an attempt that begins: its job when the claim is durable, None if the job was cancelled before.
Claim = Future[Job | Lease | None]


class WaitingWorker:
    """A worker that waits for work of some kinds. `wake` is called once, from any thread, when it has a claim, or when
    the daemon stops."""

    __slots__ = ("claim", "lease_s", "name", "takes", "wake")

    def __init__(self, name: str, takes: Takes, lease_s: float, wake: Callable[[], None]) -> None:
        self.name = name
        self.takes = takes
        self.lease_s = lease_s
        self.wake = wake
        self.claim: Claim | None = None


class WaitingWorkers:
    """A queue, first come, first served. Workers that take the same kinds are one group, so whether there is a job for
    them is asked once and not once for each of them."""

    def __init__(self) -> None:
        self._groups: dict[Takes, dict[WaitingWorker, int]] = {}  # each in the order of arrival
        self._arrivals = 0
        self._serving = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[WaitingWorker]:
        for group in self._groups.values():
            yield from group

    def add(self, worker: WaitingWorker) -> None:
        self._arrivals += 1
        self._groups.setdefault(worker.takes, {})[worker] = self._arrivals

    def remove(self, worker: WaitingWorker) -> None:
        group = self._groups.get(worker.takes, {})
        if group.pop(worker, None) is not None and not group:
            del self._groups[worker.takes]

    def serve(self, start: Callable[[WaitingWorker], Claim | None]) -> None:
        """Gives jobs to workers until there are no more of either. `start` begins an attempt at the next job of the
        worker's kinds; None if none may run."""
        if self._serving:  # `start` has failed at once, and the job is in the queue again: the outer call sees it
            return
        self._serving = True
        try:
            hungry = set(self._groups)
            while hungry:
                worker = min((next(iter(self._groups[takes].items())) for takes in hungry), key=lambda each: each[1])[0]
                claim = start(worker)
                if claim is None:
                    hungry.discard(worker.takes)
                else:
                    self.remove(worker)
                    worker.claim = claim
                    worker.wake()
                    hungry = set(self._groups)  # a job that starts can make room for a parked one of another kind
        finally:
            self._serving = False
