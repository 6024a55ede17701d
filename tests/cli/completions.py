"""Writes completions/: what `vec completion` prints, under the names that shells look for.

    python -m tests.cli.completions

A shell finds a script by its file name, and an installation keeps file names: so one folder for each shell.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.instance import BIN

FOLDER = Path(__file__).resolve().parents[2] / "completions"

#: Shell -> its script, in completions/.
FILES = {"bash": "bash/vec", "zsh": "zsh/_vec", "fish": "fish/vec.fish"}


def generated(shell: str) -> str:
    """The script for a shell, as it is shipped."""
    return subprocess.run([BIN / "vec", "completion", shell], capture_output=True, text=True, check=True).stdout


def main() -> None:
    for shell, name in FILES.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated(shell), "utf-8")


if __name__ == "__main__":
    main()
