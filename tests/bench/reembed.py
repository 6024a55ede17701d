"""A library of 100,000 texts to another embedder, its index in memory: how long that takes, and what others feel of it,
who write documents one by one and search. The longest write tells how long the transactions of the switch are; on a
busy machine, compare it with that of the same writes before.
"""

from __future__ import annotations

import threading
import time

from tests.bench.measure import sentences, told
from tests.support.instance import Instance

_DOCUMENTS = 100_000
#: How long writes and searches are measured without a reembed.
_BEFORE_S = 10.0


def main() -> None:
    with Instance() as instance:
        instance.start()
        texts = sentences(_DOCUMENTS)
        with instance.connect(timeout_s=600.0) as client:
            client.request("library.create", library="bench", embedder="hash", index="flat")
            for start in range(0, _DOCUMENTS, 1_000):
                rows = range(start, start + 1_000)
                client.ingest([{"id": f"d{row}", "text": texts[row]} for row in rows], "bench")
            list(client.search("log index", library="bench", mode="vector"))
            stop = threading.Event()
            acks: list[float] = []
            searches: list[float] = []

            def write() -> None:
                with instance.connect(timeout_s=600.0) as other:
                    while not stop.is_set():
                        started = time.perf_counter()
                        other.ingest([{"id": f"w{len(acks)}", "text": "written meanwhile"}], "bench")
                        acks.append((time.perf_counter() - started) * 1e3)
                        time.sleep(0.005)

            def search() -> None:
                with instance.connect(timeout_s=600.0) as other:
                    while not stop.is_set():
                        started = time.perf_counter()
                        list(other.search("log index", library="bench", mode="vector"))
                        searches.append((time.perf_counter() - started) * 1e3)
                        time.sleep(0.005)

            threads = [threading.Thread(target=each) for each in (write, search)]
            for thread in threads:
                thread.start()
            time.sleep(_BEFORE_S)
            print(f"  before: writes {_all_of(acks)}; searches {_all_of(searches)}")
            acks.clear()
            searches.clear()
            started = time.perf_counter()
            job = client.submit_job("reembed", {"embedder": "wordllama"}, library="bench")
            (ended,) = client.wait_for_jobs([job["job_id"]])
            elapsed_s = time.perf_counter() - started
            stop.set()
            for thread in threads:
                thread.join()
            assert ended["state"] == "completed", ended
            print(f"  {_DOCUMENTS:,} documents in {elapsed_s:.1f} s")
            print(f"  writes meanwhile:   {_all_of(acks)}")
            print(f"  searches meanwhile: {_all_of(searches)}", flush=True)


def _all_of(took_ms: list[float]) -> str:
    return f"{told(sorted(took_ms))}, longest {max(took_ms):,.0f} ms"


if __name__ == "__main__":
    main()
