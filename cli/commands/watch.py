"""vec watch: the event log, from any position, as it happens."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output, one_line, plural

app = options.command()


@app.command(
    epilog="Exit status: 0 done, 5 a cursor of another log, 75 the daemon went away, 124 timed out. See vec-watch(1)."
)
def watch(
    library: Annotated[
        list[str] | None,
        typer.Option("--library", "-l", help="Only this library's events; may be repeated.", metavar="NAME"),
    ] = None,
    type: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this type, or a glob as 'document.*'; may be repeated.", metavar="TYPE"),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="beginning, now, a cursor, an RFC 3339 time, or a time ago as -15m.", metavar="POSITION"
        ),
    ] = "now",
    cursor_file: Annotated[
        Path | None,
        typer.Option("--cursor-file", help="Begin behind the cursor in this file, and keep it there.", metavar="FILE"),
    ] = None,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="End at the head of the log.")] = False,
    n: Annotated[int | None, typer.Option("-n", min=1, help="End after so many events.", metavar="N")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="End after so many seconds.", metavar="S")
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print changes, in order, as they happen or from the log."""
    output = Output(json)
    if cursor_file is not None and (kept := _read_cursor(cursor_file)):
        start = kept
    request: dict[str, Any] = {"from": start, "libraries": library or None, "types": type or None}
    request |= {"follow": not no_follow, "limit": n, "timeout_s": timeout}
    end: dict[str, Any] = {}
    with options.open_client(socket, no_spawn) as client, contextlib.closing(client.pages("watch", **request)) as pages:
        for reply in pages:
            if reply.kind == "items":
                for event in reply.body:
                    event["cursor"] = f"{client.log}:{event['seq']}"
                _print(output, reply.body)
                cursor = reply.extra["cursor"]
            else:
                end, cursor = reply.body, reply.body.get("cursor")
            if cursor_file is not None and cursor:
                _write_cursor(cursor_file, cursor)
    if end.get("reason") == "timeout":
        raise typer.Exit(main.TIMED_OUT)
    if end.get("reason") == "shutting_down":
        raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", f"go on with --from {end.get('cursor') or start}")


def _print(output: Output, events: list[dict[str, Any]]) -> None:
    order = ("seq", "cursor", "type", "library", "time", "data")
    if output.json:
        output.objects(({key: event[key] for key in order} for event in events), flush=True)
        return
    for event in events:
        data = event["data"]
        about = data.get("chunk_id") or data.get("id") or data.get("name") or ""
        if event["type"] == "index.rebuilt":
            about = f"{data['kind']}, {plural(data['vectors'], 'vector')}, {data['seconds']:.1f} s, {data['reason']}"
        title = f"  {data['title']}" if data.get("title") else ""
        place = f"{event['time']}  {event['seq']:>8}  {event['type']:<16}  {event['library'] or '':<12}"
        print(one_line(f"{place}  {about}{title}"))
    sys.stdout.flush()


def _read_cursor(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise VecError(Code.INVALID_REQUEST, f"cannot read the cursor file {path}: {error}") from error


def _write_cursor(path: Path, cursor: str) -> None:
    """After the events have been flushed: a file beside it, on disk, then in its place. Never half a cursor."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(cursor + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise VecError(Code.INVALID_REQUEST, f"cannot write the cursor file {path} ({error.strerror})") from error
