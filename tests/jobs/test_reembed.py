"""reembed: a library to another embedder or chunking, in one moment, while reads and writes go on."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from typing import Any

import numpy as np
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError
from vecd.text import embedders

from .test_kinds import completed, done


def embedded(name: str, texts: list[str]) -> list[bytes]:
    embedder = embedders.make(name)
    assert embedder is not None
    return [row.astype("<f4").tobytes() for row in embedder.embed(texts)]


def vectors_of(client: Client, library: str, ids: list[str]) -> list[bytes]:
    found = client.get(ids, library, vectors=True)
    return [chunk["vector"] for document in found if document is not None for chunk in document["chunks"]]


def made(client: Client, name: str, count: int, embedder: str = "hash") -> list[dict[str, Any]]:
    client.request("library.create", library=name, embedder=embedder)
    documents = [{"id": f"d{n:05}", "text": f"cats and number {n}", "metadata": {"n": n}} for n in range(count)]
    for start in range(0, count, 2_000):
        client.ingest(documents[start : start + 2_000], name)
    return documents


def test_every_vector_is_the_new_embedders_and_all_else_is_as_it_was(client: Client) -> None:
    documents = made(client, "switched", 1_500)
    client.ingest([{"id": "t", "title": "A title", "texts": ["one", "two"]}], "switched")
    client.delete(["d00007"], "switched")
    before = {each["id"]: each for each in client.items("list", "documents", library="switched")}
    result = completed(client, "reembed", {"embedder": "wordllama"}, library="switched")
    assert result == {"documents": 1_500, "embedder": "wordllama", "chunk_chars": 1_000}
    assert {each["id"]: each for each in client.items("list", "documents", library="switched")} == before
    assert client.request("library.show", library="switched")["embedder"] == "wordllama"
    ids = [each["id"] for each in documents[:300] if each["id"] != "d00007"]
    wanted = embedded("wordllama", [str(each["text"]) for each in documents[:300] if each["id"] != "d00007"])
    found = vectors_of(client, "switched", ids)
    for got, want in zip(found, wanted, strict=True):
        assert np.allclose(np.frombuffer(got, "<f4"), np.frombuffer(want, "<f4"), atol=1e-5)
    titled = embedded("wordllama", ["A title\none", "A title\ntwo"])
    for got, want in zip(vectors_of(client, "switched", ["t"]), titled, strict=True):
        assert np.allclose(np.frombuffer(got, "<f4"), np.frombuffer(want, "<f4"), atol=1e-5)
    for mode in ("vector", "text", "hybrid"):
        assert list(client.search("number 42", library="switched", mode=mode, k=5))
    history.check(client)
    assert client.ingest(documents[:5], "switched")["unchanged"] == 5  # what is sent again is what is there
    assert completed(client, "verify")["problems"] == 0


def test_chunks_of_another_length_hold_the_same_words(client: Client) -> None:
    client.request("library.create", library="rechunked", embedder="hash", chunk_chars=1_000)
    sentences = [f"Sentence number {n} is about cats." for n in range(200)]
    client.ingest([{"id": "long", "text": " ".join(sentences)}, {"id": "short", "text": "short"}], "rechunked")
    result = completed(client, "reembed", {"chunk_chars": 100}, library="rechunked")
    assert result == {"documents": 2, "embedder": "hash", "chunk_chars": 100}
    document, short = client.get(["long", "short"], "rechunked")
    assert document is not None
    assert short is not None
    texts = [chunk["text"] for chunk in document["chunks"]]
    assert len(texts) > 60
    assert max(map(len, texts)) <= 100
    assert " ".join(texts).split() == " ".join(sentences).split()
    assert len(short["chunks"]) == 1
    assert next(client.search("sentence number 150", library="rechunked", mode="text", k=1))["document_id"] == "long"
    history.check(client)


def test_reads_and_writes_go_on_and_all_that_was_acked_has_the_new_vectors(instance: Instance, client: Client) -> None:
    made(client, "busy", 6_000)
    list(client.search("cats", library="busy", mode="vector"))
    stop = threading.Event()
    written: dict[str, str] = {}
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with instance.connect() as writer:
                for turn in itertools.count():
                    text = f"written meanwhile {turn}"
                    ids = [f"w{turn % 50}", f"d{turn % 6_000:05}"]
                    answer = writer.ingest([{"id": each, "text": text} for each in ids], "busy")
                    assert not answer["failed"], answer
                    written.update(dict.fromkeys(ids, text))
                    if stop.is_set():
                        return
        except BaseException as failure:
            failures.append(failure)

    def search() -> None:
        try:
            with instance.connect() as reader:
                while not stop.is_set():
                    assert len(list(reader.search("cats and number 17", library="busy", mode="vector", k=10))) == 10
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=each) for each in (write, write, search, search)]
    for thread in threads:
        thread.start()
    until(lambda: len(written) > 20, "some writes")
    job = done(client, "reembed", {"embedder": "wordllama"}, library="busy")
    until(lambda: len(written) > 60, "some more writes")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert job["state"] == "completed", job["error"]
    every = [each["id"] for each in client.items("list", "documents", library="busy")]
    for start in range(0, len(every), 1_000):
        page = [document for document in client.get(every[start : start + 1_000], "busy", vectors=True) if document]
        wanted = embedded("wordllama", [document["chunks"][0]["text"] for document in page])
        for document, want in zip(page, wanted, strict=True):
            got = np.frombuffer(document["chunks"][0]["vector"], "<f4")
            assert np.allclose(got, np.frombuffer(want, "<f4"), atol=1e-5), document["id"]
    history.check(client)
    assert completed(client, "verify")["problems"] == 0


def test_a_reembed_that_is_killed_goes_on_and_switches_once() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            made(client, "killed", 8_000)
            job_id = client.submit_job("reembed", {"embedder": "wordllama"}, library="killed")["job_id"]
        for _ in range(8):
            killer = threading.Timer(chance.uniform(0.05, 0.5), os.kill, (daemon.pid, signal.SIGKILL))
            killer.start()
            daemon.wait(60)
            killer.join()
            daemon = instance.start()
            with instance.connect() as client:
                if client.job(job_id)["state"] == "dead":
                    client.retry_jobs([job_id])
        with instance.connect() as client:
            (job,) = client.wait_for_jobs([job_id])
            assert (job["state"], job["result"]["documents"]) == ("completed", 8_000)
            kinds = [event["type"] for event in history.log_of(client)]
            assert kinds.count("document.updated") == 8_000
            history.check(client)
            assert completed(client, "verify")["problems"] == 0


def test_a_cancelled_reembed_leaves_the_library_as_it_was(client: Client) -> None:
    made(client, "kept", 4_000)
    before = vectors_of(client, "kept", ["d00000", "d03999"])
    job_id = client.submit_job("reembed", {"embedder": "wordllama"}, library="kept")["job_id"]
    until(lambda: client.job(job_id)["checkpoint"], "a step")
    client.cancel_jobs([job_id])
    if client.job(job_id)["state"] == "completed":
        pytest.skip("it was faster than its cancel")
    assert client.request("library.show", library="kept")["embedder"] == "hash"
    assert vectors_of(client, "kept", ["d00000", "d03999"]) == before
    client.drop_jobs([job_id])
    history.check(client)


def test_what_cannot_be_reembedded_is_refused_when_it_is_submitted(client: Client) -> None:
    made(client, "fixed", 1)
    client.request("library.create", library="own", embedder="none", dimension=3)
    for params, library, code in (
        ({}, "fixed", "invalid_request"),
        ({"embedder": "hash"}, "fixed", "invalid_request"),
        ({"embedder": "none"}, "fixed", "unsupported"),
        ({"embedder": "nonesuch"}, "fixed", "unsupported"),
        ({"embedder": "hash", "first_embedder": "nonesuch"}, "own", "unsupported"),
        ({"chunk_chars": 10}, "fixed", "invalid_request"),
    ):
        with pytest.raises(VecError) as refusal:
            client.submit_job("reembed", params, library=library)
        assert refusal.value.code == code, params
