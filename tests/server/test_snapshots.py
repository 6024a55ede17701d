"""Snapshots: after a restart a graph is there at once; one that is damaged costs time, and nothing else."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.vectors import Document, create, drawn, ids, memory, put, rows, structured
from tests.support.waiting import until
from vecd.client import Client

_COUNT = 8_500
_VECTORS = drawn(_COUNT + 1_000, 16)
_KILL = signal.SIGKILL
_QUICK = {"m": 8, "ef_construction": 32}  # a graph that is soon built


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an instance that was stopped, with a snapshot of the library `docs`; not to be changed."""
    kept = tmp_path_factory.mktemp("saved")
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            create(client, "docs", dimension=16, index="hnsw", parameters=_QUICK)
            put(client, "docs", worded(rows(_VECTORS[:_COUNT])))
            structured(client, "docs")
        stop(daemon)
        assert names(instance.settings.data / "indexes") == ["1.index", "1.text"]
        shutil.copytree(instance.settings.data, kept / "data")
    return kept / "data"


@pytest.fixture
def instance(saved: Path) -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        shutil.copytree(saved, made.settings.data, dirs_exist_ok=True)
        yield made


def stop(daemon: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    daemon.send_signal(how)
    assert daemon.wait(30) == (0 if how == signal.SIGTERM else -how)


def snapshot(instance: Instance) -> Path:
    return instance.settings.data / "indexes" / "1.index"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def worded(documents: list[Document]) -> list[Document]:
    """Each document with a word of its own, and one that all have."""
    return [{**each, "text": f"zebra number{each['id']}"} for each in documents]


def reasons(client: Client) -> list[str]:
    watched = client.watch("beginning", follow=False, types=["index.rebuilt"])
    return [event["data"]["reason"] for event in watched]


def right(client: Client, there: int = _COUNT) -> None:
    """Every vector is found, by itself and among all."""
    for row in range(0, there, there // 8):
        assert ids(client.search(vector=_VECTORS[row], k=1, exact=True, library="docs")) == [str(row)]
        assert len(list(client.search(vector=_VECTORS[row], k=100, library="docs"))) == 100
        assert ids(client.search(f"number{row}", mode="text", library="docs")) == [str(row)]
    for query in ({"vector": _VECTORS[0]}, {"query": "zebra", "mode": "text"}):
        found = ids(client.search(**query, k=100_000, library="docs"))
        assert sorted(found, key=int) == [str(row) for row in range(there)]


def test_after_a_clean_stop_the_graph_is_there_with_the_first_search(instance: Instance) -> None:
    assert snapshot(instance).stat().st_mode & 0o777 == 0o600
    assert snapshot(instance).parent.stat().st_mode & 0o777 == 0o700
    instance.start()
    with instance.connect() as client:
        assert memory(client, "docs") == {"state": "unloaded"}
        assert ids(client.search(vector=_VECTORS[5], k=1, library="docs")) == ["5"]
        said = memory(client, "docs")
        assert (said["state"], said["structure"], said["tail"], said["maintenance"]) == ("ready", _COUNT, 0, None)
        assert "damage" not in said
        assert said["text"] == {"state": "unloaded"}, "nobody has asked for words"
        assert client.request("library.show", library="docs")["recall"]["probe"]["stored"]["mean"] >= 0.9
        right(client)
        text = memory(client, "docs")["text"]
        assert (text["state"], text["chunks"], text["dead"]) == ("ready", _COUNT, 0)
        assert reasons(client) == ["growth"]  # it was not built again
    assert "analysed again" not in instance.log()


def test_what_happened_since_the_snapshot_is_there_after_a_kill(instance: Instance) -> None:
    daemon = instance.start()
    before = snapshot(instance).stat().st_mtime_ns
    with instance.connect() as client:
        list(client.search(vector=_VECTORS[5], library="docs"))
        client.delete(library="docs", where=["n < 100"])
        put(client, "docs", worded(rows(_VECTORS)[_COUNT:]))
        changed = {"id": "200", "text": "horse", "vector": _VECTORS[5] + 50, "metadata": {"n": 200}}
        put(client, "docs", [changed])
    stop(daemon, _KILL)
    assert snapshot(instance).stat().st_mtime_ns == before
    instance.start()
    with instance.connect() as client:
        assert ids(client.search(vector=_VECTORS[5] + 50, k=1, library="docs")) == ["200"]
        said = memory(client, "docs")
        assert (said["dead"], said["structure"] >= _COUNT - 101) == (101, True)
        assert structured(client, "docs")["vectors"] == len(_VECTORS) - 100
        found = ids(client.search(vector=_VECTORS[0], k=100_000, library="docs"))
        assert sorted(found, key=int) == [str(row) for row in range(100, len(_VECTORS))]
        for row in (*range(101, 200, 10), *range(_COUNT, len(_VECTORS), 100)):
            assert ids(client.search(vector=_VECTORS[row], k=1, library="docs")) == [str(row)]
            assert ids(client.search(f"number{row}", mode="text", library="docs")) == [str(row)]
        assert ids(client.search("horse", mode="text", library="docs")) == ["200"]
        assert ids(client.search("number200 number5", mode="text", library="docs")) == []
        assert len(list(client.search("zebra", mode="text", k=100_000, library="docs"))) == len(_VECTORS) - 101
        history.check(client)


def flip(place: float) -> Callable[[Path], None]:
    """A bit of the file turns over, so far into it."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 4
        path.write_bytes(data)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


def fill(path: Path) -> None:
    path.write_bytes(b"\xff" * 5_000)


@pytest.mark.parametrize(
    "damage",
    [flip(0.00003), flip(0.3), flip(0.9), cut(0.5), fill],
    ids=["header", "vectors", "links", "half of it", "noise"],
)
def test_a_damaged_snapshot_is_set_aside_told_of_and_made_anew(
    instance: Instance, damage: Callable[[Path], None]
) -> None:
    damage(snapshot(instance))
    spoilt = snapshot(instance).read_bytes()
    aside = snapshot(instance).with_name("1.index.damaged")
    instance.start()
    with instance.connect() as client:
        assert ids(client.search(vector=_VECTORS[5], k=1, library="docs")) == ["5"]
        said = memory(client, "docs")
        shown = client.request("library.show", library="docs")
        assert said["state"] == "ready"
        for told in (said["damage"], shown["memory"]["damage"]):
            assert str(aside) in told
            assert "the snapshot" in told
        assert aside.read_bytes() == spoilt
        right(client)
        until(lambda: "damaged" in reasons(client), "the rebuild")
        said = structured(client, "docs")
        assert "damage" not in said
        assert said["structure"] == _COUNT
        right(client)
        assert reasons(client) == ["growth", "damaged"]
    assert "snapshot unusable" in instance.log()
    assert "level=warning" in instance.log()
    assert "Traceback" not in instance.log()
    assert snapshot(instance).stat().st_size > 0  # saved anew


@pytest.mark.parametrize(
    "damage", [flip(0.00003), flip(0.5), cut(0.5), fill], ids=["header", "postings", "half of it", "noise"]
)
def test_a_damaged_snapshot_of_the_text_is_set_aside_and_made_anew(
    instance: Instance, damage: Callable[[Path], None]
) -> None:
    text = snapshot(instance).with_name("1.text")
    damage(text)
    spoilt = text.read_bytes()
    daemon = instance.start()
    with instance.connect() as client:
        right(client)
        assert reasons(client) == ["growth"], "the graph is as it was"
        client.wait_for_jobs([client.submit_job("snapshot", library="docs")["job_id"]])
    assert text.with_name("1.text.damaged").read_bytes() == spoilt
    assert "snapshot of text unusable" in instance.log()
    stop(daemon)
    assert text.stat().st_size > 0  # saved anew
    instance.start()
    with instance.connect() as client:
        right(client)
    assert instance.log().count("snapshot of text unusable") == 1


def test_a_graph_whose_checksums_are_right_and_whose_links_are_not_is_not_used(instance: Instance) -> None:
    """Nothing in a file may lead native code out of its memory, whoever wrote it."""
    from vecd.index import snapshot_file as format_

    about, arrays = format_.load(snapshot(instance))
    arrays["neighbors"][100] = 2**31 - 1
    format_.save(snapshot(instance), about, arrays)
    daemon = instance.start()
    with instance.connect() as client:
        assert ids(client.search(vector=_VECTORS[5], k=1, library="docs")) == ["5"]
        until(lambda: "damaged" in reasons(client), "the rebuild")
    assert daemon.poll() is None


def test_another_librarys_snapshot_is_not_used(instance: Instance) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        create(client, "other", dimension=16, index="hnsw", parameters=_QUICK)
        put(client, "other", rows(_VECTORS[-8_300:]))
        structured(client, "other")
    stop(daemon)
    other = snapshot(instance).with_name("2.index")
    other.replace(snapshot(instance))
    instance.start()
    with instance.connect() as client:
        right(client)
        until(lambda: "damaged" in reasons(client), "the rebuild")


def test_a_snapshot_goes_with_its_library_and_so_does_what_was_left_of_others(instance: Instance) -> None:
    folder = snapshot(instance).parent
    for name in ("1.index.new", "1.text.new", "7.index", "7.index.damaged", "7.text", "7.text.damaged"):
        (folder / name).write_bytes(b"left over")
    daemon = instance.start()
    assert names(folder) == ["1.index", "1.text"]
    with instance.connect() as client:
        list(client.search(vector=_VECTORS[5], library="docs"))
        client.request("library.delete", library="docs")
        assert list(folder.iterdir()) == []
        create(client, "docs", dimension=16)
        put(client, "docs", rows(_VECTORS[:10]))
        assert len(list(client.search(vector=_VECTORS[0], library="docs"))) == 10
    stop(daemon)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, _KILL])
def test_the_snapshot_of_what_the_index_was_before_is_not_used(instance: Instance, how: int) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        client.request("library.rebuild", library="docs", parameters={"m": 6})
    stop(daemon, how)
    instance.start()
    with instance.connect() as client:
        right(client)
        said = structured(client, "docs")
        assert "damage" not in said
        assert client.request("library.show", library="docs")["parameters"]["m"] == 6
        if how == signal.SIGTERM:
            assert reasons(client)[-1] == "requested"  # it was saved at the stop


def test_a_snapshot_that_cannot_be_written_is_only_logged(instance: Instance) -> None:
    shutil.rmtree(snapshot(instance).parent)
    snapshot(instance).parent.write_text("in the way")
    daemon = instance.start()
    with instance.connect() as client:
        right(client)
        until(lambda: memory(client, "docs")["structure"], "the build")
        right(client)
        until(lambda: memory(client, "docs")["maintenance"] is None, "its end")
    stop(daemon)
    assert "snapshot not saved" in instance.log()
    instance.start()
    with instance.connect() as client:
        right(client)


def test_what_has_mostly_been_deleted_is_not_built_anew_at_every_start(instance: Instance) -> None:
    daemon = instance.start()
    built = 0
    with instance.connect() as client:
        list(client.search(vector=_VECTORS[5], library="docs"))
        client.delete(library="docs", where=["n >= 3000"])
        until(lambda: "compaction" in reasons(client), "the compaction")
        until(lambda: memory(client, "docs")["maintenance"] is None, "its end")
        built = len(reasons(client))
    stop(daemon)
    for _ in range(2):
        daemon = instance.start()
        with instance.connect() as client:
            right(client, 3_000)
            until(lambda: memory(client, "docs")["maintenance"] is None, "the end of it")
            assert len(reasons(client)) == built
        stop(daemon)


def test_kinds_that_are_made_as_fast_as_they_are_read_leave_no_file(instance: Instance) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        client.request("library.rebuild", library="docs", index="kdtree")
    stop(daemon)
    assert names(snapshot(instance).parent) == ["1.text"]
    instance.start()
    with instance.connect() as client:
        right(client)
        assert client.request("library.show", library="docs")["index"] == "kdtree"


@pytest.mark.parametrize("written", [0, 12], ids=["at once", "after as many writes"])
def test_a_snapshot_of_the_text_is_not_used_with_a_store_that_was_put_back(tmp_path: Path, written: int) -> None:
    """The file of an earlier day is copied into its place, and the snapshot is of later: of other texts with the same
    labels."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:

        def run(word: str, count: int) -> None:
            daemon = instance.start()
            with instance.connect() as client:
                client.ingest([{"id": f"{word}{n}", "text": f"{word} number {n}"} for n in range(count)])
                assert len(list(client.search(word, mode="text", k=100))) == count
                client.wait_for_jobs([client.submit_job("snapshot", library="default")["job_id"]])
            stop(daemon)

        run("first", 20)
        shutil.copy(instance.settings.store, tmp_path / "older")
        run("later", 10)
        text = instance.settings.data / "indexes" / "1.text"
        assert text.exists()
        shutil.copy(tmp_path / "older", instance.settings.store)
        instance.start()
        with instance.connect() as client:
            if written:
                client.ingest([{"id": f"other{n}", "text": f"other number {n}"} for n in range(written)])
            found = {word: len(list(client.search(word, mode="text", k=100))) for word in ("first", "later", "other")}
            assert found == {"first": 20, "later": 0, "other": written}
            assert (
                "another state of the store"
                in client.request("library.show", library="default")["memory"]["text"]["damage"]
            )
        assert text.with_name("1.text.damaged").exists()
