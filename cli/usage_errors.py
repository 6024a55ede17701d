"""Usage errors, which Typer's parser raises, as errors of `vec`; and suggestions for misspelt commands and options.

Rules: a suggestion is executed by people who only press the arrow key and the return key. So nothing is suggested that
deletes or overwrites: not a command, not an option, and not another name for something that is to be deleted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from vecd.errors import Code, VecError, nearest

#: Commands, subcommands and options that delete or overwrite.
DESTRUCTIVE = frozenset(
    (
        "delete", "drop", "remove", "reset", "restore", "revoke", "trim",
        "--all", "--force", "--past-consumers", "--replace", "--unset",
    )
)  # fmt: skip


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`; None if there is none, or if it is destructive."""
    close = nearest(word, known)
    return None if close in DESTRUCTIVE else close


def no_command(ctx: Any, word: str, known: Iterable[str]) -> VecError:
    """The error for a word that is not a command of the group of `ctx`."""
    close = suggestion(word, known)
    hint = f"did you mean {close!r}? " if close else ""
    return VecError(Code.INVALID_REQUEST, f"no such command: {ctx.command_path} {word}", f"{hint}see {_help(ctx)}")


def as_error(error: Any) -> VecError:
    """The error for a usage error of Typer's parser."""
    ctx = error.ctx
    if ctx is None:
        return VecError(Code.INVALID_REQUEST, _lowered(error.format_message()))
    hint, option = f"see {_help(ctx)}", getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        return VecError(Code.INVALID_REQUEST, f"no such option: {option}", f"{_other(ctx, option)}{hint}")
    message = _lowered(error.format_message())
    if message == "missing command":
        hint = f"its commands are {', '.join(ctx.command.list_commands(ctx))}; {hint}"
    for theirs, ours in _PHRASES:
        message = message.replace(theirs, ours)
    return VecError(Code.INVALID_REQUEST, message, hint)


#: Phrases of Typer's parser, and those that replace them.
_PHRASES = (
    ("is not a valid int range", "is not a whole number"),
    ("is not a valid integer range", "is not a whole number"),
    ("is not a valid int", "is not a whole number"),
    ("is not a valid float range", "is not a number"),
    ("is not a valid float", "is not a number"),
    ("extra argument(s)", "extra arguments"),
)


def _lowered(message: str) -> str:
    message = " ".join(message.split()).rstrip(".")
    message = re.sub(r"is not in the range (\S+)<=x<=(\S+)", r"is not from \1 to \2", message)
    message = re.sub(r"is not in the range x>=(\S+)", r"is less than \1", message)
    return message[:1].lower() + message[1:]


def _other(ctx: Any, option: str) -> str:
    """What may have been meant by an option that does not exist: another option, or an argument."""
    close = suggestion(option, [name for each in ctx.command.get_params(ctx) for name in each.opts])
    if close and close.startswith("--"):
        return f"did you mean {close}? "
    if any(each.param_type_name == "argument" for each in ctx.command.params):
        given = next((each for each in sys.argv[1:] if each.startswith(option)), option)
        return f"put an argument that begins with - after --: {ctx.command_path} -- {given}; "
    return ""


def without_suggestion(error: VecError) -> VecError:
    """The error of this run; without a similar name if it was to delete or reset something of another name."""
    if (error.hint or "").startswith("did you mean") and DESTRUCTIVE & set(sys.argv[1:4]):
        return VecError(error.code, error.message, **error.details)
    return error


def _help(ctx: Any) -> str:
    """The command that prints the help of the command of `ctx`."""
    _, *words = ctx.command_path.split()
    return f"`{' '.join(('vec help', *words))}`"
