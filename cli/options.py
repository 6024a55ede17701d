"""Options that several commands share, and the client connection that --socket and --no-spawn configure."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vecd.client import Client


def names(what: str) -> Callable[..., Any]:
    """An `autocompletion` for the names of a kind of thing in completion.NAMES, asked of the running daemon."""

    def complete(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
        from .completion import names

        return names(what, ctx, incomplete)

    return complete


Library = Annotated[
    str, typer.Option("--library", "-l", help="The library.", metavar="NAME", autocompletion=names("library"))
]
Libraries = Annotated[
    list[str] | None,
    typer.Option(
        "--library",
        "-l",
        help="The library; can be repeated. all: all libraries.",
        metavar="NAME",
        autocompletion=names("library"),
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        help="Only documents that match this filter: 'year >= 2020'. Can be repeated.",
        metavar="FILTER",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print NDJSON even on a terminal.")]
Socket = Annotated[str | None, typer.Option("--socket", help="The path of the daemon's socket.", metavar="PATH")]
NoSpawn = Annotated[bool, typer.Option("--no-spawn", help="Do not start a daemon if none is running.")]


class Group(TyperGroup):
    """A group of commands. An unknown command is an error in the style of all others."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from .usage_errors import no_command

            raise no_command(ctx, args[0], known)
        return super().resolve_command(ctx, args)


class _Commands(typer.Typer):
    """A Typer that evaluates the annotations of a command once. Typer itself compiles each of them four times, which
    takes as long as importing the client."""

    def command(self, *args: Any, **settings: Any) -> Any:
        register = super().command(*args, **settings)

        def evaluated(function: Any) -> Any:
            function.__annotations__ = inspect.get_annotations(function, eval_str=True)
            return register(function)

        return evaluated


def command() -> typer.Typer:
    """Returns a Typer for a command module, with the settings that all command modules share."""
    return _Commands(
        cls=Group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def finite(value: float | None) -> float | None:
    """An option callback that rejects inf and nan. Raises typer.BadParameter, which names the option."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"must be a finite number, not {value}")
    return value


def pairs(option: str, given: Sequence[str] | None, form: str = "NAME=VALUE") -> dict[str, str]:
    """Parses the values NAME=VALUE of an option; `form` is what they look like, for messages. Raises VecError
    `invalid_request`."""
    from vecd.errors import Code, VecError

    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals:
            raise VecError(Code.INVALID_REQUEST, f"{option} {each!r:.60} is not {form}", f"write {option} {form}")
        if name in found:
            raise VecError(Code.INVALID_REQUEST, f"{option} {name!r:.60} is given twice")
        found[name] = value
    return found


def open_client(socket: str | None, no_spawn: bool) -> Client:
    """Connects as --socket, --no-spawn and --connect request. Raises VecError."""
    from vecd.client import connect

    client = connect(socket, spawn=not no_spawn, notice=say)
    client.on_warnings = _warn
    return client


def remote(socket: str | None) -> bool:
    """Whether `open_client(socket, …)` connects to a gateway, which may be on another machine."""
    from vecd.client.connect import gateway_url

    return gateway_url(socket) is not None


def only_local(socket: str | None, what: str, hint: str) -> None:
    """Refuses what a gateway cannot do. Raises VecError `invalid_request`."""
    from vecd.client.connect import gateway_url
    from vecd.errors import Code, VecError

    if (url := gateway_url(socket)) is not None:
        raise VecError(Code.INVALID_REQUEST, f"{what}, and --connect or VEC_CONNECT names the gateway {url}", hint)


def _warn(warnings: list[str]) -> None:
    """Prints the warnings of an answer on stderr. They can quote untrusted text of a filter."""
    for each in warnings:
        say(f"warning: {each}")


def say(line: str) -> None:
    """Prints a line on stderr, with control characters escaped."""
    import sys

    from .output import printable

    print(f"vec: {printable(line)}", file=sys.stderr, flush=True)
