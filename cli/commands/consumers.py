"""vec consumers: lists, resets and deletes the cursors that the daemon stores."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options
from ..output import Output

app = options.command()

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The consumer's name.", autocompletion=options.names("consumer"))
]


@app.callback()
def consumers() -> None:
    """List, reset and delete named consumers."""


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the consumers with their cursors, lags and holders."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.consumers()
    if output.json:
        output.objects(found)
        return
    output.table(
        ("consumer", "cursor", "lag", "held by", "acknowledged"),
        [(each["name"], each["cursor"], each["lag"], each["holder"], each["acked_at"]) for each in found],
    )


@app.command(epilog="Exit status: 4 no such consumer, 5 history lost, 75 the consumer is held. See vec-consumers(1).")
def reset(
    name: Name,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="beginning, now, a cursor, an RFC 3339 time, or a relative time, as -15m.", metavar="POSITION"
        ),
    ],
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Move a consumer to another position."""
    with options.open_client(socket, no_spawn) as client:
        body = client.reset_consumer(name, to)
    Output(json).one(body, f"consumer {name} resumes from {body['cursor']}")


@app.command(epilog="Exit status: 4 no such consumer, 75 the consumer is held. See vec-consumers(1).")
def delete(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Delete a consumer."""
    with options.open_client(socket, no_spawn) as client:
        body = client.delete_consumer(name)
    Output(json).one(body, f"consumer {name} deleted; its cursor was {body['cursor']}")
