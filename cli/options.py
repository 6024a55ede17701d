"""Options that several commands share, and the connection that they describe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vecd.client import Client

Library = Annotated[str, typer.Option("--library", "-l", help="The library to work on.", metavar="NAME")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        help="Only documents for which this holds: 'year >= 2020'. May be repeated.",
        metavar="FILTER",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print NDJSON, also on a terminal.")]
Socket = Annotated[str | None, typer.Option("--socket", help="The daemon's socket.", metavar="PATH")]
NoSpawn = Annotated[bool, typer.Option("--no-spawn", help="Do not start a daemon if none answers.")]


def command() -> typer.Typer:
    """A Typer for one command module, with the settings that all of them share."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def finite(value: float | None) -> float | None:
    """A callback of options that are numbers. Raises typer.BadParameter, which names the option, for inf and nan."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"it must be a finite number, not {value}")
    return value


def open_client(socket: str | None, no_spawn: bool) -> Client:
    """A connection, as --socket and --no-spawn want it."""
    from vecd.client import connect

    client = connect(socket, spawn=not no_spawn, notice=say)
    client.on_warnings = _warn
    return client


def _warn(warnings: list[str]) -> None:
    """Prints an answer's warnings on stderr. A filter may be put together of what somebody else wrote."""
    for each in warnings:
        say(f"warning: {each}")


def say(line: str) -> None:
    """Prints a line on stderr."""
    import sys

    from .output import printable

    print(f"vec: {printable(line)}", file=sys.stderr, flush=True)
