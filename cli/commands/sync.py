"""vec sync: a library follows a folder; vecd/sync/ does the work, here or in the daemon's process for syncs."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vecd.errors import Code, VecError, nearest

from .. import connectors as common
from .. import main, options
from ..output import Output, one_line, plural
from ..progress import Progress

if TYPE_CHECKING:
    from vecd.client import Client
    from vecd.sync.plan import Plan
    from vecd.sync.session import FileOptions, Stopping, Told

#: The command that `vec sync DIR` stands for.
_RUN = "run"

#: What a run did, in the order of its summary.
_WHAT = ("new", "changed", "moved", "deleted", "unchanged", "failed")

#: How often a run without --follow connects again without a commit in between.
_RECONNECTS_MAX = 6


class _FolderGroup(TyperGroup):
    """A group in which a first argument that is no command is a folder: `vec sync DIR` is `vec sync run DIR`."""

    def with_command(self, args: list[str]) -> list[str]:
        """The arguments with the name of a command before them."""
        known = not args or args[0] in self.commands or args in (["-h"], ["--help"])
        return args if known else [_RUN, *args]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, self.with_command(args)))


app = typer.Typer(
    cls=_FolderGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="A first argument that is no command is a folder: `vec sync notes/` is `vec sync run notes/`.",
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The sync's name, or its folder.", autocompletion=options.names("sync"))
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="The folder.")]
Prefix = Annotated[
    str, typer.Option("--prefix", help="Put this folder before the ids of the documents.", metavar="PREFIX")
]
Hidden = Annotated[bool, typer.Option("--hidden", help="Also files whose name begins with a dot.")]
Links = Annotated[bool, typer.Option("--links", help="Also what symbolic links point to.")]
NoIgnore = Annotated[bool, typer.Option("--no-ignore", help="Do not respect .gitignore and .vecignore.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Leave these files out, as a line of .gitignore would. Can be repeated.",
                 metavar="PATTERN"),
]  # fmt: skip
SizeMax = Annotated[str | None, typer.Option("--max-size", help="Skip larger files. Default: 16MiB.", metavar="SIZE")]


@app.callback()
def sync() -> None:
    """Let a library follow a folder: new, changed, renamed and deleted files."""


@app.command(
    epilog="Exit status: 3 some files were refused, 4 no such folder, 75 another process runs this sync. See"
    " vec-sync(1)."
)
def run(
    folder: Folder,
    library: options.Library = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, and follow every change.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only print what would be done.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Read all files, also those that have not changed.")] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Delete all documents if the folder has become empty.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print what becomes of each file.")] = False,
    prefix: Prefix = "",
    hidden: Hidden = False,
    links: Links = False,
    no_ignore: NoIgnore = False,
    exclude: Exclude = None,
    max_size: SizeMax = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Bring a library up to date with a folder; with --follow, keep it so."""
    _only_local(socket)
    url = _url(folder)
    from vecd.sync.session import options_of

    stop = _stopping()
    output = Output(json)
    parameters = _parameters(hidden, links, no_ignore, exclude, max_size)
    failures, cause = 0, None
    earlier = _Earlier()
    while True:
        try:
            with options.open_client(socket, no_spawn) as client:
                name = _own(client, url, library, prefix, parameters)
                failures = 0 if follow else failures
                run = _Run(client, name, stop, output, verbose, earlier)
                with run.session as session:
                    definition = session.definition
                    given = options_of(definition)
                    if dry_run:
                        run.show(session.plan(given, again=again, empty=allow_empty))
                        return
                    if follow:
                        run.follow(given, allow_empty)
                    else:
                        run.once(given, again, allow_empty)
            if not follow or stop.is_set():
                break
        except VecError as error:
            if stop.is_set():
                break
            other = error.code == Code.LEASE_LOST  # the library was deleted, or the sync was changed
            if earlier.end(keep=not (again or other)):
                failures = 0
            if not (error.disconnected or other or (failures and error.retryable)):
                raise
            if not follow and failures >= _RECONNECTS_MAX:
                cause = cause or error
                raise VecError(cause.code, cause.message, "the next run continues where this one was") from error
            failures += 1
            if failures == 1:
                cause = error
                options.say(
                    f"{error.message}; " + ("beginning again" if other else "continuing when the daemon is back")
                )
            if stop.wait(min(0.1 * 2**failures, 5.0)):
                break
    if stop.is_set() and not follow:
        raise typer.Exit(main.INTERRUPTED)


class _Earlier:
    """What a run has done over the connections that it has lost, in files."""

    def __init__(self) -> None:
        self._files: Counter[str] = Counter()
        self.told: Told | None = None  # what it has committed over the connection of now

    def end(self, *, keep: bool) -> bool:
        """The connection is lost. With `keep`, what it has done is unchanged for the next one. Returns whether it has
        committed anything."""
        told, self.told = self.told, None
        if not keep:
            self._files.clear()
        elif told is not None:
            self._files.update({what: told.files[what] for what in ("new", "changed", "moved", "deleted")})
        return told is not None

    def with_these(self, files: Counter[str]) -> Counter[str]:
        """These counts of the last connection, with those of the earlier ones."""
        before = self._files
        there = before["new"] + before["changed"] + before["moved"]
        return Counter({**(files + before), "unchanged": max(0, files["unchanged"] - there)})


class _Run:
    """Runs of one session, and what is printed of them."""

    def __init__(
        self, client: Client, name: str, stop: Stopping, output: Output, verbose: bool, earlier: _Earlier
    ) -> None:
        from vecd.sync.session import Session

        client.set_timeout(None)
        self._client = client
        self._stop = stop
        self._output = output
        self._verbose = verbose
        self._earlier = earlier
        self._first = True
        self._progress = Progress([])
        self.session = Session(client, name, stop, self._on_file, self._on_commit)

    def once(self, given: FileOptions, again: bool, empty: bool) -> None:
        began = time.monotonic()
        with self._progress:
            made = self.session.plan(given, again=again, empty=empty)
            told = self.session.run(made, given)
        told.files = self._earlier.with_these(told.files)
        self._tell(told, time.monotonic() - began)
        if told.files["failed"]:
            raise typer.Exit(main.PARTLY)

    def follow(self, given: FileOptions, empty: bool) -> None:
        from vecd.sync.follow import Follower

        follower = Follower(
            self._client, self.session, given, self._stop, on_round=self._tell_round, on_warning=options.say
        )
        follower.run(empty=empty)

    def show(self, made: Plan) -> None:
        """What a run would do."""
        from vecd.durable_files import printable_path

        plans = [("new", entry.relative) for entry in made.new]
        plans += [("changed", entry.relative) for entry in made.changed]
        plans += [("perhaps changed", entry.relative) for entry in made.doubtful]
        plans += [("gone", os.fsdecode(file.path)) for file in made.gone]
        if self._output.json:
            self._output.objects({"path": printable_path(path), "what": what} for what, path in plans)
            return
        for what, path in plans:
            print(f"{what:<8} {one_line(path)}")
        skipped = _skipped(made.skipped)
        print(f"{plural(len(plans), 'file')} to do, {made.unchanged:,} unchanged{skipped}; nothing was done")

    def _tell_round(self, told: Told, seconds: float) -> None:
        if told.changed or self._first:
            self._tell(told, seconds)
        self._first = False

    def _tell(self, told: Told, seconds: float) -> None:
        counts = {what: told.files[what] for what in _WHAT}
        body = {**counts, "skipped": dict(told.skipped), "seq": told.seq, "elapsed_s": round(seconds, 3)}
        done = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "no files"
        self._output.one(body, f"{done}{_skipped(told.skipped)} in {seconds:.1f} s")

    def _on_file(self, what: str, path: bytes, why: str) -> None:
        from vecd.durable_files import printable_path

        if what in ("failed", "unreadable"):
            self._progress.say(f"vec: {printable_path(path)}: {why}")
        elif self._verbose:
            self._progress.say(f"vec: {what} {printable_path(path)}" + (f" ({why})" if why else ""))

    def _on_commit(self, told: Told) -> None:
        self._earlier.told = told
        self._progress.advance(told.documents, 0)


def _skipped(reasons: Any) -> str:
    """The files that were skipped, in words."""
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()) if count)
    return f"; skipped: {told}" if told else ""


def _stopping() -> Stopping:
    """Set by SIGINT and SIGTERM. A second SIGINT ends the command at once."""
    import signal

    from vecd.sync.session import Stopping

    stop = Stopping()

    def end(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return stop


def _own(client: Client, url: str, library: str, prefix: str, parameters: dict[str, Any]) -> str:
    """The name of the sync of this folder and library, with these parameters; one that runs by hand if there is none
    yet. Raises VecError."""
    for _ in range(2):
        known = client.syncs()
        for each in known:
            if each["url"] == url and each["library"] == library:
                _check_same(each, prefix, parameters)
                return str(each["name"])
        name = _free_name(url, {each["name"] for each in known})
        try:
            client.add_sync(name, url, library=library, prefix=prefix, parameters=parameters, follow=False)
            return name
        except VecError as error:  # another `vec sync` was faster
            if error.code != Code.EXISTS or error.details.get("sync") is None:
                raise
            failure = error
    raise failure


def _check_same(known: dict[str, Any], prefix: str, parameters: dict[str, Any]) -> None:
    """Raises VecError if a sync that is known has other options: then its next run would delete documents."""
    if (parameters and known["parameters"] != parameters) or (prefix and known["prefix"] != prefix):
        raise VecError(
            Code.INVALID_REQUEST,
            f"the sync {known['name']!r} of this folder has other options, which it keeps",
            f"leave the options out, or start again with them: vec sync remove {known['name']}",
        )


def _free_name(url: str, taken: set[str]) -> str:
    """A name for the sync of a folder: that of the folder, as far as its characters allow."""
    import re
    from urllib.parse import unquote

    base = re.sub(r"[^A-Za-z0-9._-]+", "-", unquote(url.rstrip("/").rpartition("/")[2], errors="replace")).strip("-._")
    base = base[:40] or "folder"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _parameters(
    hidden: bool, links: bool, no_ignore: bool, exclude: list[str] | None, max_size: str | None
) -> dict[str, Any]:
    """The parameters that differ from the defaults. Raises VecError `invalid_request`."""
    found: dict[str, Any] = {}
    if hidden:
        found["hidden"] = True
    if links:
        found["links"] = True
    if no_ignore:
        found["ignore_files"] = False
    if exclude:
        found["exclude"] = exclude
    if max_size is not None:
        from vecd.units import size_bytes

        found["bytes_max"] = size_bytes(max_size)
    return found


def _url(folder: str) -> str:
    """The URL of a folder. Links in its path are resolved, so that one folder has one sync. Raises VecError
    `not_found`."""
    from vecd.connectors.folder import url_of
    from vecd.durable_files import printable_path

    path = os.path.realpath(os.path.expanduser(folder))
    if not os.path.lexists(path):
        close = nearest(folder, ["add", "list", "show", "pause", "resume", "remove"])
        hint = f"did you mean `vec sync {close}`?" if close else "check the path; nothing was read, nothing deleted"
        raise VecError(Code.NOT_FOUND, f"the folder {printable_path(path)} does not exist", hint)
    if not os.path.isdir(path):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{printable_path(path)} is not a folder",
            f"for a file: vec ingest {printable_path(folder)}",
        )
    return url_of(path)


def _only_local(socket: str | None) -> None:
    options.only_local(
        socket, "a sync is of a folder of the daemon's machine", "vec ingest DIR sends files over the connection"
    )


def _name(client: Client, given: str) -> str:
    """The name of the sync that is meant by a name or a folder."""
    from vecd.durable_files import printable_path

    known = client.syncs()
    if any(each["name"] == given for each in known) or not os.path.isdir(given):
        return given
    from vecd.connectors.folder import url_of

    url = url_of(os.path.realpath(given))
    found = [each["name"] for each in known if each["url"] == url]
    if len(found) > 1:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{printable_path(given)} has several syncs: {', '.join(found)}",
            "use the name of one",
        )
    return found[0] if found else given


@app.command(epilog="Exit status: 1 the folder and library have a sync already, 4 no such folder. See vec-sync(1).")
def add(
    folder: Folder,
    library: options.Library = "default",
    name: Annotated[
        str | None, typer.Option("--name", help="The sync's name. Default: that of the folder.", metavar="NAME")
    ] = None,
    prefix: Prefix = "",
    hidden: Hidden = False,
    links: Links = False,
    no_ignore: NoIgnore = False,
    exclude: Exclude = None,
    max_size: SizeMax = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not start before `vec sync resume`.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Let the daemon follow a folder from now on."""
    _only_local(socket)
    url = _url(folder)
    parameters = _parameters(hidden, links, no_ignore, exclude, max_size)
    with options.open_client(socket, no_spawn) as client:
        known = client.syncs()
        same = [each for each in known if each["url"] == url and each["library"] == library and not each["follow"]]
        if name is None:
            name = same[0]["name"] if same else _free_name(url, {each["name"] for each in known})
        assert name is not None
        body = client.add_sync(name, url, library=library, prefix=prefix, parameters=parameters, paused=paused)
    Output(json).one(body, f"sync {name}: library {library} follows {body['path']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the syncs with their states and errors."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.syncs()
    if output.json:
        output.objects(found)
        return
    columns = ("sync", "folder", "library", "files", "skipped", "synced", "state")
    rows: list[tuple[Any, ...]] = [
        (
            each["name"], each["path"], each["library"], each["files"], sum(each["skipped"].values()),
            each["synced_at"] and each["synced_at"][:19].replace("T", " "), each["state"],
        )
        for each in found
    ]  # fmt: skip
    common.show_all(output, "sync", columns, rows, found)
    for each in found:
        if each["warning"]:
            print(f"{one_line(each['name'])}: {one_line(each['warning'])}")


@app.command(epilog="Exit status: 4 no such sync.")
def show(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show a sync, its files and its last error."""
    with options.open_client(socket, no_spawn) as client:
        body = client.sync(_name(client, name))
    common.show(Output(json), body)


@app.command(epilog="Exit status: 4 no such sync.")
def pause(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Stop a sync until it is resumed."""
    with options.open_client(socket, no_spawn) as client:
        body = client.pause_sync(_name(client, name))
    Output(json).one(body, f"sync {body['name']} paused")


@app.command(epilog="What has changed meanwhile is found. Exit status: 4 no such sync.")
def resume(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Let a paused sync continue."""
    with options.open_client(socket, no_spawn) as client:
        body = client.resume_sync(_name(client, name))
    Output(json).one(body, f"sync {body['name']} resumed")


@app.command(epilog="The documents stay; what is known of the files is forgotten. Exit status: 4 no such sync.")
def remove(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Remove a sync."""
    with options.open_client(socket, no_spawn) as client:
        body = client.remove_sync(_name(client, name))
    Output(json).one(body, f"sync {body['name']} removed; its documents stay")
