"""What an installation gets: the wheel, built once from a copy of the source."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("vecd", "cli", "man", "completions", "systemd", "pyproject.toml", "LICENSE", "README.md")
SETUPTOOLS_MIN = 77


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without a network by the setuptools that is here."""
    try:
        found = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        found = "0"
    if int(found.split(".")[0]) < SETUPTOOLS_MIN:
        pytest.skip(f"setuptools {SETUPTOOLS_MIN} or later is not installed")
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("vecd-*.whl")
    return zipfile.ZipFile(path)


def data(wheel: zipfile.ZipFile) -> set[str]:
    """What is installed below the prefix."""
    return {name.partition(".data/data/")[2] for name in wheel.namelist() if ".data/data/" in name}


def test_the_wheel_puts_no_module_called_cli_on_the_machine(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith((".dist-info", ".data"))} == {"vecd", "vec_cli"}


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    there = {
        str(Path(package, *path.relative_to(ROOT / folder).parts))
        for folder, package in (("vecd", "vecd"), ("cli", "vec_cli"))
        for path in (ROOT / folder).rglob("*.py")
    }
    assert there <= set(wheel.namelist())
    assert "vecd/py.typed" in wheel.namelist()


def test_the_wheel_has_both_commands(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"vec": "vec_cli.main:main", "vecd": "vecd.daemon:main"}


def test_the_wheel_has_every_man_page_where_man_looks(wheel: zipfile.ZipFile) -> None:
    pages = {f"share/man/man{path.suffix[1:]}/{path.name}" for path in (ROOT / "man").glob("*.[1-9]")}
    assert len(pages) >= 15
    assert {name for name in data(wheel) if name.startswith("share/man/")} == pages


def test_the_wheel_has_the_completions_where_the_shells_look(wheel: zipfile.ZipFile) -> None:
    assert data(wheel) >= {
        "share/bash-completion/completions/vec",
        "share/zsh/site-functions/_vec",
        "share/fish/vendor_completions.d/vec.fish",
    }


def test_the_wheel_has_the_units_where_systemd_looks(wheel: zipfile.ZipFile) -> None:
    units = {f"share/systemd/user/{path.name}" for path in (ROOT / "systemd").iterdir()}
    assert {path.rpartition("/")[2] for path in units} == {"vecd.service", "vecd.socket", "vec-serve.service"}
    assert units <= data(wheel)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = sorted((ROOT / "systemd").iterdir())
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", *units],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
