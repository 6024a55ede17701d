"""vec trim: deletes the oldest events of the log."""

from __future__ import annotations

from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output, plural, size

app = options.command()


@app.command(epilog="Exit status: 0 done (also if there was nothing to trim), 2 usage. See vec-trim(1).")
def trim(
    keep_age: Annotated[
        str | None, typer.Option("--keep-age", help="Keep events that are younger: 7d, 12h.", metavar="AGE")
    ] = None,
    keep_count: Annotated[
        int | None, typer.Option("--keep-count", min=0, help="Keep so many events.", metavar="N")
    ] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option(
            "--keep-bytes", help="Keep events of this size, with what only they refer to: 2GB.", metavar="SIZE"
        ),
    ] = None,
    past_consumers: Annotated[
        bool, typer.Option("--past-consumers", help="Do not stop at the slowest consumer.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the space is free.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete the oldest events of the log."""
    from vecd.units import duration_s, size_bytes

    if keep_age is None and keep_count is None and keep_bytes is None:
        raise VecError(
            Code.INVALID_REQUEST,
            "a trim must be told how much to keep",
            "give --keep-age, --keep-count or --keep-bytes; --keep-count 0 keeps nothing",
        )
    age_s = None if keep_age is None else duration_s(keep_age)
    bytes_kept = None if keep_bytes is None else size_bytes(keep_bytes)
    with options.open_client(socket, no_spawn) as client:
        body = client.trim(
            keep_age_s=age_s, keep_count=keep_count, keep_bytes=bytes_kept, past_consumers=past_consumers, wait=wait
        )
    held = f"; consumer {body['held_by']} holds the rest" if body["held_by"] else ""
    told = f"{plural(body['trimmed'], 'event')} trimmed; the log begins behind {body['oldest']}{held}"
    Output(json).one(body, f"{told}\nthe store has {size(body['bytes'])}, {size(body['free_bytes'])} of them free")
