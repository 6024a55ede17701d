"""vec sync DIR: one run after another, through the real door."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import line_of, rest_of, running
from tests.support.waiting import until
from vecd.connectors.folder import path_of, url_of
from vecd.errors import Code, VecError
from vecd.files.entry import FileEntry, FileSkipped, SkipReason
from vecd.files.options import FileOptions
from vecd.sync import batches, session
from vecd.sync.batches import DOCUMENTS_MAX
from vecd.sync.reading import read_whole

from .folders import add_by_hand, counts, cursor, events, put, run_once, texts, texts_by, write


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


def test_a_run_brings_new_changed_renamed_and_deleted_files_and_touches_no_other(
    instance: Instance, folder: Path
) -> None:
    write(folder, same_md="# Same\nit stays", changed_md="old words", gone_txt="to be deleted", old_txt="renamed")
    put(folder / "sub/deep/code.py", "def deep(): pass\n")
    (first,) = instance.objects("sync", str(folder), "-l", "kinds")
    assert counts(first) == {"new": 5}
    here = cursor(instance)
    write(folder, changed_md="new words", new_md="a new file")
    (folder / "gone.txt").unlink()
    (folder / "old.txt").rename(folder / "sub/new.txt")
    (second,) = instance.objects("sync", str(folder), "-l", "kinds")
    assert counts(second) == {"new": 1, "changed": 1, "moved": 1, "deleted": 1, "unchanged": 2}
    assert texts(instance, "kinds") == {
        "same.md": "# Same\nit stays",
        "changed.md": "new words",
        "new.md": "a new file",
        "sub/new.txt": "renamed",
        "sub/deep/code.py": "def deep(): pass",
    }
    told = set(events(instance, "kinds", here))
    assert told == {
        ("document.updated", "changed.md"),
        ("document.added", "new.md"),
        ("document.added", "sub/new.txt"),
        ("document.deleted", "old.txt"),
        ("document.deleted", "gone.txt"),
    }
    (third,) = instance.objects("sync", str(folder), "-l", "kinds")
    assert counts(third) == {"unchanged": 5}


def test_what_is_done_by_hand_between_two_runs_is_found_also_if_size_and_mtime_are_the_same(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one two", b_txt="one two three")
    instance.vec("sync", str(folder), "-l", "sly")
    about = (folder / "a.txt").stat()
    write(folder, a_txt="two one")
    os.utime(folder / "a.txt", ns=(about.st_atime_ns, about.st_mtime_ns))
    (folder / "b.txt").chmod(0o600)
    here = cursor(instance)
    (told,) = instance.objects("sync", str(folder), "-l", "sly")
    assert counts(told) == {"changed": 1, "unchanged": 1}
    assert texts(instance, "sly") == {"a.txt": "two one", "b.txt": "one two three"}
    assert events(instance, "sly", here) == [("document.updated", "a.txt")]


def test_a_folder_that_vanished_or_became_empty_is_an_error_and_deletes_nothing(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one", b_txt="two")
    instance.vec("sync", str(folder), "-l", "gone")
    folder.rename(folder.with_name("elsewhere"))
    missing = instance.vec("sync", str(folder), "-l", "gone", status=4)
    assert "does not exist" in missing.stderr
    folder.mkdir()  # as a mount point whose disk is not mounted
    empty = instance.vec("sync", str(folder), "-l", "gone", status=4)
    assert "is empty, where 2 files had documents: is the disk mounted?" in empty.stderr
    assert set(texts(instance, "gone")) == {"a.txt", "b.txt"}
    (told,) = instance.objects("sync", str(folder), "-l", "gone", "--allow-empty")
    assert counts(told) == {"deleted": 2}
    assert texts(instance, "gone") == {}


def test_files_that_are_ignored_from_now_on_are_deleted_from_the_library(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one", b_log="two")
    instance.vec("sync", str(folder), "-l", "ignoring")
    put(folder / ".vecignore", "*.log\n")
    (told,) = instance.objects("sync", str(folder), "-l", "ignoring")
    assert (counts(told), told["skipped"]["ignored"]) == ({"deleted": 1, "unchanged": 1}, 1)
    assert set(texts(instance, "ignoring")) == {"a.txt"}


def test_any_name_of_a_file_or_folder_is_taken(instance: Instance, folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/-odd \xff\n"))
    names = [b"-dash.txt", b"new\nline.txt", b"\xff\xfe.txt", "é–漢字😀.txt".encode(), b"back\\slash.txt", b"%41.txt"]
    for number, name in enumerate(names):
        put(Path(os.fsdecode(os.fsencode(odd) + b"/" + name)), f"text {number}")
    (told,) = instance.objects("sync", "-l", "odd", "--", str(odd))
    assert counts(told) == {"new": len(names)}
    found = texts(instance, "odd")
    assert sorted(found.values()) == [f"text {number}" for number in range(len(names))]
    assert {"-dash.txt", "é–漢字😀.txt", "%41.txt"} <= found.keys()
    Path(os.fsdecode(os.fsencode(odd) + b"/\xff\xfe.txt")).unlink()
    (told,) = instance.objects("sync", "-l", "odd", "--", str(odd))
    assert counts(told) == {"deleted": 1, "unchanged": len(names) - 1}
    assert sorted(texts(instance, "odd").values()) == ["text 0", "text 1", "text 3", "text 4", "text 5"]
    assert path_of(url_of(str(odd))) == str(odd)


def test_a_library_that_was_deleted_is_filled_again(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one")
    instance.vec("sync", str(folder), "-l", "again")
    instance.vec("library", "delete", "again")
    (told,) = instance.objects("sync", str(folder), "-l", "again")
    assert counts(told) == {"new": 1}
    assert texts(instance, "again") == {"a.txt": "one"}


def many(folder: Path, count: int) -> None:
    for number in range(count):
        put(folder / f"{number % 10}" / f"{number}.txt", f"text {number}")


def test_a_library_that_is_deleted_during_a_run_has_all_files_after_it(instance: Instance, folder: Path) -> None:
    many(folder, 3_000)
    with running(instance, "sync", str(folder), "-l", "during") as process:
        until(lambda: len(texts(instance, "during")) > 200, "some documents")
        instance.vec("library", "delete", "during")
        assert counts(line_of(process.stdout)) == {"new": 3_000}
        assert process.wait(60) == 0
    assert len(texts(instance, "during")) == 3_000


def test_a_run_whose_daemon_is_killed_goes_on_with_a_new_one(folder: Path) -> None:
    many(folder, 3_000)
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with running(instance, "sync", str(folder), "-l", "lost") as process:
            until(lambda: len(texts(instance, "lost")) > 200, "some documents")
            daemon.kill()
            daemon.wait()
            told = line_of(process.stdout)
            assert process.wait(60) == 0
            assert "continuing when the daemon is back" in rest_of(process.stderr)
        assert told["new"] + told["unchanged"] == 3_000
        assert told["new"] > 200  # those of before, too
        assert len(texts(instance, "lost")) == 3_000


def test_a_run_that_may_not_start_a_daemon_gives_up_when_it_does_not_come_back(folder: Path) -> None:
    many(folder, 3_000)
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with running(instance, "sync", str(folder), "-l", "lost", "--no-spawn") as process:
            until(lambda: len(texts(instance, "lost")) > 200, "some documents")
            daemon.kill()
            daemon.wait()
            assert process.wait(60) == 75
            assert "next run" in rest_of(process.stderr)


def test_a_sync_shows_what_its_last_run_has_skipped(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person without permissions is root here, so reading fails in this process."""
    write(folder, a_txt="one", b_txt="two", c_bin=b"\0\1", d_log="ignored")
    put(folder / ".gitignore", "*.log\n")
    closed = {"b.txt"}

    def read(entry: FileEntry, *arguments: Any) -> Any:
        if entry.relative in closed:
            raise FileSkipped(SkipReason.UNREADABLE, "it cannot be read (Permission denied)")
        return read_whole(entry, *arguments)

    def shown() -> dict[str, int]:
        (found,) = [each for each in instance.objects("sync", "list") if each["name"] == "closed"]
        skipped: dict[str, int] = found["skipped"]
        return skipped

    monkeypatch.setattr(session, "read_whole", read)
    with instance.connect() as client:
        add_by_hand(client, "closed", folder, "closed")
        for _ in range(2):
            skipped = run_once(client, "closed").skipped
            assert skipped.pop("unreadable") == 1
            assert shown() == {"unreadable": 1, **skipped}
            assert (skipped["binary"], skipped["ignored"]) == (1, 1)
        closed.clear()
        (folder / "c.bin").unlink()
        skipped = run_once(client, "closed").skipped
        assert shown() == skipped
        assert skipped.keys().isdisjoint({"unreadable", "binary"})


def test_the_name_of_a_library_where_a_syncs_name_is_wanted_is_answered_with_its_syncs(
    instance: Instance, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / f"{name}.txt", name)
        instance.vec("sync", str(tmp_path / name), "-l", "shelf", "--prefix", name)
        refused = instance.vec("sync", "remove", "shelf", status=4)
        assert "sync 'shelf' does not exist" in refused.stderr
        assert f"library 'shelf' has the sync{' ' if name == 'one' else 's '}" in refused.stderr
        assert f"'{name}'" in refused.stderr


def test_files_whose_documents_are_refused_are_reported_and_the_others_are_written(
    instance: Instance, folder: Path
) -> None:
    write(folder, a_txt="one")
    instance.vec("library", "create", "vectors", "--embedder", "none", "--dimension", "2")
    done = instance.vec("sync", str(folder), "-l", "vectors", status=3)
    assert counts(json.loads(done.stdout)) == {"failed": 1}
    assert "a.txt: library 'vectors' has no embedder" in done.stderr
    instance.vec("library", "delete", "vectors")
    instance.vec("library", "create", "vectors")
    (told,) = instance.objects("sync", str(folder), "-l", "vectors")
    assert counts(told) == {"new": 1}


def test_two_folders_whose_documents_would_have_the_same_ids_need_a_prefix(instance: Instance, tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / "README.md", name)
    instance.vec("sync", str(tmp_path / "one"), "-l", "both")
    refused = instance.vec("sync", str(tmp_path / "two"), "-l", "both", status=1)
    assert "--prefix" in refused.stderr
    instance.vec("sync", str(tmp_path / "two"), "-l", "both", "--prefix", "two")
    assert texts(instance, "both") == {"README.md": "one", "two/README.md": "two"}


def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one", b_txt="two")
    instance.vec("sync", str(folder), "-l", "dry")
    write(folder, a_txt="more than one", c_txt="three")
    (folder / "b.txt").unlink()
    told = instance.objects("sync", str(folder), "-l", "dry", "--dry-run")
    assert {(each["path"], each["what"]) for each in told} == {
        ("a.txt", "changed"), ("b.txt", "gone"), ("c.txt", "new"),
    }  # fmt: skip
    assert texts(instance, "dry") == {"a.txt": "one", "b.txt": "two"}


def test_other_options_than_those_of_the_first_run_are_refused(instance: Instance, folder: Path) -> None:
    """They would delete documents."""
    write(folder, a_txt="one")
    put(folder / ".hidden.txt", "two")
    instance.vec("sync", str(folder), "-l", "options", "--hidden")
    assert set(texts(instance, "options")) == {"a.txt", ".hidden.txt"}
    instance.vec("sync", str(folder), "-l", "options")  # the sync knows
    assert set(texts(instance, "options")) == {"a.txt", ".hidden.txt"}
    assert "has other options" in instance.vec("sync", str(folder), "-l", "options", "--links", status=2).stderr


def test_a_run_that_is_killed_is_continued_by_the_next(instance: Instance, folder: Path) -> None:
    many(folder, 1_500)
    with running(instance, "sync", str(folder), "-l", "killed") as process:
        until(lambda: len(texts(instance, "killed")) > 200, "some documents")
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = len(texts(instance, "killed"))
    (told,) = instance.objects("sync", str(folder), "-l", "killed")
    assert told["new"] + told["unchanged"] == 1_500
    assert told["unchanged"] >= before - 256  # what was committed is not read again
    assert len(texts(instance, "killed")) == 1_500


def test_a_folder_that_another_run_is_at_is_busy(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one")
    instance.vec("sync", str(folder), "-l", "held")
    (known,) = [each for each in instance.objects("sync", "list") if each["library"] == "held"]
    with instance.connect() as client:
        held = client.hold_sync(known["name"])
        held.next()
        refused = instance.vec("sync", str(folder), "-l", "held", status=75)
        assert "is being run by" in refused.stderr
        client.abandon(held)
        client.ping()
        instance.vec("sync", str(folder), "-l", "held")


def test_a_commit_of_an_earlier_generation_writes_nothing(instance: Instance, folder: Path) -> None:
    write(folder, a_txt="one")
    with instance.connect() as client:
        add_by_hand(client, "old", folder, "fenced")
        generation = client.hold_sync("old").next().body[0]["generation"]  # type: ignore[union-attr]
        client.remove_sync("old")
        add_by_hand(client, "old", folder, "fenced")
        with pytest.raises(VecError) as caught:
            client.commit_sync("old", generation, documents=[{"id": "x", "text": "y"}]).result()
        assert caught.value.code == Code.LEASE_LOST
        assert texts_by(client, "fenced") == {}


def test_whatever_happens_to_a_folder_the_library_has_its_files_after_a_run(instance: Instance, folder: Path) -> None:
    """Random changes of a tree, with the tree itself as the model."""
    chance = random.Random(14)
    with instance.connect() as client:
        add_by_hand(client, "model", folder, "model")
        for _ in range(40):
            for _ in range(chance.randrange(1, 6)):
                _change(folder, chance)
            if not any(folder.iterdir()):
                continue
            run_once(client, "model")
            files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
            assert texts_by(client, "model") == {name: text for name, text in files.items() if text}
            assert run_once(client, "model").files.keys() <= {"unchanged"}


def _change(folder: Path, chance: random.Random) -> None:
    """One change of a tree of a few names, so that the same ones are deleted, made again and swapped."""
    path = folder / chance.choice(["a.txt", "b.txt", "c/a.txt", "c/d/e.txt", "f/a.txt", "f/g.txt"])
    other = folder / chance.choice(["a.txt", "b.txt", "c/b.txt", "f/a.txt", "h/i.txt"])
    text = chance.choice(["one", "two", "one two three", ""])
    match chance.randrange(7):
        case 0 | 1 | 2:
            put(path, text)
        case 3:
            path.unlink(missing_ok=True)
        case 4:
            shutil.rmtree(path.parent if path.parent != folder else folder / "f", ignore_errors=True)
        case 5 if path.exists():
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)
        case 6 if path.parent != folder and path.parent.exists() and not (folder / "moved").exists():
            path.parent.rename(folder / "moved")


def test_after_a_missing_package_was_installed_one_file_of_each_kind_shows_it(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put(folder / f"{number}.pdf", f"text {number}")
    installed, read = False, []

    def documents(entry: FileEntry, options: FileOptions, content: bytes) -> Iterator[dict[str, Any]]:
        read.append(entry.relative)
        if not installed:
            raise FileSkipped(SkipReason.EXTRA, "it needs a package", "pip install it")
        yield {"id": entry.id, "texts": [content.decode()]}

    monkeypatch.setattr(session, "documents_of", documents)
    with instance.connect() as client:
        add_by_hand(client, "extra", folder, "extra")
        for wanted in (3, 1):
            told = run_once(client, "extra")
            assert (told.skipped["extra missing"], len(read)) == (3, wanted)
            read.clear()
        installed = True
        assert run_once(client, "extra").files["changed"] == 3
        assert len(texts_by(client, "extra")) == 3


def test_a_file_of_many_documents_that_was_refused_in_part_is_read_again(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, mail_mbox="many")
    wrong: set[int] = {3}

    def documents(entry: FileEntry, options: FileOptions, content: bytes) -> Iterator[dict[str, Any]]:
        for number in range(2 * DOCUMENTS_MAX):
            yield {"id": f"m{number}", "texts": [7 if number in wrong else f"mail {number}"]}

    monkeypatch.setattr(session, "documents_of", documents)
    monkeypatch.setattr(batches, "_chars", lambda document: 100)
    with instance.connect() as client:
        add_by_hand(client, "mails", folder, "mails")
        assert run_once(client, "mails").files["failed"] == 1
        wrong.clear()
        run_once(client, "mails")
        assert len(texts_by(client, "mails")) == 2 * DOCUMENTS_MAX
        assert run_once(client, "mails").files.keys() <= {"unchanged"}


def test_a_document_that_two_files_have_stays_while_one_of_them_has_it(
    instance: Instance, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mail that is in two mailboxes."""
    write(folder, a_mbox="one two", b_mbox="two three")

    def documents(entry: FileEntry, options: FileOptions, content: bytes) -> Iterator[dict[str, Any]]:
        for word in content.decode().split():
            yield {"id": word, "texts": [word]}

    monkeypatch.setattr(session, "documents_of", documents)
    with instance.connect() as client:
        add_by_hand(client, "mailboxes", folder, "mailboxes")
        run_once(client, "mailboxes")
        assert texts_by(client, "mailboxes").keys() == {"one", "two", "three"}
        (folder / "a.mbox").unlink()
        run_once(client, "mailboxes")
        assert texts_by(client, "mailboxes").keys() == {"two", "three"}
        write(folder, b_mbox="three", c_mbox="two four")
        run_once(client, "mailboxes")
        assert texts_by(client, "mailboxes").keys() == {"two", "three", "four"}
        write(folder, b_mbox="three four", c_mbox="five")
        run_once(client, "mailboxes")
        assert texts_by(client, "mailboxes").keys() == {"three", "four", "five"}
