"""vec jobs schedule: manages schedules, which submit jobs at the times of a cron line."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .. import jobs as common
from .. import options
from ..output import Output

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


class Missed(StrEnum):
    """What becomes of times at which the daemon did not run."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


@app.callback()
def schedule() -> None:
    """Submit jobs again and again, at times that a cron line says."""


@app.command(epilog="Exit status: 1 there is one of that name already, 2 usage, 4 no such library.")
def add(
    name: Name,
    cron: Annotated[str, typer.Argument(metavar="CRON", help="Five fields, as '0 3 * * *'; or @daily and the like.")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What is to be done; see vec-jobs(1).")],
    library: common.LibraryName = None,
    param: common.Params = None,
    where: common.Where = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", help="The time zone, as Europe/Berlin. Default: the machine's.", metavar="ZONE"),
    ] = None,
    missed: Annotated[
        Missed, typer.Option("--missed", help="What becomes of times at which the daemon did not run.")
    ] = Missed.ONCE,
    priority: common.Priority = 0,
    timeout: common.Timeout = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of one of that name.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add a schedule."""
    params = common.params_of(param, where)
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "schedule.add", name=name, cron=cron, kind=kind, params=params, library=library, zone=zone,
            missed=missed.value, priority=priority, timeout_s=common.seconds(timeout),
            replace=replace or None,
        )  # fmt: skip
    Output(json).one(body, f"schedule {name}: {kind}, next at {body['next_at']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the schedules, the daemon's own upkeep among them."""
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
    """Submit a schedule's job now; it waits until no other of the schedule's runs."""
    with options.open_client(socket, no_spawn) as client:
        job = client.run_schedule(name)
    Output(json).one(job, f"job {job['job_id']}")


@app.command(epilog="Its jobs stay. Exit status: 4 no such schedule.")
def remove(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Remove a schedule."""
    with options.open_client(socket, no_spawn) as client:
        body = client.remove_schedule(name)
    Output(json).one(body, f"schedule {name} removed")
