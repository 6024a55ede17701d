"""vec backup: submits a job of the kind backup and waits for it."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import jobs, options
from ..output import Output, size

app = options.command()


@app.command(epilog="Exit status: 0 the backup is complete, 1 it failed, 2 usage error. See vec-backup(1).")
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write; an existing file is replaced.")],
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Copy the store to a file while the daemon runs."""
    hint = "run it there; or submit the job with a path there: vec jobs submit backup -p path=/PATH --wait"
    options.only_local(socket, "'vec backup' writes a file on the machine of the daemon", hint)
    found = jobs.run(socket, no_spawn, "backup", {"path": jobs.absolute(file)})
    Output(json).one(found, f"{found['path']}: {size(found['bytes'])}, log up to event {found['seq']:,}")
