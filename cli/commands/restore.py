"""vec restore: replaces the store with a backup. The daemon must be stopped, so a separate process does the work."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import jobs, options
from ..output import Output, plural, size

app = options.command()


@app.command(
    epilog="Exit status: 0 success, 1 the backup is damaged, or the store is not empty and --force is missing, 2 not a"
    " backup, 4 no such file, 75 a daemon is running. See vec-restore(1)."
)
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file made by vec backup; can be gzipped.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a store that is not empty; the old store is kept.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Replace the store with a backup while the daemon is stopped."""
    import json as codec
    import subprocess

    from vecd.settings import load

    load()  # reports invalid settings in this process
    command = [sys.executable, "-P", "-m", "vecd.restore", jobs.absolute(file), *(["--force"] if force else [])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        told = codec.loads(done.stdout)
    except ValueError:
        if done.returncode < 0:
            raise VecError(Code.INTERNAL, f"the restore process was killed by signal {-done.returncode}") from None
        raise VecError(Code.INTERNAL, "the restore process failed; see the traceback above") from None
    if "error" in told:
        raise VecError.from_wire(told["error"])
    held = f"{plural(told['documents'], 'document')}, log up to event {told['seq']:,}"
    kept = f"; the old store is in {told['replaced']}" if told["replaced"] else ""
    Output(json).one(told, f"{told['path']}: {size(told['bytes'])}, {held}{kept}")
