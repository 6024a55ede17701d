"""A flipped bit in what is stored: an error that names the document, never another text or vector."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from struct import pack
from typing import Any

import apsw
import numpy as np
import pytest

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import VecError
from vecd.store import checksums

VECTOR = pack("<4f", 0.25, -1.5, 3.0, 0.125)
DOCUMENTS = [
    {"id": "good", "title": "Sound", "text": "nothing happens to this", "metadata": {"colour": "green"}},
    {"id": "bad", "title": "Headline", "texts": ["first part", "zebra part"], "metadata": {"colour": "yellow"}},
]


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        daemon = made.start()
        with made.connect() as client:
            client.ingest(DOCUMENTS)
            client.request("library.create", library="points", embedder="none", index="flat", metric="l2")
            client.ingest([{"id": "p", "vector": VECTOR}, {"id": "q", "vector": pack("<4f", 9, 9, 9, 9)}], "points")
            client.request("shutdown")
        assert daemon.wait(30) == 0
        yield made


def flip(instance: Instance, what: bytes) -> None:
    """Flips the lowest bit of the last byte of `what`, which stands once in the store's file."""
    held = bytearray(instance.settings.store.read_bytes())
    assert held.count(what) == 1
    held[held.index(what) + len(what) - 1] ^= 1
    instance.settings.store.write_bytes(held)


def refused(client: Client, op: str, **body: object) -> VecError:
    with pytest.raises(VecError) as refusal:
        client.request(op, **body)
    return refusal.value


def verify(client: Client) -> list[str]:
    """What a verify finds."""
    (job,) = client.wait_for_jobs([client.submit_job("verify")["job_id"]], timeout_s=60)
    if job["state"] == "completed":
        return []
    assert job["error"]["code"] == "damaged"
    problems: list[str] = job["error"]["problems"]
    return problems


@pytest.mark.parametrize("what", [b"first part", b"Headline", b'{"colour":"yellow'])
def test_a_damaged_document_is_an_error_until_it_is_deleted_and_written_again(instance: Instance, what: bytes) -> None:
    flip(instance, what)
    instance.start()
    with instance.connect() as client:
        failure = refused(client, "get", ids=["bad"])
        assert failure.code == "damaged"
        assert failure.details["id"] == "bad"
        assert failure.details["library"] == "default"
        assert "delete the document and write it again" in (failure.hint or "")
        assert client.get(["good"])[0]["chunks"][0]["text"] == "nothing happens to this"  # type: ignore[index]
        (problem,) = verify(client)
        assert "'bad'" in problem
        client.delete(["bad"])
        assert client.ingest([DOCUMENTS[1]])["added"] == 1
        bad, _ = client.get(["bad", "good"])
        assert bad is not None
        assert [chunk["text"] for chunk in bad["chunks"]] == ["first part", "zebra part"]


def test_a_chunk_with_a_damaged_text_is_no_hit_and_the_others_are(instance: Instance) -> None:
    flip(instance, b"zebra part")
    instance.start()
    with instance.connect() as client:
        warnings: list[str] = []
        client.on_warnings = warnings.extend
        for mode, text in product(("vector", "text", "hybrid", "auto"), ('"part"', "zebra part", "nothing happens")):
            found = {hit["chunk_id"] for hit in client.search(text, mode=mode, group_by="chunk")}
            assert ("good#0" if "nothing" in text else "bad#0") in found
            assert found <= {"bad#0", "good#0"}
            (warning,) = warnings
            assert "'bad' of library 'default' is damaged" in warning
            assert "delete the document and write it again" in warning
            warnings.clear()
        assert client.status()["libraries"][0]["memory"]["damaged"] == 1
        (problem,) = verify(client)
        assert "'bad' has another text in chunk 1" in problem
        client.delete(["bad"])
        assert "damaged" not in client.status()["libraries"][0]["memory"]
        client.ingest([DOCUMENTS[1]])
        for mode in ("vector", "text", "hybrid"):
            assert "zebra part" in {hit["text"] for hit in client.search("zebra", mode=mode, group_by="chunk")}
        assert warnings == []


@pytest.mark.parametrize(
    ("what", "damaged", "problem"),
    [
        (b"zebra part", b"zebr\xff part", "has another text in chunk 1"),
        (b"Headline", b"Headlin\xff", "has another id, title or metadata"),
    ],
)
def test_bytes_that_are_no_text_any_more_are_damage_too(
    instance: Instance, what: bytes, damaged: bytes, problem: str
) -> None:
    held = instance.settings.store.read_bytes()
    instance.settings.store.write_bytes(held.replace(what, damaged))
    instance.start()
    with instance.connect() as client:
        warnings: list[str] = []
        client.on_warnings = warnings.extend
        assert refused(client, "get", ids=["bad"]).code == "damaged"
        assert [hit["document_id"] for hit in client.search("nothing", mode="text")] == ["good"]
        assert "'bad' of library 'default' is damaged" in warnings[0]
        (found,) = verify(client)
        assert f"'bad' {problem}" in found


def test_a_damaged_text_is_found_again_after_a_start_from_a_snapshot(instance: Instance) -> None:
    flip(instance, b"zebra part")
    for n in range(3):
        daemon = instance.start()
        with instance.connect() as client:
            warnings: list[str] = []
            client.on_warnings = warnings.extend
            if n == 0:
                client.ingest([{"id": "later", "text": "zebra crossing"}])
            assert [hit["chunk_id"] for hit in client.search("zebra", mode="text")] == ["later#0"]
            assert len(warnings) == 1
            assert "'bad' of library 'default' is damaged" in warnings[0]
            job_id = client.submit_job("snapshot", library="default")["job_id"]
            (job,) = client.wait_for_jobs([job_id], timeout_s=60)
            assert job["state"] == "completed"
            assert len(verify(client)) == 1
            client.request("shutdown")
        assert daemon.wait(30) == 0
        assert list((instance.settings.data / "indexes").glob("*.text"))
    assert not list((instance.settings.data / "indexes").glob("*.damaged"))


def test_a_damaged_vector_is_not_loaded_and_its_document_can_be_replaced(instance: Instance, tmp_path: Path) -> None:
    flip(instance, VECTOR)
    instance.start()
    with instance.connect() as client:
        warnings: list[str] = []
        client.on_warnings = warnings.extend
        hits = list(client.search(vector=[0.25, -1.5, 3.0, 0.125], library="points"))
        assert [hit["document_id"] for hit in hits] == ["q"]
        (warning,) = warnings
        assert "'p' of library 'points' is damaged" in warning
        assert "delete the document and write it again" in warning
        (points,) = [each for each in client.status()["libraries"] if each["name"] == "points"]
        assert points["memory"]["damaged"] == 1
        warnings.clear()
        assert refused(client, "get", ids=["p"], library="points", vectors=True).code == "damaged"
        job = client.submit_job("export", {"path": str(tmp_path / "out"), "vectors": True}, library="points")
        (job,) = client.wait_for_jobs([job["job_id"]], timeout_s=60)
        assert (job["state"], job["error"]["code"]) == ("failed", "damaged")
        (problem,) = verify(client)
        assert problem == "library points: document 'p' has another vector in chunk 0 than was written"
        client.ingest([{"id": "p", "vector": VECTOR[:8] + VECTOR[:8]}], "points")
        hits = list(client.search(vector=[9, 9, 9, 9], library="points"))
        assert [hit["document_id"] for hit in hits] == ["q", "p"]
        assert warnings == []


@pytest.mark.parametrize("index", ["pq", "hnsw", "lsh", "kdtree"])
def test_an_index_is_built_without_a_damaged_vector_and_its_snapshot_is_used(instance: Instance, index: str) -> None:
    vectors = np.random.default_rng(5).standard_normal((1_500, 8)).astype(np.float32)
    documents = [{"id": f"{n}", "vector": vector.tobytes()} for n, vector in enumerate(vectors)]
    daemon = instance.start()
    with instance.connect() as client:
        client.request("library.create", library="many", embedder="none", index=index, metric="l2")
        client.ingest(documents, "many")
        client.request("shutdown")
    assert daemon.wait(60) == 0
    for path in (instance.settings.data / "indexes").glob("*"):
        path.unlink()
    held = instance.settings.store.read_bytes()
    bad = next(n for n in range(700, 1_499) if held.count(vectors[n].tobytes()) == 1)  # not across two pages
    flip(instance, vectors[bad].tobytes())
    daemon = instance.start()
    with instance.connect() as client:
        client.request("library.rebuild", library="many")
        found = list(client.search(vector=vectors[bad].tolist(), library="many", k=2_000, exact=True))
        assert {hit["document_id"] for hit in found} == {str(n) for n in range(1_500)} - {str(bad)}
        client.request("shutdown")
    assert daemon.wait(60) == 0
    instance.start()
    with instance.connect() as client:
        assert next(client.search(vector=vectors[bad + 1].tolist(), library="many", k=1))["document_id"] == str(bad + 1)
        assert client.delete([str(bad)], "many")["deleted"] == 1
        assert client.count("many")["documents"] == 1_499
        assert len(list(client.search(vector=vectors[7].tolist(), library="many", k=2_000, exact=True))) == 1_499
    assert not list((instance.settings.data / "indexes").glob("*.damaged"))


def test_an_update_of_a_document_with_a_damaged_vector_is_written(instance: Instance) -> None:
    """Whether it changes anything is not asked of the damaged one."""
    db = apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
    vector = db.execute("SELECT vector FROM chunks WHERE text = 'nothing happens to this'").get
    db.close()
    flip(instance, vector)
    instance.start()
    with instance.connect() as client:
        document = {key: value for key, value in DOCUMENTS[0].items() if key != "text"}
        told = client.ingest([{**document, "texts": ["nothing happens to this"], "vectors": [vector]}])
        assert told["updated"] == 1
        (problem,) = verify(client)  # the log still refers to it
        assert "a former version of document 'good' has another vector" in problem


def test_a_flipped_bit_that_changes_a_type_changes_no_text_and_no_vector(instance: Instance) -> None:
    """A row's header says of each column how long it is, and in the lowest bit whether it is a text or a blob."""
    held = bytearray(instance.settings.store.read_bytes())
    text = str(DOCUMENTS[0]["text"]).encode()
    for place, kind in ((held.index(VECTOR) - 2, 12 + 2 * len(VECTOR)), (held.index(text) - 4, 13 + 2 * len(text))):
        assert held[place] == kind
        held[place] ^= 1
    instance.settings.store.write_bytes(held)
    instance.start()
    with instance.connect() as client:
        (point,) = client.get(["p"], "points", vectors=True)
        assert point is not None
        assert point["chunks"][0]["vector"] == VECTOR
        assert next(client.search(vector=[0.25, -1.5, 3.0, 0.125], library="points", k=1))["document_id"] == "p"
        assert client.ingest(DOCUMENTS[:1])["unchanged"] == 1
        hit = next(client.search("nothing happens", mode="text"))
        assert (hit["document_id"], hit["text"]) == ("good", DOCUMENTS[0]["text"])
        assert client.ingest([{**DOCUMENTS[0], "metadata": {}}])["updated"] == 1
        for event in client.watch("beginning", follow=False, payload=True, types=["document.*"]):
            assert "omitted" not in event["data"]
        assert verify(client)


def test_a_watch_goes_on_past_a_damaged_document(instance: Instance) -> None:
    flip(instance, b"zebra part")
    instance.start()
    with instance.connect() as client:
        events = list(client.watch("beginning", follow=False, libraries=["default"], payload=True))
        documents = {event["data"]["id"]: event["data"] for event in events if event["type"] == "document.added"}
        assert documents["good"]["document"]["metadata"] == {"colour": "green"}
        assert documents["bad"]["omitted"] == ["document"]
        assert "document" not in documents["bad"]


def test_rows_of_an_earlier_schema_get_their_checksums_from_a_verify() -> None:
    old = gzip.decompress((Path(__file__).with_name("data") / "schema-5.db.gz").read_bytes())
    with Instance() as instance:
        instance.settings.data.mkdir(mode=0o700)
        instance.settings.store.write_bytes(old)
        instance.start()
        with instance.connect() as client:
            assert verify(client) == []
            assert verify(client) == []
        db = apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows: list[Any] = db.execute("SELECT CAST(text AS BLOB), vector, sums FROM chunks").fetchall()
            assert len(rows) > 5
            for text, vector, sums in rows:
                assert sums == checksums.of_chunk(text, vector)
            titled: list[Any] = db.execute("SELECT id, title, metadata, chunks, sum FROM documents").fetchall()
            for document_id, title, metadata, chunks, found in titled:
                assert found == checksums.of_document(document_id, title, metadata, chunks)
        finally:
            db.close()


def test_a_verify_keeps_to_the_rate_that_it_is_given(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        client.request("library.create", library="wide", embedder="none", dimension=8_192, index="flat")
        client.ingest([{"id": f"d{n}", "vector": b"\0\0\x80?" * 8_192} for n in range(40)], "wide")  # 1.3 MB
        began_s = time.monotonic()
        job_id = client.submit_job("verify", {"mb_per_s": 0.5})["job_id"]
        (job,) = client.wait_for_jobs([job_id], timeout_s=60)
        assert job["state"] == "completed"
        assert time.monotonic() - began_s > 2


@pytest.mark.parametrize("bit", range(0, 128, 7))
def test_every_flipped_bit_changes_a_checksum(bit: int) -> None:
    changed = bytearray(VECTOR)
    changed[bit // 8] ^= 1 << bit % 8
    sums = checksums.of_chunks(["a text", None], np.frombuffer(2 * VECTOR, "<f4").reshape(2, 4))
    assert sums == checksums.of_chunk(b"a text", VECTOR) + checksums.of_chunk(None, VECTOR)
    assert checksums.first_bad_vector(2 * VECTOR, sums) is None
    assert checksums.first_bad_vector(VECTOR + bytes(changed), sums) == 1
    assert checksums.bad_vector(bytes(changed), sums[:8])
    assert checksums.first_bad_text(["a text", None], sums) is None
    assert checksums.first_bad_text(["a text", ""], sums) == 1


@pytest.mark.parametrize("damaged", [b'{"colour":"yellow#}', b'{"colour":"yello\xff"}'], ids=["no JSON", "no UTF-8"])
def test_a_document_whose_metadata_cannot_be_decoded_matches_no_filter_and_the_others_do(
    instance: Instance, damaged: bytes
) -> None:
    held = instance.settings.store.read_bytes()
    assert held.count(b'{"colour":"yellow"}') == 1
    instance.settings.store.write_bytes(held.replace(b'{"colour":"yellow"}', damaged))
    instance.start()
    with instance.connect() as client:
        warnings: list[str] = []
        client.on_warnings = warnings.extend
        for where in ("colour = green", "colour != yellow"):
            for mode in ("text", "vector"):
                found = client.search("nothing happens first part", mode=mode, where=where)
                assert [hit["document_id"] for hit in found] == ["good"]
                assert len(warnings) == 1
                assert "'bad' of library 'default' is damaged" in warnings[0]
                warnings.clear()
            assert [document["id"] for document in client.documents(where=where)] == ["good"]
            assert client.count(where=where)["documents"] == 1
            assert len(warnings) == 2
            assert all("'bad'" in warning and "matches no filter" in warning for warning in warnings)
            warnings.clear()
        job = client.submit_job("delete", {"where": ["colour = blue"]}, library="default")
        assert client.wait_for_jobs([job["job_id"]])[0]["state"] == "completed"
        (line,) = client.request("jobs.logs", job_id=job["job_id"])["lines"]
        assert "'bad'" in line["text"]
        assert "matches no filter" in line["text"]
        assert client.delete(where="colour != red")["deleted"] == 1
        assert len(warnings) == 1
        assert "'bad'" in warnings[0]
        warnings.clear()
        client.delete(["bad"])
        client.ingest(DOCUMENTS)
        assert client.count(where="colour = yellow")["documents"] == 1
        assert warnings == []


@pytest.mark.parametrize("damaged", [b'{"colour":"yellow#}', b'{"colour":"yello\xff"}'], ids=["no JSON", "no UTF-8"])
@pytest.mark.parametrize("snapshot", [False, True])
def test_a_watch_goes_past_a_document_whose_metadata_cannot_be_decoded(
    instance: Instance, damaged: bytes, snapshot: bool
) -> None:
    held = instance.settings.store.read_bytes()
    assert held.count(b'{"colour":"yellow"}') == 1
    instance.settings.store.write_bytes(held.replace(b'{"colour":"yellow"}', damaged))
    instance.start()
    with instance.connect() as client:

        def documents(**options: Any) -> list[tuple[str, Any]]:
            watched = client.watch(
                "now" if snapshot else "beginning", libraries=["default"], follow=False, snapshot=snapshot, **options
            )
            return [
                (event["data"]["id"], event["data"].get("omitted")) for event in watched if ".document" in event["type"]
                or event["type"].startswith("document.")
            ]  # fmt: skip

        assert documents(where="colour != blue") == [("good", None)]
        assert documents() == [("good", None), ("bad", None)]
        assert documents(payload=True) == [("good", None), ("bad", ["document"])]
        assert documents(where="colour != blue", payload=True) == [("good", None)]
        client.delete(["bad"])
        client.ingest([{"id": "late", "text": "after the damage", "metadata": {"colour": "red"}}])
        assert documents(where="colour != blue") == [("good", None), ("late", None)]
