"""A reembed of 20,000 texts by an embedder that takes 10 ms a text, with 1, 2 and 4 `vec worker` processes: the
speed-up over one worker, beside the linear one. The embedder sleeps, so the workers need no processor of their own.
"""

from __future__ import annotations

import contextlib
import time

from tests.bench.measure import sentences
from tests.support.instance import Instance
from tests.workers.leased import Worker
from tests.workers.slow_embedder import environment
from vecd.client import Client

_TEXTS = 20_000
_MS = 10


def main() -> None:
    texts = sentences(_TEXTS)
    with Instance(environment(_MS / 1e3)) as instance:
        instance.start()
        with instance.connect(None) as client:
            one_s = 0.0
            for count in (1, 2, 4):
                elapsed_s = _reembedded(instance, client, texts, count)
                one_s = one_s or elapsed_s
                share = one_s / elapsed_s / count
                print(
                    f"  {count} worker{'s' * (count > 1)}: {elapsed_s:6.1f} s, {_TEXTS / elapsed_s:5.0f} texts/s,"
                    f" {one_s / elapsed_s:.2f} times one worker: {share:.2f} of linear",
                    flush=True,
                )


def _reembedded(instance: Instance, client: Client, texts: list[str], count: int) -> float:
    """The seconds of a reembed with that many workers."""
    library = f"bench{count}"
    client.request("library.create", library=library, embedder="hash", index="flat")
    for start in range(0, _TEXTS, 1_000):
        client.ingest([{"id": f"d{row}", "text": texts[row]} for row in range(start, start + 1_000)], library)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Worker(instance, "--kinds", "reembed"))
        while len(client.workers()) < count:
            time.sleep(0.05)
        started = time.perf_counter()
        job = client.submit_job("reembed", {"embedder": "slow", "first_embedder": "none"}, library=library)
        (ended,) = client.wait_for_jobs([job["job_id"]])
        elapsed_s = time.perf_counter() - started
    assert ended["state"] == "completed", ended
    return elapsed_s


if __name__ == "__main__":
    main()
