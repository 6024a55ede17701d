"""The pure parts: stamps, plans, quiet paths, files that are being written, parts of batches."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from vecd.client.syncs import SyncFile
from vecd.files.entry import FileEntry, FileSkipped, SkipReason
from vecd.sync import reading, stamps
from vecd.sync.batches import DOCUMENTS_MAX, FileChange, in_parts
from vecd.sync.plan import plan
from vecd.sync.watching import QuietPaths, Watching, explain


def entry(path: str, **fields: Any) -> FileEntry:
    return FileEntry(path, path, path, **{"size": 1, "mtime_ns": 10**18 + 1, "ctime_ns": 10**18 + 1, **fields})


def known(*entries: FileEntry) -> dict[bytes, SyncFile]:
    return {
        os.fsencode(each.relative): SyncFile(os.fsencode(each.relative), stamps.stamp_of(each), b"d", [each.id], None)
        for each in entries
    }


def test_nothing_below_a_folder_that_cannot_be_read_is_deleted() -> None:
    before = known(entry("a/b/c"), entry("a/b2"), entry("d"))
    closed = entry("a/b", directory=True, skipped=SkipReason.UNREADABLE)
    assert [file.path for file in plan(before, [closed]).gone] == [b"a/b2", b"d"]


def test_a_file_that_cannot_be_read_keeps_its_document_and_one_that_is_ignored_does_not() -> None:
    before = known(entry("a"), entry("b"))
    found = [entry("a", skipped=SkipReason.UNREADABLE), entry("b", skipped=SkipReason.IGNORED)]
    assert [file.path for file in plan(before, found).gone] == [b"b"]


def test_a_plan_for_some_paths_leaves_the_others_alone() -> None:
    before = known(entry("a"), entry("ab"), entry("c/d"), entry("c/e"))
    assert [file.path for file in plan(before, [], below=[b"a", b"c"]).gone] == [b"a", b"c/d", b"c/e"]


def test_a_young_file_has_no_lasting_stamp() -> None:
    stamp = stamps.stamp_of(entry("a", mtime_ns=10**18 + 1, ctime_ns=10**18 + 1))
    assert stamps.lasting(stamp, 10**18 + 10_000_000) == b""
    assert stamps.lasting(stamp, 10**18 + 200_000_000) == stamp
    coarse = stamps.stamp_of(entry("a", mtime_ns=10**18, ctime_ns=10**18))
    assert stamps.lasting(coarse, 10**18 + 200_000_000) == b""
    assert stamps.lasting(coarse, 10**18 + 3_000_000_000) == coarse


def test_a_file_is_read_when_its_writer_has_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("half")
    written: list[int] = []

    def wait(seconds: float) -> bool:
        """The writer goes on meanwhile."""
        if not written:
            with path.open("a") as file:
                written.append(file.write(" and half"))
        else:
            os.utime(path, (0, 0))  # it is long ago
        return False

    content = reading.read_whole(FileEntry(str(path), "a.txt", "a.txt"), 1_000, wait)
    assert (content.data, content.entry.size) == (b"half and half", 13)


def test_a_file_that_never_rests_is_taken_as_it_is_without_a_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.log"
    path.write_text("x")
    monkeypatch.setattr(reading, "PATIENCE_S", 0.0)
    monkeypatch.setattr(reading, "_read", lambda fd, bytes_max: path.write_text("xx") and os.read(fd, 10))
    content = reading.read_whole(FileEntry(str(path), "a.log", "a.log"), 1_000, lambda seconds: False)
    assert content.stamp == b""


def test_a_file_that_grew_over_the_limit_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 100)
    with pytest.raises(FileSkipped) as caught:
        reading.read_whole(FileEntry(str(path), "a.txt", "a.txt", size=1), 10, lambda seconds: True)
    assert caught.value.reason == SkipReason.TOO_LARGE


def test_a_path_is_taken_when_it_is_quiet_and_one_that_goes_on_changing_less_often() -> None:
    quiet = QuietPaths(1, 16, 50)
    quiet.add([b"a"], 0)
    assert quiet.take(0.5) == []
    quiet.add([b"a"], 0.5)
    assert quiet.take(1) == []
    assert quiet.wait_s(1) == 0.5
    assert quiet.take(1.5) == [b"a"]
    assert quiet.wait_s(1.5) is None
    quiet.add([b"a"], 2)
    assert (quiet.take(3.5), quiet.take(4)) == ([], [b"a"])  # twice as long
    for second in range(10, 61):
        quiet.add([b"a"], second)
        assert quiet.take(second) == ([b"a"] if second == 60 else [])  # never quiet: taken all the same
    quiet.add([b"a"], 1_000)
    assert quiet.take(1_001) == [b"a"]  # it was quiet for long: as at first


def test_a_file_of_many_documents_is_committed_in_parts_and_known_with_the_last() -> None:
    documents = [{"id": f"{number}", "texts": ["x"]} for number in range(2 * DOCUMENTS_MAX + 1)]
    file = SyncFile(b"a", b"", b"d", [], None)
    parts = in_parts(FileChange(b"a", "new", documents, file))
    assert [len(part.documents) for part in parts] == [DOCUMENTS_MAX, DOCUMENTS_MAX, 1]
    assert [part.file for part in parts] == [None, None, file]


def test_a_limit_of_inotify_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: str, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    with Watching(str(tmp_path)) as watching:
        assert watching.failure is not None
        assert watching.take() == {b""}
        assert "sysctl fs.inotify.max_user_watches" in explain(watching.failure)
    assert "sync-watch" not in {each.name for each in threading.enumerate()}
