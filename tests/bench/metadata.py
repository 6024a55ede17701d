"""10,000 documents: their metadata updated, beside ingesting them again with it; a copy; filters on strings.

Wanted: an update takes less time than the ingest, and a small write meanwhile waits no longer than during the ingest.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.bench import corpus
from tests.bench.measure import told
from tests.support.instance import Instance

_DOCUMENTS, _BATCH = 10_000, 500
_FILTERS = (
    "n >= 0",
    "name ^= doc",
    "name contains 99",
    "name ~ '^doc.*9$'",
    "at > 2026-06-01",
    "at <= 2026-06-01T12:00",
)


def main() -> None:
    texts = corpus.texts(_DOCUMENTS)
    given = [
        {"id": f"d{n}", "text": text, "metadata": {"n": n, "name": f"document {n}", "at": f"2026-{1 + n % 12:02}-01"}}
        for n, text in enumerate(texts)
    ]
    with Instance({"VEC_EMBEDDER": "wordllama"}) as instance:
        instance.vec("status")
        with instance.connect() as client:

            def ingest() -> float:
                began_s = time.perf_counter()
                for start in range(0, len(given), _BATCH):
                    client.ingest(given[start : start + _BATCH], "some", create=True)
                return time.perf_counter() - began_s

            first_s = ingest()
            for each in given:
                each["metadata"] = {**each["metadata"], "again": 1}  # type: ignore[dict-item]
            with _small_writes(instance) as during_ingest:
                again_s = ingest()
            with _small_writes(instance) as during_update:
                began_s = time.perf_counter()
                updated = client.update(library="some", where="n >= 0", set={"seen": True})["updated"]
                update_s = time.perf_counter() - began_s
            assert updated == _DOCUMENTS
            print(f"  {_DOCUMENTS:,} documents: ingested in {first_s:.2f} s, again with other metadata {again_s:.2f} s")
            print(f"  updated in {update_s:.2f} s, {update_s / again_s:.2f} times that")
            print(f"  small writes during the ingest: {told(sorted(during_ingest))}")
            print(f"  small writes during the update: {told(sorted(during_update))}")
            began_s = time.perf_counter()
            job = client.submit_job("copy", {"to": "copied"}, library="some")
            (done,) = client.wait_for_jobs([job["job_id"]], timeout_s=600)
            assert done["state"] == "completed", done["error"]
            copy_s = time.perf_counter() - began_s
            print(f"  copied in {copy_s:.2f} s, {copy_s / first_s:.2f} times the ingest")
            for where in _FILTERS:
                client.count("some", where=where)  # loads the column
                began_s = time.perf_counter()
                found = client.count("some", where=f"({where})")["documents"]
                print(f"  {where:<26} {found:>6,} documents, {(time.perf_counter() - began_s) * 1e3:6.1f} ms")


@contextlib.contextmanager
def _small_writes(instance: Instance) -> Iterator[list[float]]:
    """Writes one document after the other from another connection; the list has how long each took, in ms."""
    waits: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with instance.connect() as client:
            while not stop.is_set():
                began_s = time.perf_counter()
                client.ingest([{"id": "small", "text": f"a small write {began_s}"}], "other", create=True)
                waits.append((time.perf_counter() - began_s) * 1e3)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield waits
    finally:
        stop.set()
        writer.join()


if __name__ == "__main__":
    main()
