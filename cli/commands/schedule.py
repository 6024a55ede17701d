"""vec jobs schedule: add, list, run and remove schedules, which submit recurring jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .. import jobs as common
from .. import options
from ..output import Output

app = options.command()

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The schedule's name.", autocompletion=options.names("schedule"))
]


class Missed(StrEnum):
    """How to treat times at which the daemon was not running."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


@app.callback()
def schedule() -> None:
    """Manage schedules, which submit jobs at recurring times."""


@app.command(epilog="Exit status: 1 a schedule with this name exists, 2 usage, 4 no such library.")
def add(
    name: Name,
    cron: Annotated[
        str, typer.Argument(metavar="CRON", help="A cron expression: five fields, as '0 3 * * *', or @daily.")
    ],
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="The kind of job; see `vec jobs kinds`.", autocompletion=options.names("kind")
        ),
    ],
    library: common.LibraryName = None,
    param: common.Params = None,
    where: common.Where = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", help="The time zone, as Europe/Berlin. Default: the system's.", metavar="ZONE"),
    ] = None,
    missed: Annotated[
        Missed, typer.Option("--missed", help="How to treat times at which the daemon was not running.")
    ] = Missed.ONCE,
    priority: common.Priority = 0,
    timeout: common.Timeout = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing schedule with this name.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add a schedule."""
    params = common.params_of(param, where, socket)
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "schedule.add", name=name, cron=cron, kind=kind, params=params, library=library, zone=zone,
            missed=missed.value, priority=priority, timeout_s=common.seconds(timeout),
            replace=replace or None,
        )  # fmt: skip
    Output(json).one(body, f"schedule {name}: {kind}, next at {body['next_at']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List schedules, including those of the daemon's maintenance."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.schedules()
    if output.json:
        output.objects(found)
        return
    columns = ("schedule", "when", "kind", "library", "next at", "last job", "")
    rows = [
        (
            each["name"], each["cron"], each["kind"], each["library"],
            (each["next_at"] or "never")[:19].replace("T", " "), each["last_job"], each["error"] or "",
        )
        for each in found
    ]  # fmt: skip
    output.table(columns, rows)


@app.command(epilog="Exit status: 4 no such schedule.")
def run(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Submit the job of a schedule now; the jobs of a schedule never overlap."""
    with options.open_client(socket, no_spawn) as client:
        job = client.run_schedule(name)
    Output(json).one(job, f"job {job['job_id']}")


@app.command(epilog="Its jobs remain. Exit status: 4 no such schedule.")
def remove(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Remove a schedule."""
    with options.open_client(socket, no_spawn) as client:
        body = client.remove_schedule(name)
    Output(json).one(body, f"schedule {name} removed")
