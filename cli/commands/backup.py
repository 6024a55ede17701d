"""vec backup: a copy of the store. A job of the kind backup, waited for."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import jobs, options
from ..output import Output, size

app = options.command()


@app.command(epilog="Exit status: 0 the file is whole and on disk, 1 it could not be made, 2 usage. See vec-backup(1).")
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where the copy goes; what is there is replaced.")],
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Copy the store to a file, while everything goes on."""
    found = jobs.run(socket, no_spawn, "backup", {"path": jobs.absolute(file)})
    Output(json).one(found, f"{found['path']}: {size(found['bytes'])}, the log up to {found['seq']:,}")
