"""vec restore: checks the backup, deletes nothing, and a crash in the middle costs nothing."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.support import history
from tests.support.instance import ROOT, Instance
from vecd.store.schema import MIGRATIONS


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup with the document `kept`; not to be changed."""
    path = tmp_path_factory.mktemp("backups") / "vec.db"
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.vec("ingest", stdin='{"id": "kept", "text": "what the backup holds"}\n')
        instance.vec("backup", str(path))
    return path


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        yield made


def fill(instance: Instance) -> None:
    """Something that a restore would replace, and a daemon that has stopped."""
    instance.vec("ingest", stdin='{"id": "later", "text": "what came after the backup"}\n')
    instance.vec("daemon", "stop")
    (instance.settings.data / "indexes").mkdir(exist_ok=True)
    (instance.settings.data / "indexes" / "1.text").write_text("a snapshot of the old store")


def documents(instance: Instance) -> set[str]:
    """What a daemon finds, whose log and tables agree. It is stopped again."""
    daemon = instance.start()
    with instance.connect() as client:
        found = set(history.check(client).get("default", {}))
        client.request("shutdown")
    assert daemon.wait(30) == 0
    return found


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_backup_becomes_the_store(instance: Instance, backup: Path, tmp_path: Path, packed: bool) -> None:
    file = backup
    if packed:
        file = tmp_path / "vec.db.gz"
        file.write_bytes(gzip.compress(backup.read_bytes()))
    before = file.read_bytes()
    (told,) = instance.objects("restore", str(file))
    assert (told["documents"], told["libraries"], told["replaced"]) == (1, 1, None)
    assert told["path"] == str(instance.settings.store)
    assert file.read_bytes() == before
    assert sorted(path.name for path in instance.settings.data.iterdir()) == ["vec.db", "vecd.lock"]
    assert instance.settings.store.stat().st_mode & 0o777 == 0o600
    (document,) = instance.objects("get", "kept")
    assert document["chunks"][0]["text"] == "what the backup holds"
    instance.vec("verify")


def test_a_store_that_holds_something_is_replaced_only_by_force_and_kept(instance: Instance, backup: Path) -> None:
    fill(instance)
    refused = instance.vec("restore", str(backup), status=1)
    assert "exists" in refused.stderr
    assert "holds 1 document in 1 library" in refused.stderr
    assert "--force" in refused.stderr
    assert documents(instance) == {"later"}
    (told,) = instance.objects("restore", "--force", str(backup))
    replaced = Path(told["replaced"])
    assert replaced.parent == instance.settings.data
    assert {path.name for path in replaced.iterdir()} >= {"vec.db", "indexes"}
    assert documents(instance) == {"kept"}
    (told,) = instance.objects("restore", "--force", str(replaced / "vec.db"))  # and back
    assert documents(instance) == {"later"}


def test_while_a_daemon_runs_nothing_is_restored(instance: Instance, backup: Path) -> None:
    instance.vec("ingest", stdin='{"id": "later", "text": "what came after the backup"}\n')
    refused = instance.vec("restore", "--force", str(backup), status=75)
    assert "vec daemon stop" in refused.stderr
    assert [each["id"] for each in instance.objects("list")] == ["later"]


def test_an_empty_store_is_replaced_without_force(instance: Instance, backup: Path) -> None:
    instance.vec("daemon", "start")
    instance.vec("daemon", "stop")
    instance.vec("restore", str(backup))
    assert documents(instance) == {"kept"}


@pytest.mark.parametrize("left", [b"", None], ids=["empty", "missing"])
def test_a_store_that_is_lost_is_restored_without_force(instance: Instance, backup: Path, left: bytes | None) -> None:
    fill(instance)
    instance.settings.store.unlink()
    if left is not None:
        instance.settings.store.write_bytes(left)
    (told,) = instance.objects("restore", str(backup))
    assert (Path(told["replaced"]) / "indexes" / "1.text").read_text() == "a snapshot of the old store"
    assert documents(instance) == {"kept"}


def test_a_write_ahead_log_of_the_old_store_is_not_applied_to_the_new_one(instance: Instance, backup: Path) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        client.ingest([{"id": f"later{n}", "text": "what came after the backup"} for n in range(50)])
    daemon.kill()
    daemon.wait()
    assert instance.settings.store.with_name("vec.db-wal").stat().st_size > 0
    (told,) = instance.objects("restore", "--force", str(backup))
    assert documents(instance) == {"kept"}
    instance.objects("restore", "--force", str(Path(told["replaced"]) / "vec.db"))
    assert documents(instance) == {f"later{n}" for n in range(50)}  # the log went into the old store first


def test_what_is_no_backup_is_refused_and_changes_nothing(instance: Instance, backup: Path, tmp_path: Path) -> None:
    fill(instance)
    bad = tmp_path / "bad"

    def refused(status: int, *words: str, file: Path = bad) -> None:
        told = instance.vec("restore", "--force", str(file), status=status).stderr
        for word in words:
            assert word in told
        assert "Traceback" not in told

    refused(4, "not_found", file=tmp_path / "nothing")
    refused(2, "not a regular file", file=tmp_path)
    refused(2, "is the store itself", file=instance.settings.store)
    bad.write_text("this is not SQLite")
    refused(2, "not a backup")
    foreign = apsw.Connection(str(tmp_path / "foreign"))
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    refused(2, "not a backup of vec", file=tmp_path / "foreign")
    shutil.copy(backup, bad)
    newer = apsw.Connection(str(bad))
    newer.pragma("user_version", len(MIGRATIONS) + 1)
    newer.close()
    refused(2, "newer version")
    whole = backup.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    refused(1, "damaged")
    bad.write_bytes(gzip.compress(whole)[:-2_000])
    refused(1, "damaged")
    middle = bytearray(whole)
    middle[8_192 : 3 * 8_192] = os.urandom(2 * 8_192)
    bad.write_bytes(middle)
    refused(1, "damaged")
    bad.write_bytes(whole)
    bad.with_name("bad-wal").write_bytes(b"frames that are not in it yet")
    refused(2, "bad-wal")
    assert sorted(path.name for path in instance.settings.data.iterdir()) == sorted(
        ["indexes", "reserve", "vec.db", "vec.id", "vecd.lock"]
    )
    assert documents(instance) == {"later"}


def test_a_restore_that_is_killed_anywhere_leaves_a_store_and_can_be_repeated(instance: Instance, backup: Path) -> None:
    fill(instance)
    command = [sys.executable, "-m", "tests.cli.killed_restore", str(backup), str(instance.settings.store)]
    done = subprocess.run(command, env=instance.environment, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    assert told["kills"] > 8
    assert (told["found"], told["now"]) == (["new", "old"], True)
    assert documents(instance) == {"kept"}


def test_a_lock_that_cannot_be_opened_is_an_error_and_a_restore_leaves_a_lock_of_its_users_alone(
    instance: Instance, backup: Path
) -> None:
    lock = instance.settings.lock
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock.mkdir()
    refused = instance.vec("restore", str(backup), status=None)
    assert refused.returncode != 0
    assert "cannot open the lock" in refused.stderr
    assert "Traceback" not in refused.stderr
    lock.rmdir()
    instance.vec("restore", str(backup))
    assert lock.stat().st_mode & 0o777 == 0o600
