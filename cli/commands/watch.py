"""vec watch: the event log, from any position, as it happens; printed, or handed to a command."""

from __future__ import annotations

import contextlib
import select
import signal
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import main, options, recall
from ..output import Output, one_line, plural, terminal_json

if TYPE_CHECKING:
    from vecd.client.subscription import Message

    from ..cursors import Nowhere
    from ..feed import Events
    from ..following import Following
    from ..handler import Handler

app = options.command()


class Format(StrEnum):
    """What is written."""

    EVENTS = "events"
    INGEST = "ingest"


class OnGap(StrEnum):
    """What is done about a position that was trimmed away."""

    FAIL = "fail"
    OLDEST = "oldest"
    SNAPSHOT = "snapshot"


class OnFailure(StrEnum):
    """What becomes of a batch that cannot be handled."""

    SKIP = "skip"
    STOP = "stop"


@app.command(
    epilog="Exit status: 0 done, 3 partly done, 5 history lost, 75 try again, 124 timed out. See vec-watch(1)."
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
    where: options.Where = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="beginning, now, a cursor, an RFC 3339 time, or a time ago as -15m.", metavar="POSITION"
        ),
    ] = "now",
    until: Annotated[
        str | None, typer.Option("--until", help="End behind the event of this cursor.", metavar="CURSOR")
    ] = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option("--cursor-file", help="Begin behind the cursor in this file, and keep it there.", metavar="FILE"),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option("--consumer", help="Begin where this consumer is; the daemon keeps its cursor.", metavar="NAME"),
    ] = None,
    on_gap: Annotated[
        OnGap, typer.Option("--on-gap", help="When the position was trimmed away: what to go on with.")
    ] = OnGap.FAIL,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="End at the head of the log.")] = False,
    n: Annotated[int | None, typer.Option("-n", min=1, help="End after so many events.", metavar="N")] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", callback=options.finite, min=0, help="End after so many seconds.", metavar="S"),
    ] = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with all that is there, unless there is a cursor to go on from.")
    ] = False,
    payload: Annotated[
        bool, typer.Option("--payload", help="With the documents, as they were after and before each change.")
    ] = False,
    vectors: Annotated[
        bool | None,
        typer.Option("--vectors/--no-vectors", help="With the documents and their vectors, or without vectors."),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="Events, or lines that vec ingest accepts.")
    ] = Format.EVENTS,
    exec_: Annotated[
        str | None,
        typer.Option("--exec", help="Run this with each batch of events on its stdin.", metavar="COMMAND"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Events that the command gets at most; 1000 unless set.", metavar="N"),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option("--retries", min=1, help="Tries of a batch, all in all; 5 unless set.", metavar="N"),
    ] = None,
    dead_letter: Annotated[
        Path | None,
        typer.Option("--dead-letter", help="The file for batches that are given up.", metavar="FILE"),
    ] = None,
    on_failure: Annotated[
        OnFailure | None,
        typer.Option("--on-failure", help="Give such a batch up and go on, which is the default, or stop before it."),
    ] = None,
    no_reconnect: Annotated[
        bool, typer.Option("--no-reconnect", help="End when the connection to the daemon is lost.")
    ] = False,
    flush: Annotated[
        bool,
        typer.Option("--flush", help="Print nothing; wait until those who watch have got all there is now."),
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print changes, in order, as they happen or from the log."""
    _check(cursor_file, consumer, format, type, exec_, (batch, retries, dead_letter, on_failure))
    output = Output(json)
    if flush:
        which = (library, type, where, until, cursor_file, n, start != "now", no_follow, snapshot, payload)
        if any(which) or exec_ or no_reconnect:
            raise VecError(Code.INVALID_REQUEST, "--flush goes with --consumer and --timeout alone")
        with options.open_client(socket, no_spawn) as client:
            cursor = client.flush(consumer, timeout_s=timeout)
        output.one({"cursor": cursor}, f"delivered up to {cursor}")
        return
    from vecd import data_lock, settings

    from ..feed import Events, IngestLines
    from ..following import Following

    form: Events = (
        IngestLines(vectors=vectors is not False)
        if format is Format.INGEST
        else Events(payload=payload, vectors=bool(vectors))
    )
    place = _place(cursor_file, consumer, socket)
    handler = None
    if exec_ is not None:
        handler = _handler(exec_, form, batch, retries, dead_letter, on_failure, socket)
    asked: dict[str, Any] = {
        "libraries": library or (), "types": type or (), "where": where or (), "follow": not no_follow, "until": until,
        "limit": n, "timeout_s": timeout, "snapshot": snapshot, "consumer": consumer, "on_gap": on_gap.value,
        **form.asks,
    }  # fmt: skip
    with _place_named(cursor_file):
        feed = Following(
            lambda spawns: options.open_client(socket, no_spawn or not spawns),
            place,
            start,
            asked,
            reconnects=not no_reconnect,
            was_stopped=lambda: data_lock.was_stopped(settings.locate(socket=socket)),
            enders=[(handler.signals.fileno(), select.POLLIN)] if handler is not None else [_unread_stdout()],
        )
        with contextlib.closing(feed):
            if format is Format.INGEST and not no_follow:
                for name in library or ():
                    feed.client.count(name)  # one that is gone will never have another document
            if handler is not None:
                handler.run(feed, _told(feed))
            else:
                _print_all(feed, form, output if format is Format.EVENTS else None)
            feed.secure()
    _end(feed, form, handler)


@contextlib.contextmanager
def _place_named(cursor_file: Path | None) -> Iterator[None]:
    """Adds to what a position is refused for where that position is kept."""
    try:
        yield
    except VecError as error:
        if cursor_file is None or error.code not in (Code.FOREIGN_CURSOR, Code.COMPACTED):
            raise
        hint = f"the cursor is the one in {cursor_file}; when that file is removed, --from counts again"
        raise VecError(
            error.code, error.message, f"{error.hint}; {hint}" if error.hint else hint, **error.details
        ) from error


def _unread_stdout() -> tuple[int, int]:
    """An ender: poll(2) reports an error on a pipe that no process reads any more, whatever it is asked for."""
    return sys.stdout.fileno(), 0


def _end(feed: Following, form: Events, handler: Handler | None) -> None:
    """The exit status of a watch that ended well."""
    if handler is not None and handler.signal_got is not None:
        raise typer.Exit(main.INTERRUPTED if handler.signal_got == signal.SIGINT else main.TERMINATED)
    if feed.timed_out:
        raise typer.Exit(main.TIMED_OUT)
    if form.refused or (handler is not None and handler.given_up):
        raise typer.Exit(main.PARTLY)


def _check(
    cursor_file: Path | None,
    consumer: str | None,
    format: Format,
    type: list[str] | None,
    command: str | None,
    for_the_command: tuple[object, ...],
) -> None:
    """Refuses options that do not go together."""
    if cursor_file is not None and consumer is not None:
        raise VecError(Code.INVALID_REQUEST, "give --cursor-file or --consumer, not both", "a consumer has its cursor")
    if format is Format.INGEST and type:
        raise VecError(Code.INVALID_REQUEST, "--format ingest is made of whole documents", "leave out --type")
    if command is not None and not command.strip():
        raise VecError(Code.INVALID_REQUEST, "--exec is given an empty command", "it would throw every event away")
    if command is None and any(each is not None for each in for_the_command):
        raise VecError(
            Code.INVALID_REQUEST, "--batch, --retries, --dead-letter and --on-failure are for --exec", "give a command"
        )


def _place(cursor_file: Path | None, consumer: str | None, socket: str | None) -> Nowhere:
    from ..cursors import Consumer, CursorFile, Nowhere

    if cursor_file is not None:
        return CursorFile(cursor_file)
    if consumer is not None:
        return Consumer(consumer, lambda: options.open_client(socket, no_spawn=True))
    return Nowhere()


def _handler(
    command: str,
    form: Events,
    batch: int | None,
    retries: int | None,
    dead_letter: Path | None,
    on_failure: OnFailure | None,
    socket: str | None,
) -> Handler:
    from vecd import settings

    from ..handler import DeadLetters, Handler

    return Handler(
        command,
        form,
        events_max=batch or 1_000,
        tries_max=retries or 5,
        dead_letters=DeadLetters(dead_letter or settings.locate(socket=socket).data / "dead-letters.ndjson"),
        stops=on_failure is OnFailure.STOP,
    )


def _print_all(feed: Following, form: Events, output: Output | None) -> None:
    """Prints what comes, and keeps the place behind it; people get lines to read."""
    stdout = sys.stdout.buffer
    harmless = terminal_json if sys.stdout.isatty() else bytes
    for message in _told(feed):
        if output is not None and not output.json:
            _show(message.events)
        elif message.events:
            stdout.write(harmless(b"".join(form.lines(message.events))))
            stdout.flush()
        if form.end is not None:
            raise form.end
        feed.keep(message.cursor, len(message.events))
    if feed.stopped:
        raise BrokenPipeError
    feed.keep(feed.watch.cursor, 0)


def _told(feed: Following) -> Iterator[Message]:
    """The messages of the watch; a gap before one is told."""
    for message in feed.messages():
        if message.gap is not None:
            main.tell(message.gap)
            print(f"vec: going on from {message.cursor}", file=sys.stderr, flush=True)
        yield message


def _show(events: list[dict[str, Any]]) -> None:
    for event in events:
        data = event["data"]
        about = data.get("chunk_id") or data.get("id") or data.get("name") or ", ".join(data.get("libraries", ()))
        if event["type"] == "index.rebuilt":
            about = f"{data['kind']}, {plural(data['vectors'], 'vector')}, {data['seconds']:.1f} s, {data['reason']}"
        if event["type"] == "index.recall":
            about = recall.report(data)
        if event["type"].startswith("job."):
            why = f": {data['error']['message']}" if data.get("error") else ""
            about = f"job {data['job_id']}, {data['kind']}{why}"
        title = f"  {data['title']}" if data.get("title") else ""
        place = f"{event['time']}  {event['seq']:>8}  {event['type']:<17}  {event['library'] or '':<12}"
        print(one_line(f"{place}  {about}{title}"))
    sys.stdout.flush()
