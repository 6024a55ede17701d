"""vec source: writes the messages of a broker to a library: Redis Streams, Kafka, RabbitMQ, NATS, a file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import connectors as common
from .. import options
from ..output import Output, plural

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The source's name.", autocompletion=options.names("source"))]


class Start(StrEnum):
    """Where a source begins without a stored offset."""

    EARLIEST = "earliest"
    LATEST = "latest"


@app.callback()
def source() -> None:
    """Write the messages of a broker to a library."""


@app.command(
    epilog="Without --map, a message is a document or a delete, as in `vec ingest`, or an event of a relay with"
    " --payload. Exit status: 1 a source with this name exists, 2 usage. See vec-connectors(7)."
)
def add(
    name: Name,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Where the messages are, as redis://HOST/STREAM. See vec-connectors(7)."),
    ],
    library: options.Library = "default",
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", help="The group that shows the position at the broker.", metavar="GROUP"),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            "-m",
            help="Where a field of the document is in the message: id=url, text=title,body, metadata=rest."
            " Can be repeated.",
            metavar="FIELD=PATH",
        ),
    ] = None,
    from_library: Annotated[
        list[str] | None,
        typer.Option("--from-library", help="Only events of this library. Can be repeated.", metavar="NAME"),
    ] = None,
    param: common.Params = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not start before `vec source resume`.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add a source, which runs in the daemon from now on."""
    parameters = common.parameters_of(param, socket)
    mapping = options.pairs("--map", rule, "FIELD=PATH")
    with options.open_client(socket, no_spawn) as client:
        body = client.add_source(
            name, url, library=library, group=group, mapping=mapping, libraries=from_library or (),
            parameters=parameters, paused=paused,
        )  # fmt: skip
    Output(json).one(body, f"source {name}: writes to library {library}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the sources with their lags, rates and errors."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.sources()
    if output.json:
        output.objects(found)
        return
    columns = ("source", "url", "library", "lag", "per s", "dead", "state")
    rows: list[tuple[Any, ...]] = [
        (
            each["name"], each["url"], each["library"], each["lag"], each["rate"], each["dead_letters"], each["state"],
        )
        for each in found
    ]  # fmt: skip
    common.show_all(output, "source", columns, rows, found)


@app.command(epilog="Exit status: 4 no such source.")
def show(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show a source, its offsets and its last error."""
    with options.open_client(socket, no_spawn) as client:
        body = client.source(name)
    common.show(Output(json), body)


@app.command(epilog="Its messages stay with the broker. Exit status: 4 no such source.")
def pause(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Stop a source until it is resumed."""
    with options.open_client(socket, no_spawn) as client:
        body = client.pause_source(name)
    Output(json).one(body, f"source {name} paused")


@app.command(epilog="Exit status: 4 no such source.")
def resume(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Let a paused source continue."""
    with options.open_client(socket, no_spawn) as client:
        body = client.resume_source(name)
    Output(json).one(body, f"source {name} resumed")


@app.command(
    epilog="Documents stay as they are; messages that were applied before are applied again. Exit status: 4 no such"
    " source."
)
def reset(
    name: Name,
    start: Annotated[
        Start | None, typer.Option("--to", help="Where to begin. Default: as the parameter `start` says.")
    ] = None,
    offset: Annotated[
        list[str] | None,
        typer.Option(
            "--offset",
            help="The last message of a partition that is not to be applied again. Can be repeated.",
            metavar="PARTITION=OFFSET",
        ),
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Let a source begin again, or at other offsets."""
    offsets = options.pairs("--offset", offset, "PARTITION=OFFSET")
    with options.open_client(socket, no_spawn) as client:
        body = client.reset_source(name, start=start.value if start else None, offsets=offsets)
    Output(json).one(body, f"source {name} reset")


@app.command(epilog="Its offsets and its dead letters are deleted; the documents stay. Exit status: 4 no such source.")
def remove(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Remove a source."""
    with options.open_client(socket, no_spawn) as client:
        body = client.remove_source(name)
    Output(json).one(body, f"source {name} removed; {plural(body['dead_letters'], 'dead letter')} with it")


@app.command(epilog="In JSON, each has its message as text in `body`. Exit status: 4 no such source.")
def dead(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """List the messages that a source could not apply."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        common.show_letters(output, list(client.source_dead_letters(name, bodies=output.json)))


@app.command(
    epilog="A message that fails again stays a dead letter, with the new reason. Exit status: 4 no such source."
)
def retry(
    name: Name,
    letters: common.LetterIds = None,
    all_: common.All = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Apply dead letters once more."""
    chosen = common.chosen(letters, all_)
    with options.open_client(socket, no_spawn) as client:
        count = client.retry_source_letters(name, chosen)
    Output(json).one({"retrying": count}, f"{plural(count, 'dead letter')} to be retried")


@app.command(epilog="Exit status: 4 no such source.")
def drop(
    name: Name,
    letters: common.LetterIds = None,
    all_: common.All = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete dead letters."""
    chosen = common.chosen(letters, all_)
    with options.open_client(socket, no_spawn) as client:
        count = client.drop_source_letters(name, chosen)
    Output(json).one({"dropped": count}, f"{plural(count, 'dead letter')} dropped")
