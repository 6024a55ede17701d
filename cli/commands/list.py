"""vec list: lists the documents of a library, without the text of their chunks."""

from __future__ import annotations

import typer

from .. import options
from ..output import Output, as_json

app = options.command()


@app.command("list", epilog="Exit status: 0 success, 2 usage error, 4 no such library. See vec-list(1).")
def list_(
    library: options.Library = "default",
    where: options.Where = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """List the documents of a library, or those that match a filter, by id."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        documents = client.documents(library, where=where or ())
        if output.json:
            output.objects(documents)
            return
        from itertools import islice

        # A table is for inspection; a complete list of a large library goes to a pipe.
        shown = list(islice(documents, 1_000))
        rows = [
            (each["id"], each["title"], each["chunks"], as_json(each["metadata"]) if each["metadata"] else "")
            for each in shown
        ]
        output.table(("id", "title", "chunks", "metadata"), rows)
        if len(shown) == 1_000:
            typer.echo("showing the first 1,000 documents; use --json or a pipe for all", err=True)
