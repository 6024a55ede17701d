"""vec-tutorial(7): every line of it, typed in this order into one shell, does what the page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import BIN

from .examples import block_of
from .test_examples import TUTORIAL
from .test_man import literals


def steps() -> list[tuple[str, list[str]]]:
    """Each command, and the lines of output that the page shows below it."""
    found: list[tuple[str, list[str]]] = []
    for block in literals(TUTORIAL):
        commands, rest = block_of(block).commands, block.splitlines()
        for command in commands:
            rest = rest[command.count("\n") + 1 :]
            shown = rest[: next((at for at, line in enumerate(rest) if line.startswith("$ ")), len(rest))]
            rest = rest[len(shown) :]
            found.append((command, shown))
    return found


def test_every_line_of_the_tutorial_does_what_the_page_shows(tmp_path: Path) -> None:
    for program in ("bash", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    found = steps()
    assert len(found) > 30
    script = "set -o pipefail\n" + "".join(f'{command}\necho "== $?"\n' for command, _ in found)
    foreign = ("VEC_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=250, check=False,
        )  # fmt: skip
    finally:
        home = {**environment, "VEC_HOME": str(tmp_path / "vec-tutorial/home")}
        subprocess.run([BIN / "vec", "daemon", "stop"], env=home, capture_output=True, check=False)
    answers = re.findall(r"((?:(?!== \d+$).*\n)*)== (\d+)\n", done.stdout, re.M)
    assert len(answers) == len(found), done.stdout + done.stderr
    for (command, shown), (told, status) in zip(found, answers, strict=True):
        assert status == "0", f"{command}\n{told}{done.stderr}"
        lines = told.splitlines()
        # What needs more than a line to be shown, as an explanation, begins as the page shows it.
        assert lines[: len(shown)] == shown, f"{command}\n{told}{done.stderr}"
        assert not shown or "explain" in command or lines == shown, command
    assert not (tmp_path / "vec-tutorial").exists()
