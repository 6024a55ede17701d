"""A store that is removed or replaced under its daemon, or gone before the next start: never an OK for nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from tests.support import history
from tests.support.instance import Instance
from vecd import limits
from vecd.client import Client
from vecd.errors import DISCONNECTED, VecError
from vecd.settings import Settings
from vecd.store.database import Database


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        yield made


def remove_the_folder(settings: Settings) -> None:
    shutil.rmtree(settings.data)


def remove_the_store(settings: Settings) -> None:
    settings.store.unlink()


def rename_the_folder(settings: Settings) -> None:
    settings.data.rename(settings.data.with_name("moved"))


def replace_the_store(settings: Settings) -> None:
    copy = settings.store.with_name("copy")
    shutil.copy(settings.store, copy)
    copy.replace(settings.store)


def empty_the_store(settings: Settings) -> None:
    settings.store.write_bytes(b"")


def overwrite_the_store_by_a_backup(settings: Settings) -> None:
    """As `cp backup vec.db` does, which keeps the file."""
    backup = settings.store.with_name("backup")
    source, target = apsw.Connection(str(settings.store)), apsw.Connection(str(backup))
    with target.backup("main", source, "main") as copying:
        copying.step()
    target.pragma("journal_mode", "delete")
    for each in (source, target):
        each.close()
    settings.store.write_bytes(backup.read_bytes())


LOSSES = [
    remove_the_folder, remove_the_store, rename_the_folder, replace_the_store, empty_the_store,
    overwrite_the_store_by_a_backup,
]  # fmt: skip


def refused(client: Client, why: str = "vec.db was") -> None:
    """A write is not acknowledged. The daemon may notice the loss at a write of its own first, and stop."""
    with pytest.raises(VecError) as failure:
        client.ingest([{"id": "after", "text": "this has no place to be"}])
    assert failure.value.code in ("storage_failed", *DISCONNECTED)
    if failure.value.code == "storage_failed":
        assert why in failure.value.message
        assert failure.value.hint


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_a_write_to_a_store_that_is_gone_is_never_acknowledged(
    instance: Instance, lose: Callable[[Settings], None]
) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "before", "text": "this was acknowledged"}])
        lose(instance.settings)
        refused(client)
    assert daemon.wait(30) == 74
    assert "storage failed" in instance.log()
    assert "vec.db was" in instance.log()
    assert "vec restore" in instance.log()


@pytest.mark.parametrize(
    ("names", "idle"),
    [
        (["vec.db-wal"], False),
        (["vec.db-wal", "vec.db-shm"], False),
        (["vec.db-shm"], False),
        (["vec.db-wal"], True),
    ],
)
def test_what_only_a_removed_write_ahead_log_held_is_saved(instance: Instance, names: list[str], idle: bool) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        for n in range(30):
            client.ingest([{"id": f"d{n}", "text": f"acknowledged {n}"}])
        for name in names:
            instance.settings.store.with_name(name).unlink()
        if not idle:
            refused(client, "all that it held has been saved")
        assert daemon.wait(limits.STORE_LOOK_S + 30) == 74
    assert "all that it held has been saved" in instance.log()
    instance.start()
    with instance.connect() as client:
        assert history.check(client)["default"].keys() - {"after"} == {f"d{n}" for n in range(30)}
        assert client.wait_for_jobs([client.submit_job("verify")["job_id"]], timeout_s=60)[0]["state"] == "completed"


def test_what_a_removed_write_ahead_log_held_is_saved_at_a_stop_too(instance: Instance) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "a", "text": "acknowledged"}])
        instance.settings.store.with_name("vec.db-wal").unlink()
        client.request("shutdown")
    daemon.wait(30)
    instance.start()
    with instance.connect() as client:
        assert history.check(client)["default"].keys() == {"a"}


@pytest.mark.parametrize(("share", "idle"), [(0.0, False), (0.5, False), (0.5, True)])
def test_a_write_ahead_log_that_is_cut_short_is_noticed(instance: Instance, share: float, idle: bool) -> None:
    daemon = instance.start()
    wal = instance.settings.store.with_name("vec.db-wal")
    with instance.connect() as client:
        for n in range(30):
            client.ingest([{"id": f"d{n}", "text": f"acknowledged {n}"}])
        os.truncate(wal, int(share * wal.stat().st_size))
        if not idle:
            refused(client, "vec.db-wal was truncated")
        assert daemon.wait(limits.STORE_LOOK_S + 30) == 74
    assert "vec.db-wal was truncated" in instance.log()
    instance.start()
    with instance.connect() as client:  # a state that there was once
        kept = history.check(client).get("default", {}).keys()
        assert kept == {f"d{n}" for n in range(len(kept))}


def test_a_write_ahead_log_that_was_cut_short_and_removed_is_not_copied(tmp_path: Path) -> None:
    """A checkpoint would copy the gap into the store."""
    failures: list[VecError] = []
    database = Database(tmp_path / "vec.db", lambda commit: None, failures.append)
    database.open()
    for number in range(5):
        sql = f"INSERT INTO job_pauses VALUES ('{number}')"
        database.submit(lambda tx, sql=sql: tx.db.execute(sql)).result(30)  # type: ignore[misc]
    wal = tmp_path / "vec.db-wal"
    os.truncate(wal, wal.stat().st_size // 2)
    wal.unlink()
    with pytest.raises(VecError) as failure:
        database.submit(lambda tx: tx.db.execute("INSERT INTO job_pauses VALUES ('last')")).result(30)
    assert "removed or replaced" in failure.value.message
    database.close()
    assert len(failures) == 2
    shutil.copy(tmp_path / "vec.db", tmp_path / "copy.db")  # SQLite shares what this process has open of the store
    copy = apsw.Connection(str(tmp_path / "copy.db"))
    assert copy.pragma("integrity_check") == "ok"
    copy.close()


def test_a_checkpoint_by_another_program_is_no_loss(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        for n in range(3):
            client.ingest([{"id": f"d{n}", "text": f"acknowledged {n}"}])
            other = apsw.Connection(str(instance.settings.store))
            other.set_busy_timeout(10_000)
            other.execute("SELECT count(*) FROM log").fetchall()  # opens the log, too
            assert other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)  # the log was emptied
            other.close()
        client.ingest([{"id": "last", "text": "acknowledged"}])
        assert history.check(client)["default"].keys() == {"d0", "d1", "d2", "last"}


def test_a_daemon_that_nobody_writes_to_notices_too(instance: Instance) -> None:
    daemon = instance.start()
    instance.settings.store.unlink()
    assert daemon.wait(limits.STORE_LOOK_S + 30) == 74


def test_a_store_that_is_only_touched_is_not_gone(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        client.ingest([{"id": "a", "text": "one"}])
        os.utime(instance.settings.store)
        client.ingest([{"id": "b", "text": "two"}])
        assert history.check(client)["default"].keys() == {"a", "b"}


def test_checkpoints_of_the_writer_itself_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAL_PAGES", 4)
    failures: list[VecError] = []
    database = Database(tmp_path / "vec.db", lambda commit: None, failures.append)
    database.open()
    modified = {database.path.stat().st_mtime_ns}
    for number in range(20):
        sql = f"INSERT INTO job_pauses VALUES ('{number}')"
        database.submit(lambda tx, sql=sql: tx.db.execute(sql)).result(30)  # type: ignore[misc]
        modified.add(database.path.stat().st_mtime_ns)
    database.close()
    assert len(modified) > 1, "there was no checkpoint"
    assert not failures


@pytest.mark.parametrize(
    ("left", "sign"), [("nothing", "vec.id"), ("empty", "vec.id"), ("nothing", "reserve"), ("empty", "indexes/1.index")]
)
def test_a_store_that_is_gone_is_not_begun_anew(instance: Instance, left: str, sign: str) -> None:
    data = instance.settings.data
    (data / sign).parent.mkdir(parents=True, mode=0o700)
    (data / sign).write_text("what an earlier daemon left")
    if left == "empty":
        instance.settings.store.touch()
    done = instance.vec("status", status=69)
    assert "storage_failed" in done.stderr
    assert ("is empty" if left == "empty" else "is missing") in done.stderr
    assert "vec restore" in done.stderr
    data.rename(data.with_name("data.old"))  # as the message says
    instance.vec("daemon", "start")
    assert instance.objects("count") == [{"library": "default", "documents": 0, "chunks": 0, "seq": 0}]


def test_a_new_store_is_marked_and_starts_again(instance: Instance) -> None:
    for _ in range(2):
        daemon = instance.start()
        with instance.connect() as client:
            log_id = client.request("status")["log"]
            client.request("shutdown")
        assert daemon.wait(30) == 0
        assert (instance.settings.data / "vec.id").read_text() == f"{log_id}\n"


def test_a_store_that_was_killed_while_it_was_made_can_be_made_again(instance: Instance) -> None:
    instance.settings.data.mkdir(mode=0o700)
    instance.settings.store.touch()  # SQLite has made the file and written nothing
    instance.start()
    assert instance.settings.store.stat().st_size > 0
