"""The entry point of the command line: the group of commands, the exit statuses, and the printing of errors.

Data goes to stdout; messages, warnings and errors go to stderr. vec(1) documents the exit statuses in EXIT_STATUS.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from vecd.errors import RETRYABLE, Code, VecError
from vecd.process import open_standard_streams, reset_signals

from . import options

#: Command -> module in commands/. The order is that of `vec --help`.
COMMANDS = {
    "ingest": "ingest",
    "search": "search",
    "get": "get",
    "list": "list",
    "count": "count",
    "update": "update",
    "delete": "delete",
    "library": "library",
    "watch": "watch",
    "consumers": "consumers",
    "relay": "relay",
    "source": "source",
    "sync": "sync",
    "trim": "trim",
    "jobs": "jobs",
    "worker": "worker",
    "verify": "verify",
    "backup": "backup",
    "restore": "restore",
    "status": "status",
    "serve": "serve",
    "keys": "keys",
    "mcp": "mcp",
    "daemon": "daemon",
    "demo": "demo",
    "config": "config",
    "doctor": "doctor",
    "completion": "completion",
    "help": "help",
}

#: Commands for the instance of this machine, which a gateway does not offer.
LOCAL_COMMANDS = ("restore", "daemon", "serve", "keys", "doctor")

FAILED, USAGE, PARTLY, NOT_FOUND, HISTORY_LOST = 1, 2, 3, 4, 5
NO_DAEMON, TRY_AGAIN, TIMED_OUT, INTERRUPTED, BROKEN_PIPE, TERMINATED = 69, 75, 124, 130, 141, 143

EXIT_STATUS = {
    **dict.fromkeys(RETRYABLE, TRY_AGAIN),
    Code.EMBEDDER_FAILED: FAILED,  # unless a person does something about it
    Code.INDEX_FAILED: FAILED,
    Code.INVALID_REQUEST: USAGE,
    Code.INVALID_DOCUMENT: USAGE,
    Code.INVALID_CURSOR: USAGE,
    Code.INVALID_FILTER: USAGE,
    Code.DIMENSION_MISMATCH: USAGE,
    Code.UNSUPPORTED: USAGE,
    Code.SETTINGS: USAGE,
    Code.NOT_FOUND: NOT_FOUND,
    Code.FOREIGN_CURSOR: HISTORY_LOST,
    Code.COMPACTED: HISTORY_LOST,
    Code.NO_DAEMON: NO_DAEMON,
    Code.DAEMON_FAILED: NO_DAEMON,
    Code.TIMEOUT: TIMED_OUT,
    Code.CANCELLED: INTERRUPTED,
}

#: Characters of a filter that are shown before and after an error.
_POINTED_CHARS = 60

#: Errors of a write to stdout, other than a closed pipe.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def tell(error: VecError) -> None:
    """Prints an error on stderr: the message, the code, and the hint on a second line."""
    from .output import printable  # the message can quote untrusted text

    hint = f"\n     {printable(error.hint)}" if error.hint else ""
    print(f"vec: {printable(error.message)} ({error.code}){_pointed(error)}{hint}", file=sys.stderr)


def _pointed(error: VecError) -> str:
    """For an error in a filter: two lines, the filter and a caret under the column of the error."""
    where, column, offset = (error.details.get(key, 0) for key in ("where", "column", "where_offset"))
    if not isinstance(where, str) or not isinstance(column, int) or not isinstance(offset, int):
        return ""
    if not where.strip() or not where.isprintable():
        return ""
    column -= offset
    start = max(0, column - _POINTED_CHARS)
    return f"\n     {where[start : start + 2 * _POINTED_CHARS]}\n     {' ' * (column - 1 - start)}^"


class LazyGroup(options.Group):
    """A group that imports a command's module on demand, and maps its exceptions to exit statuses."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{COMMANDS[cmd_name]}", __package__)
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _exit_statuses():  # --help and --version print from here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _exit_statuses():
            return super().invoke(ctx)


#: Of Typer's parser, which has no public name for it.
_USAGE_ERROR: Any = typer.BadParameter.__base__


@contextlib.contextmanager
def _exit_statuses() -> Iterator[None]:
    """Flushes stdout at the end, and maps exceptions to messages and exit statuses."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except VecError as error:
        from .usage_errors import without_suggestion

        tell(without_suggestion(error))
        status = EXIT_STATUS.get(error.code, FAILED)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise  # it prints the help
        from .usage_errors import as_error

        tell(as_error(error))
        status = USAGE
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        _drop_stdout()  # the reader closed the pipe
        status = BROKEN_PIPE
    except OSError as error:
        _drop_stdout()
        if error.errno in _CANNOT_WRITE:
            tell(VecError(Code.REFUSED, f"cannot write the output ({error.strerror})"))
        else:  # an operating system error that no other code has translated
            from vecd.durable_files import printable_path

            what = f": {printable_path(error.filename)}" if error.filename else ""
            tell(VecError(Code.REFUSED, f"{error.strerror or error}{what}"))
        status = FAILED
    else:
        return
    raise typer.Exit(status)


def _drop_stdout() -> None:
    """Discards the rest of stdout's buffer, which cannot be written. Python would report it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Stderr(io.TextIOWrapper):
    """stderr, ignoring errors of writes: they must not change the result or the exit status."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _prepare_output() -> None:
    """Makes output UTF-8 in any locale. A terminal keeps its encoding; characters outside it are escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding if sys.stderr.isatty() else "utf-8"
        buffer: Any = sys.stderr.detach()  # or both would close the file
        raw: Any = buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer
        sys.stderr = _Stderr(raw, encoding=encoding, errors="backslashreplace", write_through=True)


def _version(value: bool) -> None:
    if value:
        from vecd import __version__

        print(f"vec {__version__}")
        raise typer.Exit


def _explain(value: str | None) -> None:
    if value is not None:
        from .explanations import explained

        print(explained(value, EXIT_STATUS))
        raise typer.Exit


def _explainable() -> list[tuple[str, str]]:
    from .explanations import CODES, STATUSES

    return [*((str(status), what) for status, what in STATUSES.items()), *((code, CODES[code][0]) for code in CODES)]


app = typer.Typer(
    cls=LazyGroup,
    name="vec",
    help="Real-time vector search for the shell: ingest NDJSON, search it, and watch every change.",
    epilog="See 'vec help COMMAND' for the options of a command, man vec, man vec-ingest, … for its manual, and man"
    " vec-tutorial for a tour of ten minutes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _vec(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            help="Explain an exit status or the code of an error, and exit.",
            metavar="CODE",
            callback=_explain,
            is_eager=True,
            autocompletion=_explainable,
        ),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option("--connect", help="Use the daemon behind the gateway at this URL: wss://HOST.", metavar="URL"),
    ] = None,
    key_file: Annotated[
        str | None, typer.Option("--key-file", help="The file with the key for the gateway.", metavar="FILE")
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option("--ca-file", help="Trust the certificates in this PEM file, for the gateway.", metavar="FILE"),
    ] = None,
) -> None:
    # In the environment, so that a `vec` that --exec runs uses the same gateway.
    if connect is not None:
        os.environ["VEC_CONNECT"] = connect
    if key_file is not None:
        os.environ["VEC_KEY_FILE"] = key_file
        os.environ.pop("VEC_KEY", None)
    if ca_file is not None:
        os.environ["VEC_CA_FILE"] = ca_file
    if ctx.invoked_subcommand in LOCAL_COMMANDS and not {"--help", "-h"} & set(sys.argv):
        hint = "run it on the machine of the daemon, without --connect and VEC_CONNECT"
        options.only_local(None, f"'vec {ctx.invoked_subcommand}' is for the instance of this machine", hint)


def main() -> None:
    """The entry point."""
    open_standard_streams()
    reset_signals()
    _prepare_output()
    try:
        app()
    finally:
        gc.freeze()  # or Python would search all objects for cycles as it exits, a tenth of the time of a short command


if __name__ == "__main__":
    main()
