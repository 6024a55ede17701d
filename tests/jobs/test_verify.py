"""verify beside writes: what has just been committed is no damage."""

from __future__ import annotations

import itertools
import threading

from tests.support.instance import Instance


def test_verify_finds_no_damage_in_an_index_that_has_not_heard_of_the_last_commit_yet() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start(module="tests.jobs.late")
        stop = threading.Event()

        def write() -> None:
            with instance.connect() as client:
                for turn in itertools.count():
                    client.ingest([{"id": f"d{n}", "text": f"turn {turn} of {n}"} for n in range(4)])
                    if stop.is_set():
                        return

        writer = threading.Thread(target=write)
        with instance.connect() as client:
            client.ingest([{"id": "first", "text": "the index is in memory"}])
            writer.start()
            try:
                for _ in range(3):
                    (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]], timeout_s=60)
                    assert job["error"] is None
            finally:
                stop.set()
                writer.join()
