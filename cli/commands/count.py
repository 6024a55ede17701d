"""vec count: prints the number of documents and chunks of a library, or of those that match a filter."""

from __future__ import annotations

from .. import options
from ..output import Output, plural

app = options.command()


@app.command(epilog="Exit status: 0 success, 2 usage error, 4 no such library. See vec-count(1).")
def count(
    library: options.Library = "default",
    where: options.Where = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Count the documents and chunks of a library, or those that match a filter."""
    with options.open_client(socket, no_spawn) as client:
        body = client.count(library, where=where or ())
    body.pop("warnings", None)  # on stderr
    Output(json).one(body, f"{library}: {plural(body['documents'], 'document')}, {plural(body['chunks'], 'chunk')}")
