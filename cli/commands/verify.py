"""vec verify: submits a job of the kind verify and waits for it."""

from __future__ import annotations

from .. import jobs, options
from ..output import Output, plural

app = options.command()


@app.command(epilog="Exit status: 0 no problems, 1 problems were found (reported on stderr). See vec-verify(1).")
def verify(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """Check the integrity of the store, the log and the indexes."""
    found = jobs.run(socket, no_spawn, "verify", {})
    told = f"{plural(found['documents'], 'document')} and {plural(found['events'], 'event')} checked, no problems found"
    Output(json).one(found, told)
