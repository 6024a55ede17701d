"""A worker outside the daemon: `python -m tests.support.lease_worker NAME LEASE_S`, in the environment of an instance.

It claims jobs of the kind `elsewhere` (tests/jobs/vecd.py) and writes one document per step, whose text names the
attempt. After a lost connection it reconnects, and resends unanswered requests. It reports on stdout, one JSON object
per line: `claimed`, `step`, `refused`, `stopped`, `finished`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from vecd.client import Client, connect
from vecd.errors import Code, VecError

T = TypeVar("T")

_LOST = (Code.CONNECTION_LOST, Code.NO_DAEMON, Code.SHUTTING_DOWN, Code.BUSY)


class Worker:
    """Runs one job at a time."""

    def __init__(self, name: str, lease_s: float) -> None:
        self._name = name
        self._lease_s = lease_s
        self._client: Client | None = None

    def run(self) -> None:
        """Claims and runs jobs until the process is killed."""
        while True:
            job = self._request(
                lambda client: client.claim_job(self._name, ["elsewhere"], lease_s=self._lease_s, wait_s=1.0)
            )
            if job is not None:
                _report("claimed", job_id=job["job_id"], attempt=job["attempt"], checkpoint=job["checkpoint"])
                try:
                    self._work(job)
                except VecError as error:
                    _report("refused", job_id=job["job_id"], attempt=job["attempt"], code=error.code)

    def _work(self, job: dict[str, Any]) -> None:
        job_id, attempt, count = job["job_id"], job["attempt"], job["params"]["steps"]
        first = (job["checkpoint"] or {"number": 0})["number"] + 1
        for number, step in zip(range(first, count + 1), range(job["steps"], job["steps"] + count), strict=False):
            ends = time.monotonic() + job["params"].get("seconds", 0.0)
            while (left_s := ends - time.monotonic()) > 0:
                time.sleep(min(left_s, self._lease_s / 4))
                if self._stops(job_id, attempt):
                    return
            document = {"id": f"{job_id}-{number}", "text": f"attempt {attempt}", "vector": [1.0, 0.0, 0.0, 1.0]}
            checkpoint, effect = {"number": number}, {"type": "documents", "documents": [document]}
            fields = {"effect": effect, "done": number, "total": count}
            commit = partial(
                Client.checkpoint_job, job_id=job_id, attempt=attempt, step=step, checkpoint=checkpoint, **fields
            )
            answer = self._request(commit)
            _report("step", job_id=job_id, attempt=attempt, number=number, repeated=answer["repeated"])
        ended = self._request(lambda client: client.finish_job(job_id, attempt, result={"steps": count}))
        _report("finished", job_id=job_id, attempt=attempt, state=ended["state"])

    def _stops(self, job_id: int, attempt: int) -> bool:
        answer = self._request(lambda client: client.heartbeat_job(job_id, attempt))
        if answer["stop"] is None:
            return False
        ended = self._request(lambda client: client.finish_job(job_id, attempt))
        _report("stopped", job_id=job_id, attempt=attempt, why=answer["stop"], state=ended["state"])
        return True

    def _request(self, call: Callable[[Client], T]) -> T:
        """Repeats a request until it is answered."""
        while True:
            try:
                if self._client is None:
                    self._client = connect(spawn=False)
                return call(self._client)
            except VecError as error:
                if error.code not in _LOST:
                    raise
                self._client = None
                time.sleep(0.05)


def _report(what: str, **about: Any) -> None:
    print(json.dumps({"what": what, **about}), flush=True)


if __name__ == "__main__":
    Worker(sys.argv[1], float(sys.argv[2])).run()
