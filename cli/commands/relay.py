"""vec relay: carries the log to a broker: Redis Streams, Kafka, RabbitMQ, a webhook, a file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import connectors as common
from .. import options
from ..output import Output, plural

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The relay's name.", autocompletion=options.names("relay"))]


class Format(StrEnum):
    """The form of the messages."""

    VEC = "vec"
    CLOUDEVENTS = "cloudevents"


@app.callback()
def relay() -> None:
    """Carry the log to a message broker."""


@app.command(epilog="Exit status: 1 a relay with this name exists, 2 usage, 4 no such library. See vec-connectors(7).")
def add(
    name: Name,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where the events go, as redis://HOST/STREAM. See vec-connectors(7).")
    ],
    library: Annotated[
        list[str] | None,
        typer.Option(
            "--library",
            "-l",
            help="Only events of this library. Can be repeated.",
            metavar="NAME",
            autocompletion=options.names("library"),
        ),
    ] = None,
    type: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="Only events of this type, or a glob, as 'document.*'. Can be repeated.",
            metavar="TYPE",
            autocompletion=options.names("type"),
        ),
    ] = None,
    where: options.Where = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="beginning, now, a cursor, an RFC 3339 time, or a relative time, as -15m.",
            metavar="POSITION",
        ),
    ] = "now",
    payload: Annotated[
        bool, typer.Option("--payload", help="Include the documents, after and before each change.")
    ] = False,
    vectors: Annotated[bool, typer.Option("--vectors", help="Include the documents with their vectors.")] = False,
    format: Annotated[Format, typer.Option("--format", help="The form of the messages.")] = Format.VEC,
    param: common.Params = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not start before `vec relay resume`.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add a relay, which runs in the daemon from now on."""
    parameters = common.parameters_of(param, socket)
    with options.open_client(socket, no_spawn) as client:
        body = client.add_relay(
            name, url, parameters=parameters, format=format.value, libraries=library or (), types=type or (),
            where=where or (), payload=payload, vectors=vectors, start=start, paused=paused,
        )  # fmt: skip
    Output(json).one(body, f"relay {name} starts after {body['cursor']}; see `vec relay list`")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the relays with their lags, rates and errors."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.relays()
    if output.json:
        output.objects(found)
        return
    columns = ("relay", "url", "lag", "per s", "dead", "state")
    rows: list[tuple[Any, ...]] = [
        (each["name"], each["url"], each["lag"], each["rate"], each["dead_letters"], each["state"]) for each in found
    ]
    common.show_all(output, "relay", columns, rows, found)


@app.command(epilog="Exit status: 4 no such relay.")
def show(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show a relay: its definition, its state and its last error."""
    with options.open_client(socket, no_spawn) as client:
        body = client.relay(name)
    common.show(Output(json), body)


@app.command(epilog="Exit status: 4 no such relay.")
def pause(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Stop a relay, which keeps its position."""
    with options.open_client(socket, no_spawn) as client:
        body = client.pause_relay(name)
    Output(json).one(body, f"relay {name} is paused; its cursor is {body['cursor']}")


@app.command(epilog="Exit status: 4 no such relay.")
def resume(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Continue a relay that is paused."""
    with options.open_client(socket, no_spawn) as client:
        body = client.resume_relay(name)
    Output(json).one(body, f"relay {name} continues after {body['cursor']}")


@app.command(epilog="Exit status: 4 no such relay, 5 history lost.")
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
    """Move a relay to another position of the log."""
    with options.open_client(socket, no_spawn) as client:
        body = client.reset_relay(name, to)
    Output(json).one(body, f"relay {name} continues after {body['cursor']}")


@app.command(epilog="Exit status: 4 no such relay.")
def dead(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """List the dead letters: events that the broker has refused."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        common.show_letters(output, client.relay_dead_letters(name, bodies=output.json))


@app.command(epilog="Exit status: 2 usage, 4 no such relay.")
def retry(
    name: Name,
    letter: common.LetterIds = None,
    all_: common.All = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Send dead letters again; those that are delivered leave the list."""
    ids = common.chosen(letter, all_)
    with options.open_client(socket, no_spawn) as client:
        count = client.retry_relay_letters(name, ids)
    Output(json).one({"retrying": count}, f"{plural(count, 'dead letter')} to be sent again")


@app.command(epilog="Exit status: 2 usage, 4 no such relay.")
def drop(
    name: Name,
    letter: common.LetterIds = None,
    all_: common.All = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete dead letters."""
    ids = common.chosen(letter, all_)
    with options.open_client(socket, no_spawn) as client:
        count = client.drop_relay_letters(name, ids)
    Output(json).one({"dropped": count}, f"{plural(count, 'dead letter')} deleted")


@app.command(epilog="Its position and its dead letters are deleted. Exit status: 4 no such relay.")
def remove(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Remove a relay."""
    with options.open_client(socket, no_spawn) as client:
        body = client.remove_relay(name)
    Output(json).one(body, f"relay {name} removed; its cursor was {body['cursor']}")
