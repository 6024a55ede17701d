"""vec serve: the HTTP gateway, in the foreground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from .. import options
from ..output import Output

app = options.command()


@app.command(epilog="Exit status: 0 stopped by a signal, 2 invalid settings, 69 no daemon. See vec-serve(1).")
def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", help="HOST:PORT, [IPV6]:PORT or unix:PATH. Can be repeated.", metavar="ADDRESS"),
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Serve HTTP and WebSockets, until it is stopped by a signal."""
    from vecd.http.__main__ import serve_in_foreground
    from vecd.settings import load

    settings = load(socket=socket)
    output = Output(json)

    def ready(urls: Sequence[str]) -> None:
        for url in urls:
            output.one({"url": url}, f"listening on {url}")

    serve_in_foreground(settings, listen or (), spawn=not no_spawn, ready=ready)
