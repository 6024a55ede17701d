"""vec status: shows the daemon's process, log, libraries, jobs, relays, sources and syncs."""

from __future__ import annotations

from typing import Any

from .. import options
from ..output import Output

app = options.command()


@app.command(epilog="Exit status: 0 success, 69 no daemon is running (with --no-spawn). See vec-status(1).")
def status(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """Show the daemon's process, log, libraries, jobs, relays, sources and syncs."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        body = client.status()
    if output.json:
        output.one(body, "")
    else:
        show(output, body)


def show(output: Output, body: dict[str, Any]) -> None:
    """Prints the status on a terminal."""
    from ..jobs import counts_of, executor_of
    from ..output import size
    from .library import table, waiting

    hours, seconds = divmod(int(body["uptime_s"]), 3600)
    print(f"vecd {body['version']}, pid {body['pid']}, up {hours}:{seconds // 60:02}:{seconds % 60:02}")
    print(f"socket       {body['socket']}")
    if (gateway := body.get("http")) is not None:
        print(f"http         {' '.join(gateway['listen']) or 'not ready; see vec daemon logs'}")
    print(f"data         {body['data']}")
    kept = body["seq"] - int(body["oldest"].partition(":")[2])
    print(f"log          {body['log']}, {body['seq']:,} events" + (f", {kept:,} kept" if kept < body["seq"] else ""))
    print(f"memory       {size(body['memory_bytes'])}")
    print(f"connections  {body['connections']:,}, {body['watchers']:,} watching")
    print(f"jobs         {counts_of(body['jobs'])}")
    if executor := executor_of(body["jobs"]["executor"]):
        print(f"embedding    {executor}")
    for direction in ("relay", "source"):
        if about := body.get(f"{direction}s", {}).get("count", 0):
            print(f"{direction + 's':<13}{about:,}{_failing(direction, body[direction + 's']['failing'])}")
    for each in body["libraries"]:
        if (behind := waiting(each)) is not None:
            print(f"embedding    library {each['name']}: {behind}")
        if each["recall"]["met"] is False:
            print(f"recall       library {each['name']}: {_missed(each['recall'])}")
    if body["libraries"]:
        table(output, body["libraries"])


def _failing(direction: str, names: list[str]) -> str:
    from ..output import one_line

    shown = ", ".join(map(one_line, names))
    return f", failing: {shown}; see `vec {direction} list`" if names else ""


def _missed(about: dict[str, Any]) -> str:
    from .. import recall

    own = about["own"]
    return recall.report(own) if own else f"promise {about['promise']:g} not met when it was last measured"
