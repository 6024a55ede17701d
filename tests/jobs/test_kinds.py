"""What each kind of job does, through a real daemon."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support import history
from tests.support.instance import Instance, ndjson
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError


def done(client: Client, kind: str, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Submits a job and waits for it; the job."""
    (job,) = client.wait_for_jobs([client.submit_job(kind, params, **fields)["job_id"]])
    return job


def completed(client: Client, kind: str, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    job = done(client, kind, params, **fields)
    assert job["state"] == "completed", job["error"]
    return dict(job["result"])


def made(client: Client, name: str, count: int = 0, **fields: Any) -> str:
    """A library with so many documents of three words."""
    client.request("library.create", library=name, **fields)
    documents = [{"id": f"d{n:05}", "text": f"text number {n}", "metadata": {"n": n}} for n in range(count)]
    for start in range(0, count, 2_000):
        client.ingest(documents[start : start + 2_000], name)
    return name


def log_of(client: Client, job_id: int) -> list[str]:
    return [line["text"] for line in client.request("jobs.logs", job_id=job_id)["lines"]]


# --- ingest ---------------------------------------------------------------------------------------------------------


def test_an_ingest_job_writes_what_an_ingest_writes(client: Client, tmp_path: Path) -> None:
    documents: list[dict[str, Any]] = [
        {"id": "a", "text": "one"},
        {"id": "b", "title": "B", "texts": ["two", "three"], "metadata": {"x": [1, {"y": None}]}},
        {"id": "v", "vector": [0.5] * 256},
        {"text": "without an id"},
    ]
    for name in ("by-hand", "by-job"):
        made(client, name)
    client.ingest(documents, "by-hand")
    path = tmp_path / "documents.ndjson"
    path.write_text(ndjson(documents))
    assert completed(client, "ingest", {"files": [str(path)]}, library="by-job")["added"] == 4
    ids = [each["id"] for each in client.items("list", "documents", library="by-hand")]
    assert client.get(ids, "by-job", vectors=True) == client.get(ids, "by-hand", vectors=True)
    assert client.ingest(documents, "by-job")["unchanged"] == 4  # not a byte of their digests differs


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_read_one_after_the_other_also_gzipped(client: Client, tmp_path: Path, packed: bool) -> None:
    library = made(client, f"files-{packed}")
    paths = []
    for part in range(3):
        text = ndjson([{"id": f"{part}-{n}", "text": f"text {n}"} for n in range(1_500)]).encode()
        paths.append(tmp_path / f"{part}.ndjson")
        paths[-1].write_bytes(gzip.compress(text) if packed else text)
    result = completed(client, "ingest", {"files": [str(path) for path in paths]}, library=library)
    assert (result["added"], result["failed"]) == (4_500, 0)
    assert client.count(library)["documents"] == 4_500


def test_refused_lines_are_in_the_log_with_file_line_and_reason_and_cost_no_others(
    client: Client, tmp_path: Path
) -> None:
    library = made(client, "refusing")
    path = tmp_path / "mixed.ndjson"
    good = [json.dumps({"id": f"g{n}", "text": "good"}) for n in range(600)]
    lines = [*good[:500], "not json", "", '{"id": "e", "text": ""}', *good[500:], '{"id": "w", "txt": "x"}', "[]"]
    path.write_text("\n".join(lines))
    job = done(client, "ingest", {"files": [str(path)], "names": ["mixed"]}, library=library)
    assert (job["state"], job["result"]["added"], job["result"]["failed"]) == ("completed", 600, 4)
    log = log_of(client, job["job_id"])
    assert [line.split(":")[:2] for line in log] == [["mixed", n] for n in ("501", "503", "604", "605")]
    assert "did you mean 'text'?" in log[2]


def test_a_strict_job_ends_at_the_first_line_that_is_refused(client: Client, tmp_path: Path) -> None:
    library = made(client, "strict")
    path = tmp_path / "strict.ndjson"
    path.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\nno\n{"id": "c", "text": "three"}\n')
    job = done(client, "ingest", {"files": [str(path)], "strict": True}, library=library)
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "invalid_document", 1)
    assert f"{path}:3:" in job["error"]["message"]
    assert client.count(library)["documents"] == 2
    path.write_text(path.read_text().replace("no\n", '{"id": "n"}\n').replace('{"id": "n"}', '{"id":"n","text":"x"}'))
    client.retry_jobs([job["job_id"]])
    (job,) = client.wait_for_jobs([job["job_id"]])
    assert (job["state"], job["result"]["added"]) == ("completed", 4)


@pytest.mark.parametrize("name", ["vec.db", "vec.db-wal", "link"])
def test_an_ingest_job_never_opens_the_store_that_it_writes(
    client: Client, instance: Instance, tmp_path: Path, name: str
) -> None:
    """To close it would end SQLite's locks on it."""
    link = tmp_path / "link"
    link.symlink_to(instance.settings.store)
    path = link if name == "link" else instance.settings.data / name
    with pytest.raises(VecError, match="it is the daemon's store") as refused:
        client.submit_job("ingest", {"files": [str(path)]})
    assert (refused.value.code, refused.value.details["field"]) == ("invalid_request", "files")


def test_an_ingest_job_makes_default_on_its_first_write(tmp_path: Path) -> None:
    path = tmp_path / "documents.ndjson"
    path.write_text(ndjson([{"id": f"d{n}", "text": f"text {n}"} for n in range(2_000)]))
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as client:
            assert completed(client, "ingest", {"files": [str(path)]})["added"] == 2_000
            history.check(client)


def test_the_first_vector_of_an_ingest_job_sets_the_dimension(client: Client, tmp_path: Path) -> None:
    library = made(client, "undimensioned", embedder="none")
    path = tmp_path / "vectors.ndjson"
    path.write_text(ndjson([{"id": f"d{n}", "vector": [n, 1.0, 2.0][: 3 - (n == 1_700)]} for n in range(2_000)]))
    result = completed(client, "ingest", {"files": [str(path)]}, library=library)
    assert (result["added"], result["failed"]) == (1_999, 1)
    assert client.request("library.show", library=library)["dimension"] == 3


def test_of_a_file_that_is_cut_short_what_came_before_is_written(client: Client, tmp_path: Path) -> None:
    library = made(client, "cut-short")
    path = tmp_path / "short.gz"
    path.write_bytes(
        gzip.compress(ndjson([{"id": f"d{n}", "text": f"text {n}"} for n in range(3_000)]).encode())[:5_000]
    )
    job = done(client, "ingest", {"files": [str(path)]}, library=library)
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_document")
    assert 0 < client.count(library)["documents"] < 3_000


def test_a_file_that_shrank_or_went_fails_the_job_and_says_so(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "going.ndjson"
    path.write_text('{"id": "a", "text": "one"}\n')
    client.request("jobs.pause", kinds=["ingest"])
    job_id = client.submit_job("ingest", {"files": [str(path)]}, library=made(client, "going"))["job_id"]
    path.unlink()
    client.request("jobs.resume")
    (job,) = client.wait_for_jobs([job_id])
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_request")
    assert str(path) in job["error"]["message"]


# --- the others -----------------------------------------------------------------------------------------------------


def test_a_delete_job_deletes_what_a_filter_lets_through(client: Client) -> None:
    library = made(client, "thinned", 5_000)
    assert completed(client, "delete", {"where": ["n >= 1000", "n < 4500"]}, library=library) == {"deleted": 3_500}
    assert client.count(library)["documents"] == 1_500
    assert client.count(library, where="n >= 1000 and n < 4500")["documents"] == 0
    with pytest.raises(VecError) as refusal:
        client.submit_job("delete", {"where": ["n >="]}, library=library)
    assert refusal.value.code == "invalid_filter"


@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.gz"])
def test_what_is_exported_can_be_ingested_again(client: Client, tmp_path: Path, name: str) -> None:
    source, target = made(client, f"from-{name}", 1_000), made(client, f"to-{name}")
    client.ingest([{"id": "two", "title": "T", "texts": ["a", "b"]}, {"id": "v", "vector": [0.25] * 256}], source)
    path = tmp_path / name
    result = completed(client, "export", {"path": str(path)}, library=source)
    seq = result.pop("seq")
    assert result == {"path": str(path), "documents": 1_002, "bytes": path.stat().st_size}
    assert 0 < seq < client.status()["seq"]  # the job's own events came behind it
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert completed(client, "ingest", {"files": [str(path)]}, library=target)["added"] == 1_002
    ids = [each["id"] for each in client.items("list", "documents", library=source)]
    assert client.get(ids, target, vectors=True) == client.get(ids, source, vectors=True)
    assert [each.name for each in tmp_path.iterdir()] == [name]  # nothing unfinished is left


def test_a_cancelled_export_leaves_nothing_and_can_be_retried(client: Client, tmp_path: Path) -> None:
    library = made(client, "half", 20_000)
    path = tmp_path / "half.ndjson"
    job_id = client.submit_job("export", {"path": str(path), "vectors": True}, library=library)["job_id"]
    until(lambda: client.job(job_id)["progress"], "a page")
    client.cancel_jobs([job_id])
    assert client.job(job_id)["state"] == "cancelled"
    assert list(tmp_path.iterdir()) == []
    client.retry_jobs([job_id])
    (job,) = client.wait_for_jobs([job_id])
    assert job["result"]["documents"] == len(path.read_text().splitlines()) == 20_000


def test_an_export_takes_filters_and_vectors(client: Client, tmp_path: Path) -> None:
    library = made(client, "partly", 300)
    path = tmp_path / "some.ndjson"
    completed(client, "export", {"path": str(path), "vectors": True, "where": ["n < 10"]}, library=library)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["metadata"]["n"] for line in lines] == list(range(10))
    assert all(len(line["vectors"][0]) == 256 for line in lines)


def test_a_rebuild_job_changes_the_index_while_reads_and_writes_go_on(client: Client) -> None:
    library = made(client, "rebuilt", 3_000)
    list(client.search("text", library=library))
    result = completed(client, "rebuild", {"index": "lsh", "bits": 256}, library=library)
    assert result["vectors"] == 3_000
    shown = client.request("library.show", library=library)
    assert (shown["index"], shown["parameters"]) == ("lsh", {"bits": 256})
    with pytest.raises(VecError) as refusal:
        client.submit_job("rebuild", {"index": "lsh", "m": 8}, library=library)
    assert refusal.value.code == "invalid_request"


def test_a_rebuild_of_a_library_without_vectors_is_done_at_once(client: Client) -> None:
    library = made(client, "empty", embedder="none")
    assert completed(client, "rebuild", {"index": "flat"}, library=library)["vectors"] == 0
    assert client.request("library.show", library=library)["index"] == "flat"


def test_a_snapshot_job_saves_the_indexes_that_are_in_memory(instance: Instance, client: Client) -> None:
    library = made(client, "saved", 9_000, index="hnsw", parameters={"m": 8, "ef_construction": 32})
    list(client.search("text", library=library))

    def structured(rows: int) -> bool:
        (memory,) = (each["memory"] for each in client.status()["libraries"] if each["name"] == library)
        return bool(memory["structure"] == rows) and memory["maintenance"] is None

    until(lambda: structured(9_000), "the graph")
    client.ingest([{"id": f"new{n}", "text": f"new text {n}"} for n in range(50)], library)
    until(lambda: structured(9_050), "the new ones' place in it")
    assert completed(client, "snapshot", library=library)["vectors"] == 9_050
    folder = instance.settings.data / "indexes"
    assert any(index.with_suffix(".text").exists() for index in folder.glob("*.index"))
    assert completed(client, "snapshot", library=library) == {"libraries": 0, "vectors": 0}  # nothing new


def test_a_trim_job_lets_go_of_the_oldest_events_and_verify_still_finds_all_well() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as client:
            made(client, "notes", 3_000)
            client.delete([f"d{n:05}" for n in range(2_500)], "notes")
            result = completed(client, "trim", {"keep_count": 100})
            assert result["trimmed"] > 8_000
            assert result["rows"] > 5_000
            with pytest.raises(VecError) as gone:
                list(client.watch(f"{client.log}:5", follow=False))
            assert gone.value.code == "compacted"
            assert completed(client, "verify")["documents"] == 500
            assert completed(client, "vacuum") == {"rows": 0, "pages": 0}
            with pytest.raises(VecError) as refusal:
                client.submit_job("trim")
            assert refusal.value.code == "invalid_request"


# --- backup and verify ----------------------------------------------------------------------------------------------


def test_a_backup_is_a_whole_store_of_its_own_to_which_old_cursors_are_foreign(tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    with Instance({"VEC_EMBEDDER": "hash"}) as instance, Instance({"VEC_EMBEDDER": "hash"}) as other:
        instance.start()
        with instance.connect() as client:
            made(client, "notes", 3_000)
            waiting = client.submit_job("noop", delay_s=3_600)["job_id"]
            stop = threading.Event()

            def write() -> None:
                with instance.connect() as writer:
                    number = 0
                    while not stop.is_set():
                        number += 1
                        writer.ingest([{"id": f"later{number}", "text": "written meanwhile"}], "notes")

            writer = threading.Thread(target=write)
            writer.start()
            result = completed(client, "backup", {"path": str(path)})
            stop.set()
            writer.join()
            original = client.log
            assert result["bytes"] == path.stat().st_size
            assert [each.name for each in tmp_path.iterdir()] == ["copy.db"]
        other.settings.data.mkdir(mode=0o700)
        other.settings.store.write_bytes(path.read_bytes())
        daemon = other.start()
        with other.connect() as client:
            assert client.log not in ("", original)
            minted = client.log
            assert len(history.check(client)["notes"]) >= 3_000
            assert client.status()["seq"] == result["seq"]
            assert [job["job_id"] for job in client.jobs(states=["pending", "running"])] == []
            assert waiting not in [job["job_id"] for job in client.jobs()]
            with pytest.raises(VecError) as foreign:
                list(client.watch(f"{original}:1", follow=False))
            assert foreign.value.code == "foreign_cursor"
            assert completed(client, "verify")["problems"] == 0
        daemon.terminate()
        assert daemon.wait(30) == 0
        other.start()
        with other.connect() as client:
            assert client.log == minted


def test_a_backup_into_the_data_folder_or_to_nowhere_is_refused(instance: Instance, client: Client) -> None:
    for path in (str(instance.settings.data / "copy.db"), "/nowhere/at/all.db", "relative.db", str(instance.home)):
        with pytest.raises(VecError) as refusal:
            client.submit_job("backup", {"path": path})
        assert refusal.value.code == "invalid_request"
        assert refusal.value.details["field"] == "path"


def test_verify_finds_a_sound_store_sound_while_it_is_written_to(client: Client) -> None:
    library = made(client, "sound", 2_000)
    list(client.search("text", library=library))
    pending = [
        client.submit("ingest", library=library, documents=[{"id": f"d{n:05}", "text": f"again {n}"}])
        for n in range(500)
    ]
    result = completed(client, "verify")
    assert result["problems"] == 0
    assert result["documents"] >= 2_000
    for each in pending:
        each.result()


DAMAGE = {
    "a chunk is gone": ("DELETE FROM chunks WHERE label = 7", "document"),
    "a vector is short": ("UPDATE chunks SET vector = x'00000000' WHERE label = 7", "document"),
    "a count is wrong": ("UPDATE libraries SET chunks = chunks + 1", "counts"),
    "a document is gone": ("DELETE FROM documents WHERE label = 7", "not there"),
    "an event is gone": ("DELETE FROM events WHERE seq = 40", "seq"),
    "a document came without an event": (
        "UPDATE documents SET removed_seq = NULL WHERE removed_seq IS NOT NULL", "the log tells",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_verify_finds_damage_and_names_it(what: str) -> None:
    sql, told = DAMAGE[what]
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            made(client, "notes", 100)
            client.delete(["d00050"], "notes")
        daemon.terminate()
        assert daemon.wait(30) == 0
        db = apsw.Connection(str(instance.settings.store))
        db.execute(sql)
        if "without an event" in what:
            db.execute("UPDATE libraries SET documents = 100, chunks = 100")
        db.close()
        instance.start()
        with instance.connect() as client:
            job = done(client, "verify")
            assert (job["state"], job["error"]["code"]) == ("failed", "damaged")
            assert any(told in problem for problem in job["error"]["problems"]), job["error"]["problems"]
            assert log_of(client, job["job_id"]) or job["error"]["problems"]
        found = instance.vec("verify", status=1)
        assert "damaged" in found.stderr


def test_verify_finds_full_text_that_is_not_the_stores_and_names_it() -> None:
    """The store is changed behind the daemon's back: full text is only in its memory and in a snapshot."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as client:
            made(client, "notes", 100)
            client.ingest([{"id": "bare", "vector": [1.0] * 256}], "notes")
            assert len(list(client.search("number", library="notes", mode="text", k=200))) == 100
            assert completed(client, "verify")["problems"] == 0
            db = apsw.Connection(str(instance.settings.store))
            db.execute("UPDATE chunks SET text = 'text number 7' WHERE text IS NULL")
            assert db.changes() == 1
            db.close()
            job = done(client, "verify")
            assert (job["state"], job["error"]["code"]) == ("failed", "damaged")
            assert "library notes: its index lacks 1 texts" in job["error"]["problems"]
            db = apsw.Connection(str(instance.settings.store))
            db.execute("UPDATE chunks SET text = NULL WHERE text = 'text number 7'")
            assert db.changes() == 2
            db.close()
            job = done(client, "verify")
            assert "library notes: its index has 1 texts that were deleted" in job["error"]["problems"]
