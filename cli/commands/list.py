"""vec list: the documents of a library, without their chunks' text."""

from __future__ import annotations

import typer

from .. import options
from ..output import Output, as_json

app = options.command()


@app.command("list", epilog="Exit status: 0 done, 2 usage, 4 no such library. See vec-list(1).")
def list_(
    library: options.Library = "default",
    where: options.Where = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """List a library's documents, or those that a filter lets through, by id."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        documents = client.documents(library, where=where or ())
        if output.json:
            output.objects(documents)
            return
        from itertools import islice

        # A table is for looking: people who want all of a large library want a pipe.
        shown = list(islice(documents, 1_000))
        rows = [
            (each["id"], each["title"], each["chunks"], as_json(each["metadata"]) if each["metadata"] else "")
            for each in shown
        ]
        output.table(("id", "title", "chunks", "metadata"), rows)
        if len(shown) == 1_000:
            typer.echo("the first 1,000; for all of them: vec list | cat", err=True)
