"""A library with a slow embedder: a document is found at once by the vectors of a fast one, and better when its own
have come; whatever happens to the embedder or the daemon, none is ever missing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import Code, VecError
from vecd.text import embedders

from .deep_embedder import DIMENSION, Deep
from .slow_embedder import environment

_TEXTS = {
    "cat": "The cat sleeps.",
    "car": "A car is parked outside.",
    "doctor": "The doctor is in.",
    "late": "held: A car is repaired.",
}


class Stage:
    """An instance, and the folder with which its embedder is told how to behave."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance = instance
        self.folder = folder
        self.daemon = instance.start()

    def tell(self, what: str, told: bool = True) -> None:
        (self.folder / what).touch() if told else (self.folder / what).unlink()

    def embedded(self) -> list[str]:
        """The texts that the embedder has embedded."""
        path = self.folder / "embedded"
        return path.read_text().splitlines() if path.exists() else []

    def kill(self) -> None:
        os.kill(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()
        self.daemon = self.instance.start()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("VEC_TEST_DEEP", str(tmp_path))
    with Instance({**environment(), "VEC_EMBEDDER": "hash", "VEC_TEST_DEEP": str(tmp_path)}) as instance:
        yield Stage(instance, tmp_path)


def ingest(client: Client, texts: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = client.ingest([{"id": each, "text": text} for each, text in texts.items()], "lib")
    return answer


def how_far(client: Client) -> tuple[int, int]:
    shown = client.library("lib")
    return shown["second_stage"]["embedded"], shown["chunks"]


def wait_for(client: Client, embedded: int) -> None:
    until(lambda: how_far(client)[0] == embedded, f"{embedded} chunks are embedded")


def found(client: Client, query: str, **options: Any) -> list[str]:
    return [hit["document_id"] for hit in client.search(query, library="lib", **options)]


def test_a_document_is_found_at_once_and_by_its_second_vector_when_it_has_one(stage: Stage) -> None:
    stage.tell("hold")
    with stage.instance.connect() as client:
        made = client.create_library("lib", embedder="deep")
        assert (made["embedder"], made["first_embedder"], made["dimension"]) == ("deep", "hash", 256)
        ingest(client, {"cat": _TEXTS["cat"], "doctor": _TEXTS["doctor"]})
        wait_for(client, 2)
        assert ingest(client, {"late": _TEXTS["late"], "car": _TEXTS["car"]})["added"] == 2  # which did not wait for it
        assert how_far(client) == (2, 4)
        # By its second vector; and by its first, while the chunk waits: the best of each stage are the first two.
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        assert "late" in found(client, "repaired", mode="vector", k=2)
        assert sorted(found(client, "automobile", mode="vector")) == sorted(_TEXTS)
        stage.tell("hold", False)
        wait_for(client, 4)
        assert set(found(client, "automobile", k=2)) == {"car", "late"}
        answer = client.request("search", query="physician", library="lib", k=1, explain=True)
        assert answer["explain"]["second_stage"] == {"asked": True, "embedded": 4}
        (hit,) = answer["hits"]
        assert hit["document_id"] == "doctor"
        assert hit["explain"]["second"]["rank"] == 1
        logged = [event for event in history.log_of(client) if event["type"] == "library.embedded"]
        assert [event["data"] for event in logged] == [{"embedder": "deep", "chunks": each} for each in (2, 4)]
        history.check(client)


def test_what_was_embedded_when_the_daemon_is_killed_is_not_embedded_again_and_the_rest_follows(stage: Stage) -> None:
    stage.tell("hold")
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        ingest(client, {f"d{n:03}": f"Page {n} about cats" for n in range(100)})
        wait_for(client, 100)
        ingest(client, {f"h{n:03}": f"held: page {n} about cars" for n in range(100)})
        client.delete(["d000"], "lib")
        ingest(client, {"d001": "Now about physicians"})
        stage.kill()
    stage.tell("hold", False)
    with stage.instance.connect() as client:
        wait_for(client, 199)
        assert len([text for text in stage.embedded() if text.startswith("Page")]) == 100
        assert found(client, "doctors physicians", mode="vector", k=1) == ["d001"]
        hits = list(client.search("automobile", library="lib", mode="vector", k=1_000))
        assert sorted(hit["document_id"] for hit in hits) == sorted(
            [f"d{n:03}" for n in range(1, 100)] + [f"h{n:03}" for n in range(100)]
        )
        (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]])
        assert job["result"]["problems"] == 0
        # By another index, and from the snapshot, too.
        client.request("library.rebuild", library="lib", index="flat")
        assert len(list(client.search("automobile", library="lib", mode="vector", k=1_000))) == 199
        client.request("library.rebuild", library="lib", index="hnsw", params={"m": 8})
        client.wait_for_jobs([client.submit_job("snapshot")["job_id"]])
    stage.kill()
    with stage.instance.connect() as client:
        assert found(client, "doctors physicians", mode="vector", k=1) == ["d001"]
        assert len(list(client.search("automobile", library="lib", mode="vector", k=1_000))) == 199


def test_while_the_embedder_is_away_the_first_stage_finds_everything_and_the_status_says_why(stage: Stage) -> None:
    stage.tell("away")
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        ingest(client, _TEXTS)
        until(lambda: client.library("lib")["second_stage"]["error"], "the stage says that it waits")
        assert client.library("lib")["second_stage"]["error"] == "the model is away"
        assert found(client, "cat", k=1) == ["cat"]
        stage.tell("away", False)
        wait_for(client, 4)
        assert client.library("lib")["second_stage"]["error"] is None
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        stage.tell("away")
        answer = client.request("search", query="cat", library="lib", k=1)
        assert answer["hits"][0]["document_id"] == "cat"
        assert "'deep' did not embed the query (the model is away)" in answer["warnings"][0]


def test_a_search_waits_for_a_bounded_time_for_an_embedder_that_hangs(stage: Stage) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        ingest(client, {"cat": _TEXTS["cat"]})
        wait_for(client, 1)
        stage.tell("stuck")
        answer = client.request("search", query="cat", library="lib")
        assert answer["hits"][0]["document_id"] == "cat"
        assert "has not answered in 2 s" in answer["warnings"][0]
        stage.tell("stuck", False)


def test_a_text_that_was_embedded_before_is_not_embedded_again(stage: Stage) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        client.ingest([{"id": "a", "texts": ["one cat", "two cars"]}, {"id": "b", "text": "one cat"}], "lib")
        wait_for(client, 3)
        assert sorted(stage.embedded()) == ["one cat", "two cars"]
        client.ingest([{"id": "a", "texts": ["one cat", "three doctors"], "metadata": {"n": 1}}], "lib")
        wait_for(client, 3)
        assert sorted(stage.embedded()) == ["one cat", "three doctors", "two cars"]
        hits = list(client.search("three physicians", library="lib", mode="vector", group_by="chunk"))
        assert sorted(hit["chunk_id"] for hit in hits) == ["a#0", "a#1", "b#0"]


def test_each_answer_has_every_document_once_while_they_are_updated_and_embedded(stage: Stage) -> None:
    with stage.instance.connect() as client, stage.instance.connect() as other:
        client.create_library("lib", embedder="deep")
        ids = [f"d{n:02}" for n in range(20)]
        ingest(client, {each: f"cat {each}" for each in ids})
        wait_for(client, 20)
        stop = threading.Event()
        rounds: list[int] = []

        def write() -> None:
            while not stop.is_set():
                ingest(other, {each: f"cat {each} {len(rounds)}" for each in ids[len(rounds) % 3 :: 3]})
                rounds.append(1)

        thread = threading.Thread(target=write)
        thread.start()
        answers = 0
        while answers < 100 or len(rounds) < 20:
            hits = client.search("feline", library="lib", mode="vector", k=100, group_by="chunk")
            assert sorted(hit["document_id"] for hit in hits) == ids
            answers += 1
        stop.set()
        thread.join()
        wait_for(client, 20)


def test_a_copy_and_an_update_of_metadata_keep_the_second_vectors_and_several_libraries_share_a_ranking(
    stage: Stage,
) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        ingest(client, _TEXTS)
        wait_for(client, 4)
        (job,) = client.wait_for_jobs([client.submit_job("copy", {"to": "other"}, library="lib")["job_id"]])
        assert job["state"] == "completed", job
        until(lambda: client.library("other")["second_stage"]["embedded"] == 4, "the copy is embedded")
        client.request("update", library="lib", ids=["cat"], set={"seen": True})
        wait_for(client, 4)
        assert len(stage.embedded()) == 4  # nothing was embedded again
        hits = client.request("search", query="feline", libraries=["lib", "other"], mode="vector", k=2)["hits"]
        assert {(hit["document_id"], hit["library"]) for hit in hits} == {("cat", "lib"), ("cat", "other")}


def test_a_query_with_a_vector_searches_the_vectors_of_its_dimension(stage: Stage) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="deep")
        ingest(client, _TEXTS)
        wait_for(client, 4)
        deep = Deep().embed(["feline"])[0]
        hits = list(client.search(None, vector=deep.astype("<f4").tobytes(), library="lib", k=1))
        assert hits[0]["document_id"] == "cat"
        first = embedders.make("hash")
        assert first is not None
        hits = list(client.search(None, vector=first.embed(["cat"])[0].astype("<f4").tobytes(), library="lib", k=1))
        assert hits[0]["document_id"] == "cat"
        with pytest.raises(VecError, match="256-dimension"):
            list(client.search(None, vector=np.ones(DIMENSION + 1, "<f4").tobytes(), library="lib"))


def test_a_library_with_one_stage_waits_for_its_slow_embedder(stage: Stage) -> None:
    with stage.instance.connect() as client:
        made = client.create_library("lib", embedder="deep", first_embedder="none")
        assert (made["first_embedder"], made["dimension"], made["second_stage"]) == (None, DIMENSION, None)
        ingest(client, _TEXTS)
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        for first in ("slow", "none such"):
            with pytest.raises(VecError):
                client.create_library("other", embedder="deep", first_embedder=first)
        with pytest.raises(VecError, match="no first embedder"):
            client.create_library("other", embedder="none", first_embedder="hash")


# --- reembed --------------------------------------------------------------------------------------------------------


def reembed(client: Client, **params: Any) -> dict[str, Any]:
    (job,) = client.wait_for_jobs([client.submit_job("reembed", params, library="lib")["job_id"]])
    assert job["state"] == "completed", job
    result: dict[str, Any] = job["result"]
    return result


def dimensions(client: Client, ids: Iterable[str]) -> set[int]:
    """Those of the stored vectors of documents."""
    found = client.get(list(ids), "lib", vectors=True)
    return {len(chunk["vector"]) // 4 for each in found if each is not None for chunk in each["chunks"]}


def test_a_reembed_adds_a_second_stage_and_takes_it_away_without_touching_the_documents(stage: Stage) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="hash")
        ingest(client, _TEXTS)
        assert reembed(client, embedder="deep") == {
            "documents": 0, "embedder": "deep", "chunk_chars": 1_000, "embedded": 4,
        }  # fmt: skip
        shown = client.library("lib")
        assert (shown["embedder"], shown["first_embedder"]) == ("deep", "hash")
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        assert reembed(client, embedder="hash")["documents"] == 0
        assert client.library("lib")["first_embedder"] is None
        ingest(client, {"new": "something new"})
        assert found(client, "something", mode="vector", k=1) == ["new"]
        (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]])
        assert job["result"]["problems"] == 0
        types = [event["type"] for event in history.log_of(client)]
        assert (types.count("document.updated"), types.count("library.embedded")) == (0, 1)


def test_a_reembed_can_change_the_dimension_while_searches_and_writes_go_on(stage: Stage) -> None:
    texts = {f"d{n:03}": f"cats and number {n}" for n in range(600)}
    with stage.instance.connect() as client, stage.instance.connect() as other, stage.instance.connect() as writer:
        client.create_library("lib", embedder="hash", index="hnsw")
        ingest(client, {**texts, **_TEXTS})
        stop = threading.Event()
        answers: list[int] = []
        written: list[str] = []

        def search() -> None:
            while not stop.is_set():
                answers.append(len(list(other.search("feline", library="lib", mode="vector", k=604))))

        def write() -> None:
            while not stop.is_set():
                try:
                    ingest(writer, {f"w{len(written)}": "written meanwhile"})
                except VecError as error:  # prepared for the earlier embedder, and the new one is slow
                    assert error.code == Code.BUSY
                else:
                    written.append(f"w{len(written)}")

        threads = [threading.Thread(target=each) for each in (search, write)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 2 and len(written) > 2, "searches and writes")
        result = reembed(client, embedder="deep", first_embedder="none")
        stop.set()
        for thread in threads:
            thread.join()
        assert result["documents"] >= 604
        assert set(answers) == {604}  # nothing was ever missing
        assert client.library("lib")["dimension"] == DIMENSION
        assert dimensions(client, [*texts, *_TEXTS, *written]) == {DIMENSION}
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        assert len(list(client.search("feline", library="lib", mode="vector", k=10_000))) == 604 + len(written)
    stage.kill()
    with stage.instance.connect() as client:
        assert found(client, "feline", mode="vector", k=1) == ["cat"]
        assert reembed(client, embedder="hash")["documents"] == 604 + len(written)
        assert dimensions(client, [*texts, *_TEXTS, *written]) == {256}
        (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]])
        assert job["result"]["problems"] == 0


def test_a_vector_without_a_text_cannot_be_given_another_dimension(stage: Stage) -> None:
    with stage.instance.connect() as client:
        client.create_library("lib", embedder="none", dimension=2)
        client.ingest([{"id": "point", "vector": [0.0, 1.0]}], "lib")
        (job,) = client.wait_for_jobs([client.submit_job("reembed", {"embedder": "hash"}, library="lib")["job_id"]])
        assert (job["state"], job["error"]["code"]) == ("failed", "unsupported")
        assert "document 'point' has a chunk without a text or title" in job["error"]["message"]
        assert client.library("lib")["dimension"] == 2
