"""Files that are on disk when a call returns: whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vecd.durable_files import append, rename, replace, sync_file, writing


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced, in order."""
    paths: list[Path] = []
    sync = os.fsync

    def keep(fd: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        sync(fd)

    monkeypatch.setattr(os, "fsync", keep)
    return paths


def test_a_file_is_synced_under_another_name_before_it_takes_its_place_and_the_folder_after(
    tmp_path: Path, synced: list[Path]
) -> None:
    place, unfinished = tmp_path / "place", tmp_path / "unfinished"
    place.write_text("old")
    with writing(place, unfinished) as file:
        file.write(b"new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert synced == [unfinished, tmp_path]


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("old")

    def fail() -> None:
        with writing(place, tmp_path / "unfinished") as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["place"]
    assert place.read_text() == "old"


def test_a_name_that_is_taken_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "unfinished").symlink_to(tmp_path / "another")
    with pytest.raises(FileExistsError), writing(tmp_path / "place", tmp_path / "unfinished"):
        pass
    assert not (tmp_path / "another").exists()
    assert not (tmp_path / "place").exists()


def test_replace_keeps_the_permissions_of_a_file_that_was_there(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("old")
    place.chmod(0o640)
    replace(place, b"new")
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"new", 0o640)


def test_a_rename_and_a_file_are_synced(tmp_path: Path, synced: list[Path]) -> None:
    made = tmp_path / "made"
    made.write_text("text")
    sync_file(made)
    rename(made, tmp_path / "place")
    assert synced == [made, tmp_path]
    assert (tmp_path / "place").read_text() == "text"


def test_what_is_appended_is_synced_and_the_folder_too(tmp_path: Path, synced: list[Path]) -> None:
    append(tmp_path / "file", b"one\n")
    append(tmp_path / "file", b"two\n")
    assert (tmp_path / "file").read_text() == "one\ntwo\n"
    assert synced == [tmp_path / "file", tmp_path] * 2
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_what_many_append_at_once_is_not_mixed(tmp_path: Path) -> None:
    lines = [bytes([ord("a") + number]) * 200_000 + b"\n" for number in range(8)]
    threads = [threading.Thread(target=append, args=(tmp_path / "file", line)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((tmp_path / "file").read_bytes().splitlines(keepends=True)) == lines
