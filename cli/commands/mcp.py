"""vec mcp: serves libraries to an assistant by the Model Context Protocol, on stdin and stdout."""

from __future__ import annotations

from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import options

app = options.command()


@app.command(epilog="Assistants start it. Exit status: 0 the input has ended, 2 the extra is missing. See vec-mcp(1).")
def mcp(
    library: Annotated[
        list[str] | None,
        typer.Option(
            "--library",
            "-l",
            help="Only this library. Can be repeated. Default: all.",
            metavar="NAME",
            autocompletion=options.names("library"),
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Let the assistant write documents. Default: read only.")
    ] = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Serve libraries to an assistant by the Model Context Protocol (MCP)."""
    try:
        from ..mcp_server import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "pydantic"):
            raise
        raise VecError(
            Code.UNSUPPORTED, "the Model Context Protocol needs the Python package mcp, version 2",
            "pip install 'vecd[mcp]'",
        ) from error  # fmt: skip
    serve(lambda: options.open_client(socket, no_spawn), library or (), write)
