"""copy: the new library equals the source as of the moment at which the job ends, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import documents, fresh, ids_in, ingested
from vecd.errors import VecError


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


def whole(instance: Instance, library: str) -> list[dict[str, Any]]:
    ids = ids_in(instance, library)
    return documents(instance, library, *ids) if ids else []


def test_a_copy_has_the_settings_the_documents_and_the_vectors(instance: Instance) -> None:
    library = fresh(instance, index="flat", metric="dot", chunk_chars=80, recall=0.9, language="german")
    given: list[dict[str, Any]] = [
        {"id": "a", "title": "Titel", "text": "Viele Wörter. " * 20, "metadata": {"n": 1}},
        {"id": "b", "text": "own", "vector": [0.5] * 256},
        {"id": "c", "vector": [1.5] * 256},
    ]
    ingested(instance, library, ndjson(given))
    (result,) = instance.objects("library", "copy", library, f"{library}-copy")
    assert (result["library"], result["documents"]) == (f"{library}-copy", 3)
    assert whole(instance, f"{library}-copy") == whole(instance, library)
    shown = [instance.objects("library", "show", name)[0] for name in (library, f"{library}-copy")]
    for each in shown:
        for key in ("name", "created_at", "memory"):
            del each[key]
    assert shown[0] == shown[1]
    hits = [instance.objects("search", "wort", "-l", name, "--mode", "text") for name in (library, f"{library}-copy")]
    assert hits[0] == hits[1]
    # What was ingested is recognized in the copy, too.
    assert ingested(instance, f"{library}-copy", ndjson(given)) == {"unchanged": 3}
    types = [
        each["type"]
        for each in instance.objects("watch", "-l", f"{library}-copy", "--from", "beginning", "--no-follow")
    ]
    assert types[0] == "library.created"
    assert types.count("document.added") == 3


def test_a_copy_equals_the_source_though_documents_come_change_and_go_meanwhile(instance: Instance) -> None:
    library = fresh(instance)
    ingested(instance, library, ndjson([{"id": f"d{n:05}", "text": f"text {n}"} for n in range(6_000)]))
    stop = threading.Event()

    def write() -> None:
        with instance.connect() as client:
            number = 0
            while not stop.is_set():
                number += 1
                changed = [{"id": f"d{number * 37 % 6_000:05}", "text": f"changed {number}"}, {"text": f"new {number}"}]
                client.ingest(changed, library)
                client.delete([f"d{number * 53 % 6_000:05}"], library)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (job,) = instance.objects("library", "copy", library, f"{library}-copy", "--background")
        with instance.connect() as client:
            (done,) = client.wait_for_jobs([job["job_id"]], timeout_s=120)
    finally:
        stop.set()
        writer.join()
    assert done["state"] == "completed", done["error"]
    # The log says what the source was when the job ended.
    seq = done["result"]["seq"]
    ids: set[str] = set()
    for event in instance.objects("watch", "-l", library, "--from", "beginning", "--no-follow", "--type", "document.*"):
        if event["seq"] <= seq:
            (ids.discard if event["type"] == "document.deleted" else ids.add)(event["data"]["id"])
    assert set(ids_in(instance, f"{library}-copy")) == ids


def test_a_name_that_is_taken_and_a_library_that_is_not_there_are_refused(instance: Instance) -> None:
    library, other = fresh(instance), fresh(instance)
    assert "already exists" in instance.vec("library", "copy", library, other, status=1).stderr
    assert "does not exist" in instance.vec("library", "copy", "no-such", "x", status=4).stderr
    assert "not a valid name" in instance.vec("library", "copy", library, "a/b", status=2).stderr


def test_a_copy_that_a_crash_interrupted_is_completed(instance: Instance) -> None:
    library = fresh(instance)
    ingested(instance, library, ndjson([{"id": f"d{n}", "text": f"text {n}"} for n in range(6_000)]))
    (job,) = instance.objects("library", "copy", library, f"{library}-copy", "--background")
    pid = instance.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    instance.vec("status")
    with instance.connect() as client:
        (done,) = client.wait_for_jobs([job["job_id"]], timeout_s=120)
    assert done["state"] == "completed", done["error"]
    assert whole(instance, f"{library}-copy") == whole(instance, library)


def test_a_library_is_not_renamed_while_it_is_copied(instance: Instance) -> None:
    library = fresh(instance)
    ingested(instance, library, ndjson([{"id": f"d{n}", "text": f"text {n}"} for n in range(8_000)]))
    with instance.connect() as client:
        job = client.submit_job("copy", {"to": f"{library}-copy"}, library=library)
        refused = None
        while refused is None and client.job(job["job_id"])["state"] in ("pending", "running"):
            try:
                library = client.rename_library(library, f"{library}r")["name"]
            except VecError as error:
                refused = error
        (done,) = client.wait_for_jobs([job["job_id"]], timeout_s=120)
    assert refused is not None
    assert refused.code == "busy"
    assert done["state"] == "completed", done["error"]
