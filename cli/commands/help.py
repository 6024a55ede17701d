"""vec help: the help of vec or of a command, as --help prints it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import options

app = options.command()


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """The commands that can follow those already on the command line."""
    group: Any = ctx.parent and ctx.parent.command
    for word in ctx.params.get("command") or ():
        group = group.get_command(ctx, word) if hasattr(group, "list_commands") else None
    names = group.list_commands(ctx) if hasattr(group, "list_commands") else []
    return [name for name in names if name.startswith(incomplete)]


@app.command(epilog="Exit status: 0 success, 2 unknown command. See vec-help(1).")
def help(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="A command, as 'library create'.", autocompletion=_complete),
    ] = None,
) -> None:
    """Print the help of vec or of a command."""
    context: Any = ctx.parent
    for word in command or ():
        group = context.command
        known = group.list_commands(context) if hasattr(group, "list_commands") else []
        if word not in known:
            from ..usage_errors import no_command

            raise no_command(context, word, known)
        found = group.get_command(context, word)
        context = found.make_context(word, [], parent=context, resilient_parsing=True)
    print(context.get_help())
