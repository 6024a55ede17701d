"""The job queue, with jobs that do nothing: how fast a submit is answered, how soon a job begins, how many go through,
what those that wait cost. Wanted: 2 ms at the median, 10 ms, 2,000 jobs/s, 20 MB for 10,000, status under 20 ms.

Beside it: a page written to a file and synced, because a submit is on disk when it is answered.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from datetime import datetime

from tests.bench.measure import resident_bytes, times_ms, told
from tests.support.instance import Instance
from vecd.client import Client, Pending

_WAITING = 10_000


def main() -> None:
    with tempfile.NamedTemporaryFile() as file:

        def sync() -> None:
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())

        print(f"  a page on disk:     {told(times_ms(sync, 300))}")
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            print(f"  submit:             {told(times_ms(lambda: client.submit_job('noop'), 500))}")
            started = sorted(_start_ms(client) for _ in range(100))
            print(f"  submitted to begun: {told(started)}")
            client.request("jobs.pause")
            before = resident_bytes(daemon.pid)
            _submit(client, _WAITING)
            cost = resident_bytes(daemon.pid) - before
            print(f"  {_WAITING:,} waiting:     {cost / 1e6:.1f} MB in the daemon", flush=True)
            print(f"  status beside them: {told(times_ms(lambda: client.request('jobs.status'), 300))}")
            print(f"  vec status's op:    {told(times_ms(client.status, 300))}")
            begun = time.perf_counter()
            client.request("jobs.resume")
            while client.request("jobs.status")["pending"]:
                time.sleep(0.02)
            print(f"  through the queue:  {_WAITING / (time.perf_counter() - begun):,.0f} jobs/s", flush=True)


def _submit(client: Client, count: int) -> None:
    flying: deque[Pending] = deque()
    for _ in range(count):
        flying.append(client.submit("jobs.submit", kind="noop"))
        if len(flying) == 32:
            flying.popleft().result()
    while flying:
        flying.popleft().result()


def _start_ms(client: Client) -> float:
    """From the submit's transaction to the claim's, in milliseconds."""
    job_id = client.submit_job("noop")["job_id"]
    (job,) = client.wait_for_jobs([job_id])
    created, begun = (datetime.fromisoformat(job[key]) for key in ("created_at", "started_at"))
    return (begun - created).total_seconds() * 1e3


if __name__ == "__main__":
    main()
