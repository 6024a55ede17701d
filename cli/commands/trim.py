"""vec trim: deletes the oldest events from the log."""

from __future__ import annotations

from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output, plural, size

app = options.command()


@app.command(epilog="Exit status: 0 success, even if there was nothing to trim, 2 usage error. See vec-trim(1).")
def trim(
    keep_age: Annotated[
        str | None, typer.Option("--keep-age", help="Keep events younger than this: 7d, 12h.", metavar="AGE")
    ] = None,
    keep_count: Annotated[
        int | None, typer.Option("--keep-count", min=0, help="Keep the newest N events.", metavar="N")
    ] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option("--keep-bytes", help="Keep the newest events up to this size: 2GB.", metavar="SIZE"),
    ] = None,
    past_consumers: Annotated[bool, typer.Option("--past-consumers", help="Trim past the slowest consumer.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the space has been returned.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete the oldest events from the log."""
    from vecd.units import duration_s, size_bytes

    if keep_age is None and keep_count is None and keep_bytes is None:
        raise VecError(
            Code.INVALID_REQUEST,
            "no limit was specified",
            "use --keep-age, --keep-count or --keep-bytes; --keep-count 0 keeps nothing",
        )
    age_s = None if keep_age is None else duration_s(keep_age)
    bytes_kept = None if keep_bytes is None else size_bytes(keep_bytes)
    with options.open_client(socket, no_spawn) as client:
        body = client.trim(
            keep_age_s=age_s, keep_count=keep_count, keep_bytes=bytes_kept, past_consumers=past_consumers, wait=wait
        )
    held = f"; consumer {body['held_by']} still needs the rest" if body["held_by"] else ""
    told = f"{plural(body['trimmed'], 'event')} trimmed; the log begins after {body['oldest']}{held}"
    Output(json).one(body, f"{told}\nthe store has {size(body['bytes'])}, of which {size(body['free_bytes'])} are free")
