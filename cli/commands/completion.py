"""vec completion: prints the script that lets a shell complete commands, options and names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .. import options

app = options.command()

#: Shells call `vec` with this variable to get completions.
_VARIABLE = "_VEC_COMPLETE"
#: zsh runs a file from $fpath at the first TAB; Typer's script would only register itself then and answer the second.
_AT_ONCE = '[[ $funcstack[1] != _vec ]] || _vec_completion "$@"'


class Shell(StrEnum):
    """A shell that completes."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(epilog="Exit status: 0 success, 2 usage error. See vec-completion(1).")
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print the script that lets a shell complete commands, options and names."""
    print(script(shell))


def script(shell: Shell) -> str:
    """The script for a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    made = str(get_completion_script(prog_name="vec", complete_var=_VARIABLE, shell=shell.value))
    return f"{made}\n{_AT_ONCE}" if shell == Shell.ZSH else made
