"""Writes completions/: the scripts that Typer makes for `vec`, under the names that shells look for.

    python -m tests.cli.completions

A shell finds a script by its file name, and an installation keeps file names: so one folder for each shell.
"""

from __future__ import annotations

from pathlib import Path

from typer.completion import get_completion_script  # type: ignore[attr-defined]

FOLDER = Path(__file__).resolve().parents[2] / "completions"

#: Shell -> its script, in completions/.
FILES = {"bash": "bash/vec", "zsh": "zsh/_vec", "fish": "fish/vec.fish"}

_VARIABLE = "_VEC_COMPLETE"

#: zsh runs a file from $fpath at the first TAB; Typer's script would only register itself then and answer the second.
_AT_ONCE = '[[ $funcstack[1] != _vec ]] || _vec_completion "$@"\n'


def generated(shell: str) -> str:
    """The script for a shell, as it is shipped."""
    script = str(get_completion_script(prog_name="vec", complete_var=_VARIABLE, shell=shell)) + "\n"
    return script + _AT_ONCE if shell == "zsh" else script


def main() -> None:
    for shell, name in FILES.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated(shell), "utf-8")


if __name__ == "__main__":
    main()
