"""Within the switch of a reembed, when some documents have been replaced and others have not: searches compare with the
vectors of one embedder only and find every document, whatever is killed, cancelled or written; each watch sees one
update of a document."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError
from vecd.text import embedders

from .held_reembed import CHUNKS, STEPS
from .test_kinds import completed

_COUNT = 200
_QUERY = "the cats of number 17"
_SENTENCES = [f"Sentence {n} is about cats, and about the number {n * n}." for n in range(6)]
#: A document that reembed splits into several chunks when chunks are to be short.
_LONG = " ".join(_SENTENCES)


class Held:
    """A daemon with a library whose switch has begun and does not go on until `release`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.hold: Path = instance.home / "hold"
        self.hold.touch()
        self.daemon = self._start()
        self.documents = {f"d{n:03}": f"cats and number {n}" for n in range(_COUNT)} | {"long": _LONG}

    def _start(self) -> subprocess.Popen[bytes]:
        return self.instance.start(module="tests.jobs.held_reembed")

    def begin(self, client: Client, index: str = "flat", **params: Any) -> int:
        """Makes the library `lib`, and reembeds it until some of its documents have been replaced."""
        client.request("library.create", library="lib", embedder="hash", index=index)
        client.ingest([{"id": each, "text": text} for each, text in self.documents.items()], "lib")
        job_id: int = client.submit_job("reembed", params, library="lib")["job_id"]
        self.wait(client)
        return job_id

    def wait(self, client: Client, replaced: int = CHUNKS // 2 * STEPS) -> None:
        """Waits until the job stops within the switch: each step has replaced documents of one chunk by such ones."""
        assert replaced < _COUNT
        until(lambda: _updates(client) == replaced, "the job stops within the switch")

    def kill(self) -> None:
        os.kill(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()
        self.daemon = self._start()

    def release(self) -> None:
        self.hold.unlink()


@pytest.fixture
def held() -> Iterator[Held]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        yield Held(instance)


def _updates(client: Client) -> int:
    return [event["type"] for event in history.log_of(client)].count("document.updated")


def embedded(name: str, texts: list[str]) -> npt.NDArray[np.float64]:
    """Vectors of length 1, shape (len(texts), dimension)."""
    embedder = embedders.make(name)
    assert embedder is not None
    rows = embedder.embed(texts).astype(np.float64)
    unit: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def check_search(client: Client, embedder: str, query: str = _QUERY, exact: bool = False) -> None:
    """Every chunk is found, and has the score that this embedder gives its text."""
    hits = list(client.search(query, library="lib", mode="vector", k=1_000, group_by="chunk", exact=exact))
    chunks = client.request("library.show", library="lib")["chunks"]
    assert len(hits) == chunks
    assert len({hit["chunk_id"] for hit in hits}) == chunks
    scores = embedded(embedder, [hit["text"] for hit in hits]) @ embedded(embedder, [query])[0]
    assert np.allclose([hit["score"] for hit in hits], scores, atol=2e-5)


def check_all_replaced(client: Client, embedder: str) -> None:
    """Every stored vector is this embedder's, and the log holds one update of each document."""
    check_search(client, embedder)
    found = [each for each in client.get([each["id"] for each in _listed(client)], "lib", vectors=True) if each]
    chunks = [chunk for document in found for chunk in document["chunks"]]
    stored = np.stack([np.frombuffer(chunk["vector"], "<f4") for chunk in chunks])
    wanted = embedded(embedder, [chunk["text"] for chunk in chunks])
    assert np.allclose(stored / np.linalg.norm(stored, axis=1, keepdims=True), wanted, atol=1e-5)
    history.check(client)
    assert completed(client, "verify")["problems"] == 0


def _listed(client: Client) -> list[dict[str, Any]]:
    return list(client.items("list", "documents", library="lib"))


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_a_search_within_the_switch_compares_with_the_new_vectors_only(held: Held, index: str) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, index, embedder="wordllama")
        assert client.request("library.show", library="lib")["embedder"] == "wordllama"
        check_search(client, "wordllama")  # the index is loaded within the switch
        check_search(client, "wordllama", "number 99", exact=True)
        client.request("library.rebuild", library="lib", index=index)
        check_search(client, "wordllama")
        held.kill()
    with held.instance.connect() as client:
        check_search(client, "wordllama")
        held.wait(client, CHUNKS // 2 * (2 * STEPS - 1))
        held.release()
        (job,) = client.wait_for_jobs([job_id])
        assert (job["state"], job["result"]["documents"]) == ("completed", _COUNT + 1)
        assert _updates(client) == _COUNT + 1
        check_all_replaced(client, "wordllama")


def test_an_index_in_memory_changes_its_vectors_in_one_moment(held: Held) -> None:
    """Each answer is that of the one embedder or of the other, as a whole."""
    with held.instance.connect() as client, held.instance.connect() as searcher:
        held.release()
        client.request("library.create", library="lib", embedder="hash")
        client.ingest([{"id": each, "text": text} for each, text in held.documents.items()], "lib")
        answers: list[list[tuple[str, float]]] = []
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                hits = searcher.search(_QUERY, library="lib", mode="vector", k=1_000)
                answers.append(sorted((hit["document_id"], round(hit["score"], 4)) for hit in hits))

        thread = threading.Thread(target=search)
        thread.start()
        until(lambda: len(answers) > 2, "a search before")
        job_id = client.submit_job("reembed", {"embedder": "wordllama"}, library="lib")["job_id"]
        (job,) = client.wait_for_jobs([job_id])
        assert job["state"] == "completed", job
        count = len(answers)
        until(lambda: len(answers) > count + 2, "a search after")
        stop.set()
        thread.join()
        changes = [place for place, pair in enumerate(itertools.pairwise(answers)) if pair[0] != pair[1]]
        assert len(changes) == 1
        check_all_replaced(client, "wordllama")


def test_another_embedder_and_other_chunks_at_once_are_searched_by_the_new_embedder(held: Held) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, embedder="wordllama", chunk_chars=60)
        check_search(client, "wordllama")
        held.kill()
    with held.instance.connect() as client:
        check_search(client, "wordllama")
        held.release()
        (job,) = client.wait_for_jobs([job_id])
        assert job["result"] == {"documents": _COUNT + 1, "embedder": "wordllama", "chunk_chars": 60}
        assert len(client.get(["long"], "lib")[0]["chunks"]) == len(_SENTENCES)  # type: ignore[index]
        check_all_replaced(client, "wordllama")


def test_what_is_written_within_the_switch_is_embedded_by_the_new_embedder_and_stays(held: Held) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, embedder="wordllama")
        client.ingest([{"id": each, "text": f"written meanwhile {each}"} for each in ("new", "d000", "d150")], "lib")
        client.delete(["d001", "d151"], "lib")
        check_search(client, "wordllama")
        held.kill()
    with held.instance.connect() as client:
        check_search(client, "wordllama")
        held.release()
        client.wait_for_jobs([job_id])
        assert len(_listed(client)) == _COUNT
        for found in client.get(["new", "d000", "d150"], "lib"):
            assert found is not None
            assert found["chunks"][0]["text"] == f"written meanwhile {found['id']}"
        assert client.get(["d001", "d151"], "lib") == [None, None]
        check_all_replaced(client, "wordllama")


def test_a_job_that_is_cancelled_within_the_switch_can_be_retried_and_is_kept_for_that(held: Held) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, embedder="wordllama")
        client.cancel_jobs([job_id])
        until(lambda: client.job(job_id)["state"] == "cancelled", "the job stops")
        with pytest.raises(VecError, match="vec jobs retry"):
            client.drop_jobs([job_id])
        assert completed(client, "prune", {"keep": 0})["pruned"] == 0
        held.kill()
    with held.instance.connect() as client:
        check_search(client, "wordllama")
        held.release()
        client.retry_jobs([job_id])
        (job,) = client.wait_for_jobs([job_id])
        assert (job["state"], job["result"]["documents"]) == ("completed", _COUNT + 1)
        assert _updates(client) == _COUNT + 1
        client.drop_jobs([job_id])
        check_all_replaced(client, "wordllama")


def test_the_next_reembed_finishes_a_switch_whose_job_was_cancelled(held: Held) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, embedder="wordllama")
        client.cancel_jobs([job_id])
        until(lambda: client.job(job_id)["state"] == "cancelled", "the job stops")
        held.release()
        result = completed(client, "reembed", {"embedder": "hash"}, library="lib")
        assert result["embedder"] == "hash"
        assert _updates(client) == 2 * (_COUNT + 1)
        check_all_replaced(client, "hash")
        client.drop_jobs([job_id])


def test_a_backup_that_is_made_within_the_switch_is_searched_right_and_can_be_finished(
    held: Held, tmp_path: Path
) -> None:
    with held.instance.connect() as client:
        held.begin(client, embedder="wordllama")
        completed(client, "backup", {"path": str(tmp_path / "backup.db")})
    with Instance({"VEC_EMBEDDER": "hash"}) as other:
        other.vec("restore", str(tmp_path / "backup.db"))
        other.start()
        with other.connect() as client:
            check_search(client, "wordllama")
            assert completed(client, "reembed", {"embedder": "wordllama"}, library="lib")["documents"] > 0
            assert _updates(client) == _COUNT + 1
            check_all_replaced(client, "wordllama")


def test_a_library_that_is_deleted_within_the_switch_is_gone_and_its_job_ends(held: Held) -> None:
    with held.instance.connect() as client:
        job_id = held.begin(client, embedder="wordllama")
        client.request("library.delete", library="lib")
        held.release()
        (job,) = client.wait_for_jobs([job_id])
        assert (job["state"], job["error"]["code"]) == ("failed", "not_found")
        client.drop_jobs([job_id])
        assert completed(client, "verify")["problems"] == 0


def test_an_index_in_memory_changes_its_vectors_though_the_first_documents_were_deleted_before_the_switch(
    held: Held,
) -> None:
    drafted = held.instance.home / "hold-drafted"
    drafted.touch()
    held.release()
    with held.instance.connect() as client:
        client.request("library.create", library="lib", embedder="hash", index="flat")
        client.ingest([{"id": each, "text": text} for each, text in held.documents.items()], "lib")
        check_search(client, "hash")
        job_id = client.submit_job("reembed", {"embedder": "wordllama"}, library="lib")["job_id"]
        until(lambda: (client.job(job_id)["progress"] or {}).get("done") == len(held.documents), "all are drafted")
        client.delete([f"d{n:03}" for n in range(2 * CHUNKS)], "lib")
        drafted.unlink()
        (job,) = client.wait_for_jobs([job_id])
        assert job["state"] == "completed", job["error"]
        check_all_replaced(client, "wordllama")


def test_a_library_that_was_empty_when_its_embedder_changed_is_searched_by_the_new_one(held: Held) -> None:
    held.release()
    with held.instance.connect() as client:
        client.request("library.create", library="lib", embedder="hash", index="flat")
        for embedder in ("wordllama", "hash"):  # the index is not in memory yet, and then it is
            completed(client, "reembed", {"embedder": embedder}, library="lib")
            client.ingest([{"id": each, "text": text} for each, text in held.documents.items()], "lib")
            check_search(client, embedder)
            client.delete(list(held.documents), "lib")
