"""vec verify: whether the store, the log and the indexes agree. A job of the kind verify, waited for."""

from __future__ import annotations

from .. import jobs, options
from ..output import Output, plural

app = options.command()


@app.command(epilog="Exit status: 0 all is well, 1 something is wrong (named on stderr). See vec-verify(1).")
def verify(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """Check the store against its checksums, its log and the indexes."""
    found = jobs.run(socket, no_spawn, "verify", {})
    told = f"{plural(found['documents'], 'document')} and {plural(found['events'], 'event')} checked, all is well"
    Output(json).one(found, told)
