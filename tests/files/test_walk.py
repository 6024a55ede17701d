"""Which files of a folder are read: against real folders, and against what git says of the same ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from vecd.errors import Code, VecError
from vecd.files.entry import SkipReason, id_of
from vecd.files.options import FileOptions
from vecd.files.walk import walk


def make(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(root: Path, options: FileOptions | None = None, under: str | None = None) -> set[str]:
    """The paths that are read."""
    return {each.relative for each in walk(str(root), options or FileOptions(), under=under) if each.skipped is None}


def skipped(root: Path, options: FileOptions | None = None) -> dict[str, SkipReason]:
    return {each.relative: each.skipped for each in walk(str(root), options or FileOptions()) if each.skipped}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_files_that_gitignore_leaves_are_those_that_git_would_add(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "*.log\n!keep.log\nbuild/\n/top.txt\ndocs/**/draft.md\n# a comment\n\\#odd\nspace\\ \n",
            "a.txt": "a", "b.log": "b", "keep.log": "k", "build/x.txt": "x", "top.txt": "t", "sub/top.txt": "t",
            "docs/draft.md": "d", "docs/a/b/draft.md": "d", "docs/a/final.md": "f", "#odd": "o", "space ": "s",
            "sub/.gitignore": "!b.log\n*.md\n[ab].c\n", "sub/b.log": "b", "sub/c.md": "c", "sub/a.c": "a",
            "sub/c.c": "c", "back/.gitignore": "*.tmp\nkept/*\n!kept/\n!kept/a*\n", "back/kept/a.txt": "a",
            "back/kept/b.txt": "b", "back/kept/a.tmp": "t", "back/b.tmp": "b",
            "sub/deep/build": "a file, not a folder", "sub/deep/x.md": "x",
        },
    )  # fmt: skip
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=60)
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "-z", "--others", "--exclude-standard"],
        check=True, capture_output=True, timeout=60,
    ).stdout.decode().split("\0")  # fmt: skip
    wanted = {name for name in listed if name and not Path(name).name.startswith(".")}
    assert read(tmp_path) == wanted
    # The same from a folder inside, whose rules also come from above it.
    assert read(tmp_path / "sub") == {name.removeprefix("sub/") for name in wanted if name.startswith("sub/")}


def test_vecignore_decides_after_gitignore_and_can_take_back(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "*.log\n", ".vecignore": "!b.log\nsecret/\n!node_modules/\n!.github/\n",
            "a.log": "a" , "b.log": "b", "secret/x.txt": "x", "node_modules/m.js": "m", ".github/ci.yml": "c",
            ".env": "e", "node_modules/.h": "h",
        },
    )  # fmt: skip
    (tmp_path / "a.log").unlink()
    assert read(tmp_path) == {"b.log", "node_modules/m.js", ".github/ci.yml"}
    assert read(tmp_path, FileOptions(ignore_files=False)) == {"b.log", "secret/x.txt"}
    assert read(tmp_path, FileOptions(exclude=("b.*",))) == {"node_modules/m.js", ".github/ci.yml"}
    assert read(tmp_path, FileOptions(exclude=("*.js",))) == {"b.log", ".github/ci.yml"}


def test_each_skipped_file_has_its_reason(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "read.txt": "r", "empty.txt": "", ".hidden": "h", ".git/config": "c", "table.csv": "a,b\n",
            "large.txt": "l" * 101, "node_modules/x.js": "x", "cache/CACHEDIR.TAG": "t", "cache/x.txt": "x",
            f"{'n' * 200}/{'m' * 200}/{'o' * 200}.txt": "long",
        },
    )  # fmt: skip
    os.symlink("read.txt", tmp_path / "link.txt")
    os.mkfifo(tmp_path / "pipe")
    found = skipped(tmp_path, FileOptions(bytes_max=100))
    assert {name: reason for name, reason in found.items() if len(name) < 100} == {
        "empty.txt": SkipReason.EMPTY, ".hidden": SkipReason.HIDDEN, ".git": SkipReason.HIDDEN,
        "table.csv": SkipReason.RECORDS, "large.txt": SkipReason.TOO_LARGE, "node_modules": SkipReason.IGNORED,
        "cache": SkipReason.IGNORED, "link.txt": SkipReason.LINK, "pipe": SkipReason.SPECIAL,
    }  # fmt: skip
    assert SkipReason.BAD_NAME in found.values()
    assert read(tmp_path, FileOptions(bytes_max=100)) == {"read.txt"}
    assert read(tmp_path, FileOptions(bytes_max=100, hidden=True)) == {"read.txt", ".hidden"}


def test_links_are_followed_on_request_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path / "root", {"a/b.txt": "b"})
    make(tmp_path / "beside", {"c.txt": "c"})
    os.symlink("..", tmp_path / "root" / "a" / "up")
    os.symlink(tmp_path / "beside", tmp_path / "root" / "beside")
    os.symlink("nowhere", tmp_path / "root" / "dangling")
    os.symlink("itself", tmp_path / "root" / "itself")
    root = tmp_path / "root"
    assert read(root) == {"a/b.txt"}
    assert read(root, FileOptions(links=True)) == {"a/b.txt", "beside/c.txt"}
    reasons = skipped(root, FileOptions(links=True))
    assert (reasons["a/up"], reasons["itself"]) == (SkipReason.LOOP, SkipReason.LOOP)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    make(tmp_path, {"closed/a.txt": "a", "open/b.txt": "b"})
    (tmp_path / "closed").chmod(0)
    try:
        (closed,) = (each for each in walk(str(tmp_path)) if each.skipped)
        assert (closed.relative, closed.directory, closed.skipped) == ("closed", True, SkipReason.UNREADABLE)
        assert closed.errno
        assert read(tmp_path) == {"open/b.txt"}
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_one_path_is_walked_as_it_would_be_within_all(tmp_path: Path) -> None:
    make(
        tmp_path,
        {".gitignore": "*.log\nout/\n", "a/.vecignore": "x.txt\n", "a/x.txt": "x", "a/y.txt": "y", "a/z.log": "z",
         "a/b/c.txt": "c", "out/o.txt": "o", ".h/i.txt": "i"},
    )  # fmt: skip
    everything = {each.relative: each for each in walk(str(tmp_path))}
    for path in ("a/x.txt", "a/y.txt", "a/z.log", "a/b/c.txt", "out", ".h"):
        assert list(walk(str(tmp_path), under=path)) == [everything[path]], path
    assert read(tmp_path, under="a") == {"a/y.txt", "a/b/c.txt"}
    assert [each.relative for each in walk(str(tmp_path), under="out/o.txt")] == ["out"]
    assert list(walk(str(tmp_path), under="a/none/x.txt")) == []


def test_any_name_gives_an_id_of_its_own(tmp_path: Path) -> None:
    names = [
        b"plain.txt",
        b"line\nbreak",
        b"\xff.txt",
        b"\\xff.txt",
        b"caf\xc3\xa9.txt",
        b"-rf",
        b" ",
        b"tab\t",
        b"\\x0a",
    ]
    for name in names:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"text")
    found = list(walk(str(tmp_path)))
    assert len({each.id for each in found}) == len(names) == len(found)
    assert all(each.id.isprintable() and each.id.encode() for each in found)
    assert {os.fsencode(each.relative) for each in found} == set(names)
    assert id_of("caf\u00e9.txt") == "caf\u00e9.txt"


def test_a_root_that_is_not_there_is_an_error_and_a_file_is_its_own_root(tmp_path: Path) -> None:
    with pytest.raises(VecError) as missing:
        list(walk(str(tmp_path / "none")))
    assert missing.value.code == Code.NOT_FOUND
    make(tmp_path, {".gitignore": "*\n", ".hidden.csv": "a,b\n"})
    (only,) = walk(str(tmp_path / ".hidden.csv"), prefix="given/as.csv")
    assert (only.id, only.skipped) == ("given/as.csv", None)


def test_a_root_that_vanishes_while_it_is_walked_is_an_error(tmp_path: Path) -> None:
    make(tmp_path / "root", {f"d{number}/f.txt": "f" for number in range(3)})
    walking = walk(str(tmp_path / "root"))
    root = tmp_path / "root"
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(VecError, match="does not exist"):
        list(walking)


def test_options_survive_the_wire() -> None:
    options = FileOptions(hidden=True, exclude=("*.log", "x/"), bytes_max=5, chunk_chars=70, chunk_overlap=7)
    assert FileOptions.from_wire(options.to_wire()) == options
    assert FileOptions.from_wire({"hidden": True}) == FileOptions(hidden=True)
