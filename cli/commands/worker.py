"""vec worker: runs embedding tasks and jobs of a daemon in this process, until it is stopped by a signal."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output, plural

if TYPE_CHECKING:
    from vecd.client import Client
    from vecd.workers.leased_worker import Worker

app = options.command()


@app.command(epilog="Exit status: 0 stopped by a signal, 2 invalid usage, 69 no daemon. See vec-worker(1).")
def worker(
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kinds",
            help="What to run: embed, reembed, export, noop; comma-separated. Can be repeated. Default: embed,reembed.",
            metavar="KINDS",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=64, help="Tasks and jobs at once.", metavar="N")
    ] = 1,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The worker's name in lists. Default: host name and process id.", metavar="NAME"),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            "--lease",
            callback=options.finite,
            min=0.5,
            max=3600,
            help="How long the worker may be silent before others get its work.",
            metavar="S",
        ),
    ] = 15.0,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            callback=options.finite,
            min=0,
            help="After a signal, the time to finish what has begun; the rest is returned.",
            metavar="S",
        ),
    ] = 10.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write the files of exports into this folder of this machine.", metavar="DIR"),
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Embed texts and run jobs for a daemon, until stopped by a signal."""
    from vecd.client import connect
    from vecd.workers.leased_worker import Worker

    wanted = _kinds(kinds)
    _check_output(wanted, output, socket)
    who = name or f"{platform.node() or 'worker'}:{os.getpid()}"
    with options.open_client(socket, no_spawn):
        pass  # a wrong address or key is an error now; later, the worker tries again

    def again() -> Client:
        return connect(socket, spawn=False)

    made = Worker(
        again, name=who, kinds=wanted, concurrency=concurrency, lease_s=lease, grace_s=grace, output=output,
        say=options.say,
    )  # fmt: skip
    shown = Output(json)
    with _stopped_by_signals(made):
        shown.one(
            {"worker": who, "kinds": list(wanted), "concurrency": concurrency},
            f"{who} runs {', '.join(wanted)}, {concurrency} at once; stop it with Ctrl-C",
        )
        ended = made.run()
    done = made.counts
    shown.one(
        {
            "worker": who, "tasks": done.tasks, "texts": done.texts, "jobs": done.jobs, "failed": done.failed,
            "lost": done.lost, "returned": done.returned,
        },
        f"{plural(done.texts, 'text')} embedded in {plural(done.tasks, 'task')}, {plural(done.jobs, 'job')} completed,"
        f" {done.failed:,} failed, {done.lost:,} lost, {done.returned:,} returned",
    )  # fmt: skip
    if not ended:  # a thread still computes, and cannot be interrupted
        os._exit(0)


@contextlib.contextmanager
def _stopped_by_signals(made: Worker) -> Iterator[None]:
    """The first SIGTERM or SIGINT stops the worker; the second ends the process."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        made.stop()

    before = {number: signal.signal(number, stop) for number in numbers}
    wakeup = signal.set_wakeup_fd(made.wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


def _kinds(given: list[str] | None) -> tuple[str, ...]:
    """Raises VecError `unsupported`."""
    from vecd.errors import nearest
    from vecd.workers.leased_worker import KINDS, TASKS

    found = tuple(dict.fromkeys(kind.strip() for each in given or () for kind in each.split(",") if kind.strip()))
    for kind in found:
        if kind not in KINDS:
            close = nearest(kind, list(KINDS))
            hint = f"did you mean {close!r}?" if close else f"kinds: {', '.join(KINDS)}"
            raise VecError(Code.UNSUPPORTED, f"a worker cannot run {kind!r:.60}", hint, field="kinds")
    return found or TASKS


def _check_output(kinds: tuple[str, ...], output: Path | None, socket: str | None) -> None:
    """Raises VecError `invalid_request`."""
    from vecd.workers.leased_jobs import FILE_KINDS

    files = [kind for kind in kinds if kind in FILE_KINDS]
    if output is not None and not output.is_dir():
        raise VecError(Code.INVALID_REQUEST, f"{output} is not a folder", "create it", field="output")
    if files and output is None and options.remote(socket):
        raise VecError(
            Code.INVALID_REQUEST,
            f"jobs of the kind {files[0]!r} name files of the daemon's machine, which this worker may not share",
            "use --output DIR to write their files into a folder of this machine",
            field="kinds",
        )
