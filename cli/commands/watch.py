"""vec watch: prints events from the log, or passes them to a command in batches."""

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

from .. import main, options
from ..output import Output, colours, columns, terminal_json

if TYPE_CHECKING:
    from vecd.client.watch import Message

    from ..cursors import NoCursor
    from ..event_lines import EventLines
    from ..event_view import EventView
    from ..exec_delivery import ExecDelivery
    from ..reconnecting import ReconnectingWatch

app = options.command()

#: The types of events on a terminal: those of chunks are part of the change of their document. With a filter, only
#: those of documents.
_NO_CHUNKS, _DOCUMENTS = "!chunk.*", "document.*"


class Format(StrEnum):
    """The output format."""

    EVENTS = "events"
    INGEST = "ingest"


class OnGap(StrEnum):
    """What to do if the position has been trimmed."""

    FAIL = "fail"
    OLDEST = "oldest"
    SNAPSHOT = "snapshot"


class OnFailure(StrEnum):
    """What to do with a batch that fails all attempts."""

    SKIP = "skip"
    STOP = "stop"


@app.command(
    epilog="Exit status: 0 success, 3 partial success, 5 history lost, 75 try again, 124 timed out. See vec-watch(1)."
)
def watch(
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
            help="Only events of this type, or a glob, as 'document.*', or not as '!chunk.*'. Can be repeated.",
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
    until: Annotated[
        str | None, typer.Option("--until", help="End after the event of this cursor.", metavar="CURSOR")
    ] = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option("--cursor-file", help="Begin after the cursor in this file, and update the file.", metavar="FILE"),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            "--consumer",
            help="Begin at this consumer's cursor, which the daemon stores.",
            metavar="NAME",
            autocompletion=options.names("consumer"),
        ),
    ] = None,
    on_gap: Annotated[
        OnGap, typer.Option("--on-gap", help="What to do if the position has been trimmed.")
    ] = OnGap.FAIL,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Print what happened since then and end: --from and --no-follow.", metavar="WHEN"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for new events: the default, except with --since.")
    ] = False,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="End at the current head of the log.")] = False,
    n: Annotated[int | None, typer.Option("-n", min=1, help="End after N events.", metavar="N")] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", callback=options.finite, min=0, help="End after S seconds.", metavar="S"),
    ] = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with the current state, unless there is a cursor to resume from.")
    ] = False,
    payload: Annotated[
        bool, typer.Option("--payload", help="Include the documents, after and before each change.")
    ] = False,
    vectors: Annotated[
        bool | None,
        typer.Option("--vectors/--no-vectors", help="Include the documents with their vectors, or omit vectors."),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="Events, or lines that vec ingest accepts.")
    ] = Format.EVENTS,
    exec_: Annotated[
        str | None,
        typer.Option("--exec", help="Run this command for each batch of events, on its stdin.", metavar="COMMAND"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Maximum events per batch. Default: 1000.", metavar="N"),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option("--retries", min=1, help="Maximum attempts per batch. Default: 5.", metavar="N"),
    ] = None,
    dead_letter: Annotated[
        Path | None,
        typer.Option("--dead-letter", help="The file for batches that fail all attempts.", metavar="FILE"),
    ] = None,
    on_failure: Annotated[
        OnFailure | None,
        typer.Option("--on-failure", help="Skip a batch that fails all attempts (default), or stop before it."),
    ] = None,
    no_reconnect: Annotated[
        bool, typer.Option("--no-reconnect", help="Exit when the connection to the daemon is lost.")
    ] = False,
    flush: Annotated[
        bool,
        typer.Option("--flush", help="Wait until all current watches have received all current events."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="On a terminal, also show texts, and what an update changed.")
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print events from the log, in order, and follow it."""
    _check(cursor_file, consumer, format, type, exec_, (batch, retries, dead_letter, on_failure))
    start, no_follow = _range(start, since, follow, no_follow)
    output = Output(json)
    if flush:
        which = (library, type, where, until, cursor_file, n, start != "now", follow, no_follow, snapshot, payload)
        if any(which) or exec_ or no_reconnect:
            raise VecError(Code.INVALID_REQUEST, "--flush can be combined only with --consumer, --timeout and --json")
        with options.open_client(socket, no_spawn) as client:
            cursor = client.flush(consumer, timeout_s=timeout)
        output.one({"cursor": cursor}, f"delivered up to {cursor}")
        return
    from vecd import data_lock, settings

    from ..event_lines import EventLines, IngestLines
    from ..reconnecting import ReconnectingWatch

    shown = not (output.json or exec_ is not None or format is Format.INGEST)
    form: EventLines = (
        IngestLines(vectors=vectors is not False)
        if format is Format.INGEST
        else EventLines(payload=payload or (shown and verbose), vectors=bool(vectors) and not shown)
    )
    chunks = bool(type)
    if shown and not type:
        type = [_DOCUMENTS] if where else [_NO_CHUNKS]
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
        feed = ReconnectingWatch(
            lambda spawns: options.open_client(socket, no_spawn or not spawns),
            place,
            start,
            asked,
            reconnects=not no_reconnect,
            was_stopped=lambda: not options.remote(socket) and data_lock.was_stopped(settings.locate(socket=socket)),
            enders=[(handler.signals.fileno(), select.POLLIN)] if handler is not None else [_unread_stdout()],
        )
        with contextlib.closing(feed):
            if format is Format.INGEST and not no_follow:
                for name in library or ():
                    feed.client.count(name)  # fails if the library has been deleted
            if handler is not None:
                handler.run(feed, _told(feed))
            else:
                view = _view(library, verbose, chunks) if shown else None
                _print_all(feed, form, view)
            feed.secure()
    _end(feed, form, handler)


@contextlib.contextmanager
def _place_named(cursor_file: Path | None) -> Iterator[None]:
    """Adds the path of the cursor file to the error if its cursor is refused."""
    try:
        yield
    except VecError as error:
        if cursor_file is None or error.code not in (Code.FOREIGN_CURSOR, Code.COMPACTED):
            raise
        hint = f"the cursor is in {cursor_file}; remove that file to begin at --from"
        raise VecError(
            error.code, error.message, f"{error.hint}; {hint}" if error.hint else hint, **error.details
        ) from error


def _unread_stdout() -> tuple[int, int]:
    """Returns the descriptor of stdout for poll(2), which reports an error when no process reads the pipe any more."""
    return sys.stdout.fileno(), 0


def _end(feed: ReconnectingWatch, form: EventLines, handler: ExecDelivery | None) -> None:
    """Sets the exit status of a watch that ended without an error."""
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
    """Refuses options that cannot be combined. Raises VecError `invalid_request`."""
    if cursor_file is not None and consumer is not None:
        raise VecError(
            Code.INVALID_REQUEST,
            "--cursor-file cannot be combined with --consumer",
            "the daemon stores the cursor of a consumer",
        )
    if format is Format.INGEST and type:
        raise VecError(
            Code.INVALID_REQUEST,
            "--format ingest cannot be combined with --type",
            "it needs all events of documents; remove --type",
        )
    if command is not None and not command.strip():
        raise VecError(Code.INVALID_REQUEST, "the command of --exec is empty", "it would discard every event")
    if command is None and any(each is not None for each in for_the_command):
        raise VecError(
            Code.INVALID_REQUEST, "--batch, --retries, --dead-letter and --on-failure require --exec", "add --exec"
        )


def _place(cursor_file: Path | None, consumer: str | None, socket: str | None) -> NoCursor:
    from ..cursors import ConsumerCursor, CursorFile, NoCursor

    if cursor_file is not None:
        return CursorFile(cursor_file)
    if consumer is not None:
        return ConsumerCursor(consumer, lambda: options.open_client(socket, no_spawn=True))
    return NoCursor()


def _handler(
    command: str,
    form: EventLines,
    batch: int | None,
    retries: int | None,
    dead_letter: Path | None,
    on_failure: OnFailure | None,
    socket: str | None,
) -> ExecDelivery:
    from vecd import settings

    from ..exec_delivery import ExecDelivery

    return ExecDelivery(
        command,
        form,
        events_max=batch or 1_000,
        attempts_max=retries or 5,
        dead_letters=dead_letter or settings.locate(socket=socket).data / "dead-letters.ndjson",
        stops=on_failure is OnFailure.STOP,
    )


def _print_all(feed: ReconnectingWatch, form: EventLines, view: EventView | None) -> None:
    """Prints the events, and stores the cursor after each message; `view` is None for lines of JSON."""
    stdout = sys.stdout.buffer
    escaped = terminal_json if sys.stdout.isatty() else bytes
    for message in _told(feed):
        if view is not None:
            for event in message.events:
                for line in view.lines(event):
                    print(line)
            sys.stdout.flush()
        elif message.events:
            stdout.write(escaped(b"".join(form.lines(message.events))))
            stdout.flush()
        if form.end is not None:
            raise form.end
        feed.keep(message.cursor, len(message.events))
    if feed.stopped:
        raise BrokenPipeError
    feed.keep(feed.watch.cursor, 0)


def _told(feed: ReconnectingWatch) -> Iterator[Message]:
    """Yields the messages of the watch, and reports gaps on stderr."""
    for message in feed.messages():
        if message.gap is not None:
            main.tell(message.gap)
            print(f"vec: continuing from {message.cursor}", file=sys.stderr, flush=True)
        yield message


def _view(libraries: list[str] | None, verbose: bool, chunks: bool) -> EventView:
    from ..event_view import EventView

    several = len(libraries or ()) != 1
    return EventView(columns=columns(), colours=colours(), verbose=verbose, library=several, chunks=chunks)


def _range(start: str, since: str | None, follow: bool, no_follow: bool) -> tuple[str, bool]:
    """Where to begin, and whether to end at the head of the log. Raises VecError `invalid_request`."""
    if follow and no_follow:
        raise VecError(Code.INVALID_REQUEST, "--follow cannot be combined with --no-follow", "leave out one of them")
    if since is None:
        return start, no_follow
    if start != "now":
        raise VecError(Code.INVALID_REQUEST, "--since cannot be combined with --from", "leave out one of them")
    return since, not follow
