"""A reembed, and an ingest, of 20,000 texts by a slow embedder (10 ms a text, simulated), with 1, 2 and 4 workers of
each framework on Redis: how long each takes, and how near the speed-up is to linear.

`python -m tests.bench.executors FRAMEWORK… TEXTS` measures only these frameworks, with so many texts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.bench.measure import sentences
from tests.support.brokers import RedisServer
from tests.support.instance import Instance, ndjson
from tests.workers.frameworks import workers
from tests.workers.slow_embedder import environment

_TEXTS = 20_000
_TEXT_S = 0.01
_WORKERS = (1, 2, 4)
_FRAMEWORKS = ("celery", "rq", "dramatiq")


def main() -> None:
    texts = sentences(next((int(each) for each in sys.argv[1:] if each.isdecimal()), _TEXTS))
    documents = [{"id": f"d{row}", "text": text} for row, text in enumerate(texts)]
    for framework in [each for each in sys.argv[1:] if each in _FRAMEWORKS] or _FRAMEWORKS:
        alone: dict[str, float] = {}
        for count in _WORKERS:
            for what, took_s in _measured(framework, count, documents).items():
                alone.setdefault(what, took_s)
                linear = alone[what] / took_s / count
                print(f"  {framework}, {count} workers: {what} {took_s:6.1f} s, {linear:.2f} of linear", flush=True)


def _measured(framework: str, count: int, documents: list[dict[str, str]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        variables = {"VEC_JOBS_EXECUTOR": framework, "VEC_JOBS_EXECUTOR_URL": redis.url}
        with workers(count, framework, redis.url, _TEXT_S), Instance(environment(_TEXT_S, **variables)) as instance:
            instance.start()
            with instance.connect(timeout_s=None) as client:
                client.request("library.create", library="slow", embedder="slow", first_embedder="none")
                client.request("library.create", library="bench", embedder="hash")
                for start in range(0, len(documents), 2_000):
                    client.ingest(documents[start : start + 2_000], "bench")
                client.ingest([{"id": f"w{row}", "text": f"warm {row}"} for row in range(64 * count)], "slow")
                started = time.perf_counter()
                job = client.submit_job("reembed", {"embedder": "slow", "first_embedder": "none"}, library="bench")
                (ended,) = client.wait_for_jobs([job["job_id"]])
                assert ended["state"] == "completed", ended
                reembedded = time.perf_counter()
                instance.vec("ingest", "-l", "slow", "--batch", "2048", stdin=ndjson(documents), timeout_s=3_600)
                ingested = time.perf_counter()
                assert client.jobs_status()["executor"]["here_texts"] == 0, "the daemon did a part"
                return {"reembed": reembedded - started, "ingest": ingested - reembedded}


if __name__ == "__main__":
    main()
