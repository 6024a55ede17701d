"""vec ingest: writes documents from NDJSON; pipeline.py sends them, spool.py submits them as a job."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from vecd import limits
from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output
from ..progress import Progress

app = options.command()


@app.command(
    epilog="Exit status: 0 success, 3 some lines were rejected, 75 temporary failure, try again. See vec-ingest(1)."
)
def ingest(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="NDJSON files, can be compressed; - or none: stdin.")
    ] = None,
    library: options.Library = "default",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first rejected line.")] = False,
    ack: Annotated[bool, typer.Option("--ack", help="Print a line for each acknowledged document.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=limits.BATCH_DOCUMENTS_MAX, help="Documents per request.", metavar="N")
    ] = 512,
    background: Annotated[
        bool, typer.Option("--background", help="Submit an ingest job, print its id, and exit.")
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add, update and delete documents: NDJSON from files or stdin."""
    paths = files or []
    if not paths and sys.stdin.isatty():
        print("vec: reading documents from the terminal; end with Ctrl-D", file=sys.stderr)
    output = Output(json)
    if background:
        from .. import spool

        if ack:
            raise VecError(
                Code.INVALID_REQUEST,
                "--ack cannot be combined with --background",
                "vec jobs logs prints the rejected lines",
            )
        what = "--background gives the daemon files of its own machine"
        options.only_local(socket, what, "ingest without --background: the documents are sent over the connection")
        with options.open_client(socket, no_spawn) as client:
            if not client.limits.get("create"):
                client.count(library)  # reports a missing library before any input is read
            job = spool.submit(client, paths, library, strict)
        output.one({"job_id": job["job_id"]}, f"job {job['job_id']}")
        return
    from vecd.wire.ingest_batch import STATUSES

    from ..pipeline import Pipeline

    progress = Progress(paths)
    run = Pipeline(
        lambda: options.open_client(socket, no_spawn), library, output, progress,
        strict=strict, ack=ack, batch=batch, name_files=len(paths) > 1,
    )  # fmt: skip
    started = time.monotonic()
    failure: BaseException | None = None
    try:
        with progress:
            run.run(paths)
    except (VecError, KeyboardInterrupt) as error:
        failure = error
    counts, elapsed_s = run.counts, time.monotonic() - started
    done = sum(counts[status] for status in STATUSES[:-1])
    summary = {**{status: counts[status] for status in STATUSES}, "seq": run.seq, "elapsed_s": round(elapsed_s, 3)}
    told = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status]) or "nothing"
    output.one(summary, f"{told} in {elapsed_s:.1f} s ({done / max(elapsed_s, 1e-9):,.0f}/s)")
    if isinstance(failure, VecError):
        raise failure
    if failure is not None or run.interrupted:
        raise typer.Exit(main.INTERRUPTED)
    if counts["failed"]:
        raise typer.Exit(main.PARTLY)
