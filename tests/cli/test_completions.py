"""The shipped completion scripts, and that shells complete with them; names: test_completion.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import completions

BIN = Path(sys.executable).parent


def run(*command: str | Path, **environment: str) -> str:
    """Runs a command that finds our `vec`; its output."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stderr
    return done.stdout


def script(shell: str) -> Path:
    return completions.FOLDER / completions.FILES[shell]


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", completions.FILES)
def test_the_shipped_script_is_what_vec_completion_prints(shell: str) -> None:
    assert script(shell).read_text("utf-8") == completions.generated(shell), "run: make completions"


def test_nothing_else_is_shipped() -> None:
    there = {str(path.relative_to(completions.FOLDER)) for path in completions.FOLDER.rglob("*") if path.is_file()}
    assert there == set(completions.FILES.values())


@pytest.mark.parametrize("shell", completions.FILES)
def test_the_shell_accepts_its_script(shell: str) -> None:
    needs(shell)
    run(shell, "-n", script(shell))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vec se", ["search", "serve"]),
        ("vec library cr", ["create"]),
        ("vec search --mode hy", ["hybrid"]),
        ("vec watch --cursor", ["--cursor-file"]),
    ],
)
def test_vec_completes_for_bash(words: str, expected: list[str]) -> None:
    last = len(words.split()) - 1
    told = run(BIN / "vec", _VEC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(last))
    assert told.split() == expected


def test_bash_completes_with_the_script() -> None:
    needs("bash")
    told = run(
        "bash", "--norc", "-c",
        'source "$1"; COMP_WORDS=(vec se); COMP_CWORD=1; _vec_completion vec; echo "${COMPREPLY[@]}"; complete -p vec',
        "bash", script("bash"),
    )  # fmt: skip
    assert told.splitlines() == ["search serve", "complete -o default -F _vec_completion vec"]


def test_zsh_completes_at_the_first_tab() -> None:
    """At the first one zsh runs the file from $fpath; compinit and _arguments are zsh's, and stood in for here."""
    needs("zsh")
    told = run(
        "zsh", "-f", "-c",
        'fpath=("$1"); autoload -Uz _vec; compdef() { registered=$1 }; _arguments() { print -r -- $* }'
        "; words=(vec se); CURRENT=2; _vec; print -r -- $registered",
        "zsh", script("zsh").parent,
    )  # fmt: skip
    assert '"search":' in told
    assert told.splitlines()[-1] == "_vec_completion"


def test_fish_completes_with_the_script() -> None:
    needs("fish")
    told = run("fish", "--no-config", "-c", 'source $argv[1]; complete -C "vec se"', str(script("fish")))
    assert told.startswith("search\t")
