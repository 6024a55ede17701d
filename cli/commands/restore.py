"""vec restore: a backup in the place of the store. No daemon may run, so a process of its own does it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import jobs, options
from ..output import Output, plural, size

app = options.command()


@app.command(
    epilog="Exit status: 0 restored, 1 the backup is damaged, or there is a store and no --force, 2 it is no backup,"
    " 4 there is no such file, 75 a daemon runs. See vec-restore(1)."
)
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that vec backup made; may be gzipped.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also if there is a store that holds something; it is kept beside.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Put a backup in the place of the store, while the daemon is stopped."""
    import json as codec
    import subprocess

    from vecd.settings import load

    load()  # what is wrong with the settings is told by us
    command = [sys.executable, "-P", "-m", "vecd.restore", jobs.absolute(file), *(["--force"] if force else [])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        told = codec.loads(done.stdout)
    except ValueError:
        if done.returncode < 0:
            raise VecError(Code.INTERNAL, f"the restore was ended by signal {-done.returncode}") from None
        raise VecError(Code.INTERNAL, "the restore failed; its traceback is above") from None
    if "error" in told:
        raise VecError.from_wire(told["error"])
    held = f"{plural(told['documents'], 'document')}, the log up to {told['seq']:,}"
    kept = f"; the old store is in {told['replaced']}" if told["replaced"] else ""
    Output(json).one(told, f"{told['path']}: {size(told['bytes'])}, {held}{kept}")
