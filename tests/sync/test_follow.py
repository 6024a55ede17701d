"""Syncs that follow: `vec sync --follow`, and those that the daemon runs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from tests.support.instance import Instance
from tests.support.running import alive, line_of, running
from tests.support.waiting import until
from vecd.connectors.stopping import Stopping
from vecd.sync import follow, watching
from vecd.sync.follow import Follower
from vecd.sync.session import Session, options_of

from .folders import add_by_hand, counts, put, texts, texts_by, write


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notes"
    made.mkdir()
    return made


def sync(instance: Instance, name: str) -> Any:
    (found,) = instance.objects("sync", "show", name)
    return found


def has(instance: Instance, library: str, wanted: dict[str, str]) -> None:
    """Waits until a library has these texts, and no others."""
    with instance.connect() as client:
        until(lambda: texts_by(client, library) == wanted, f"{wanted}")


def until_texts(instance: Instance, library: str, wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Waits until the texts of a library are as wanted; returns them."""
    with instance.connect() as client:
        return until(lambda: found if wanted(found := texts_by(client, library)) else None, "the texts")


@contextlib.contextmanager
def followed(instance: Instance, folder: Path, name: str) -> Iterator[list[str]]:
    """Follows a folder in this process during the block. Yields the warnings, to which later ones are added."""
    warnings: list[str] = []
    stop = Stopping()
    with instance.connect() as client:
        add_by_hand(client, name, folder, name)
        client.set_timeout(None)

        def run() -> None:
            while not stop.is_set():
                with Session(client, name, stop) as session:
                    options = options_of(session.definition)
                    Follower(
                        client, session, options, stop, on_round=lambda told, seconds: None, on_warning=warnings.append
                    ).run()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield warnings
        finally:
            stop.set()
            thread.join(60)
            stop.close()


def sync_pid(instance: Instance) -> int | None:
    """The process of the syncs of an instance."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"vecd.sync" in words and os.fsencode(instance.settings.socket) in words and alive(int(path.name)):
            return int(path.name)
    return None


def test_the_daemon_follows_every_kind_of_change(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one", b_txt="two")
    instance.vec("sync", "add", str(folder), "-l", "live", "--name", "live")
    has(instance, "live", {"a.txt": "one", "b.txt": "two"})
    write(folder, a_txt="changed", c_txt="three")
    put(folder / "new/deep/d.txt", "four")
    has(instance, "live", {"a.txt": "changed", "b.txt": "two", "c.txt": "three", "new/deep/d.txt": "four"})
    (folder / "b.txt").unlink()
    (folder / "new").rename(folder / "old")
    has(instance, "live", {"a.txt": "changed", "c.txt": "three", "old/deep/d.txt": "four"})
    put(folder / ".saving", "saved by a rename")
    (folder / ".saving").rename(folder / "a.txt")  # as editors do
    shutil.rmtree(folder / "old")
    has(instance, "live", {"a.txt": "saved by a rename", "c.txt": "three"})
    put(folder / ".gitignore", "c.*\n")
    has(instance, "live", {"a.txt": "saved by a rename"})
    skipped = {"hidden": 1, "ignored": 1}
    until(lambda: sync(instance, "live")["skipped"] == skipped, "what the last scan has skipped")
    shown = until(lambda: (found := sync(instance, "live"))["state"] == "running" and found, "its report")
    assert (shown["error"], shown["files"]) == (None, 1)
    instance.vec("sync", "remove", str(folder))
    assert set(texts(instance, "live")) == {"a.txt"}


def test_a_sync_survives_a_kill_of_its_process_and_of_the_daemon_and_finds_what_changed_meanwhile(
    folder: Path,
) -> None:
    write(folder, a_txt="one", b_txt="two")
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        instance.vec("sync", "add", str(folder), "-l", "kept")
        has(instance, "kept", {"a.txt": "one", "b.txt": "two"})
        first = sync_pid(instance)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        write(folder, a_txt="while its process was dead")
        has(instance, "kept", {"a.txt": "while its process was dead", "b.txt": "two"})
        second = sync_pid(instance)
        assert second is not None
        daemon.kill()
        daemon.wait()
        until(lambda: not alive(second), "the end of its process")
        (folder / "b.txt").rename(folder / "c.txt")
        instance.start()
        has(instance, "kept", {"a.txt": "while its process was dead", "c.txt": "two"})
        instance.vec("sync", "pause", "notes")
        assert sync(instance, "notes")["state"] == "paused"
        write(folder, d_txt="while paused")
        instance.vec("daemon", "restart")
        assert sync(instance, "notes")["state"] == "paused"
        instance.vec("sync", "resume", "notes")
        has(instance, "kept", {"a.txt": "while its process was dead", "c.txt": "two", "d.txt": "while paused"})
        instance.vec("sync", "remove", "notes")
        until(lambda: sync_pid(instance) is None, "the end of the process without a sync")


def test_a_folder_that_vanishes_is_an_error_and_the_sync_continues_when_it_is_back(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one", b_txt="two")
    instance.vec("sync", "add", str(folder), "-l", "away", "--name", "away")
    has(instance, "away", {"a.txt": "one", "b.txt": "two"})
    folder.rename(folder.with_name("elsewhere"))
    shown = until(lambda: (found := sync(instance, "away"))["error"] and found, "the error")
    assert (shown["state"], shown["error"]["code"]) == ("failing", "not_found")
    assert set(texts(instance, "away")) == {"a.txt", "b.txt"}
    folder.mkdir()  # empty, as where a disk is not mounted
    until(lambda: "is empty" in sync(instance, "away")["error"]["message"], "the other error")
    assert set(texts(instance, "away")) == {"a.txt", "b.txt"}
    folder.rmdir()
    folder.with_name("elsewhere").rename(folder)
    (folder / "b.txt").unlink()
    has(instance, "away", {"a.txt": "one"})
    until(lambda: sync(instance, "away")["state"] == "running", "its recovery")
    instance.vec("sync", "remove", "away")


def test_a_library_that_was_deleted_under_a_sync_is_filled_with_all_files_again(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one", b_txt="two", c_txt="three")
    instance.vec("sync", "add", str(folder), "-l", "refilled", "--name", "refilled")
    has(instance, "refilled", {"a.txt": "one", "b.txt": "two", "c.txt": "three"})
    instance.vec("library", "delete", "refilled")
    assert sync(instance, "refilled")["files"] == 0
    write(folder, a_txt="changed")
    has(instance, "refilled", {"a.txt": "changed", "b.txt": "two", "c.txt": "three"})
    instance.vec("library", "delete", "refilled")
    instance.vec("library", "create", "refilled")
    (folder / "b.txt").unlink()
    write(folder, a_txt="changed again")
    has(instance, "refilled", {"a.txt": "changed again", "c.txt": "three"})
    assert (sync(instance, "refilled")["files"], sync(instance, "refilled")["error"]) == (2, None)
    instance.vec("sync", "remove", "refilled")


def test_a_library_that_was_deleted_is_filled_by_the_next_scan_also_if_no_file_changes(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_SCAN_S", 0.1)
    monkeypatch.setattr(follow, "_SCAN_SHARE", 1)
    write(folder, a_txt="one", b_txt="two")
    with followed(instance, folder, "scanned"):
        has(instance, "scanned", {"a.txt": "one", "b.txt": "two"})
        instance.vec("library", "delete", "scanned")
        has(instance, "scanned", {"a.txt": "one", "b.txt": "two"})


def test_a_sync_that_was_run_by_hand_goes_on_in_the_daemon_without_reading_again(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one")
    instance.vec("sync", str(folder), "-l", "hand")
    assert sync(instance, str(folder))["state"] == "manual"
    before = instance.objects("status")[0]["seq"]
    added = instance.objects("sync", "add", str(folder), "-l", "hand", "--name", "by-hand")[0]
    assert (added["name"], added["files"], added["follow"]) == ("by-hand", 1, True)
    until(lambda: sync(instance, "by-hand")["state"] == "running", "its start")
    assert instance.objects("status")[0]["seq"] == before
    refused = instance.vec("sync", str(folder), "-l", "hand", status=75)
    assert "'by-hand' is being run by" in refused.stderr
    instance.vec("sync", "remove", "by-hand")


def test_a_command_that_follows_prints_each_change_and_waits_for_a_daemon_that_was_killed(folder: Path) -> None:
    write(folder, a_txt="one")
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with running(instance, "sync", str(folder), "-l", "own", "--follow") as process:
            assert counts(line_of(process.stdout)) == {"new": 1}
            write(folder, b_txt="two")
            assert counts(line_of(process.stdout))["new"] == 1
            daemon.kill()
            daemon.wait()
            write(folder, c_txt="three")
            assert counts(line_of(process.stdout)) == {"new": 1, "unchanged": 2}
            assert set(texts(instance, "own")) == {"a.txt", "b.txt", "c.txt"}
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert "continuing when the daemon is back" in process.stderr.read().decode()


def test_without_inotify_changes_are_found_all_the_same_and_one_warning_says_why(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: str, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    monkeypatch.setattr(follow, "_POLL_S", 0.1)
    write(folder, a_txt="one")
    with followed(instance, folder, "blind") as warnings:
        has(instance, "blind", {"a.txt": "one"})
        for text in ("two", "three", "four"):
            write(folder, a_txt=text)
            has(instance, "blind", {"a.txt": text})
    assert len(warnings) == 1
    assert "sysctl fs.inotify.max_user_watches" in warnings[0]


def test_a_name_that_is_not_utf_8_does_not_end_the_watch(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_STARTS_S", 1e9)
    monkeypatch.setattr(follow, "_SCAN_S", 1e9)
    put(folder / ".vecignore", "ignored/\n")
    with followed(instance, folder, "odd") as warnings:
        has(instance, "odd", {})
        for number, inside in enumerate(("", "ignored")):
            odd = Path(os.fsdecode(os.fsencode(folder / inside) + b"/\xff.txt"))
            put(odd, "odd")
            write(folder, a_txt=f"after {number}")
            found = until_texts(instance, "odd", lambda has: has.get("a.txt") == f"after {number}")  # noqa: B023
            assert "odd" in found.values()
        write(folder, b_txt="watched")
        until_texts(instance, "odd", lambda has: has.get("b.txt") == "watched")
        assert warnings == []

        def again() -> bool:
            put(odd, "odd again")
            return bool(warnings)

        until(again, "a warning")
        assert "not UTF-8" in warnings[0]
        assert "rename it" in warnings[0]
        write(folder, c_txt="without a watch")
        until_texts(instance, "odd", lambda has: has.get("c.txt") == "without a watch")
        assert len(warnings) == 1


def test_any_error_of_the_watch_is_a_warning_and_changes_are_found_all_the_same(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*paths: str, **options: Any) -> Any:
        raise AssertionError("a bug")

    monkeypatch.setattr(watchfiles, "watch", fail)
    monkeypatch.setattr(follow, "_POLL_S", 0.1)
    with followed(instance, folder, "bug") as warnings:
        write(folder, a_txt="one")
        has(instance, "bug", {"a.txt": "one"})
        until(lambda: warnings, "a warning")
    assert len(warnings) == 1
    assert "a bug" in warnings[0]


def test_a_file_that_is_written_in_pieces_becomes_one_document_version(instance: Instance, folder: Path) -> None:
    """Pieces as fast as a program writes them: none of them waits for a disk."""
    write(folder, a_txt="one")
    instance.vec("sync", "add", str(folder), "-l", "pieces", "--name", "pieces")
    has(instance, "pieces", {"a.txt": "one"})
    head = instance.objects("status")[0]["seq"]
    with (folder / "b.txt").open("w", buffering=1) as file:
        for number in range(2_000):
            file.write(f"line {number}\n")
    until(lambda: "line 1999" in texts(instance, "pieces").get("b.txt", ""), "the whole file")
    lines = instance.vec(
        "watch", "-l", "pieces", "--no-follow", "--from", "beginning", "--type", "document.*"
    ).stdout.splitlines()
    later = [each for line in lines if (each := json.loads(line))["seq"] > head]
    assert [each["type"] for each in later] == ["document.added"]
    instance.vec("sync", "remove", "pieces")
