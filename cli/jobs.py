"""What the commands share that submit or show jobs: options, formatting, and waiting with progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd.errors import Code, VecError

from . import main, options
from .output import Output, one_line, plural, size

if TYPE_CHECKING:
    from vecd.client import Client

#: Final states of a job -> the exit status of waiting for it.
ENDED = {"completed": 0, "failed": main.FAILED, "dead": main.FAILED, "cancelled": main.INTERRUPTED}

_RECONNECTS = 8
_REFRESH_S = 0.25

Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A parameter of the kind of job. Can be repeated.", metavar="NAME=VALUE"),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", "-w", help="A filter, for kinds with the parameter where. Can be repeated.", metavar="FILTER"
    ),
]
LibraryName = Annotated[
    str | None,
    typer.Option(
        "--library",
        "-l",
        help="The library that the job works on.",
        metavar="NAME",
        autocompletion=options.names("library"),
    ),
]
Priority = Annotated[
    int, typer.Option("--priority", help="From -100 to 100; higher priorities start first.", metavar="N")
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", help="The job fails if an attempt takes longer: 90, 10m, 2h.", metavar="TIME")
]


def seconds(text: str | None) -> float | None:
    """Parses a duration: 90, 1.5s, 10m, 2h, 1d. Raises VecError `invalid_request`."""
    from vecd.units import duration_s

    if text is None:
        return None
    return float(text) if text.replace(".", "", 1).isdecimal() else duration_s(text)


def params_of(given: list[str] | None, where: list[str] | None, socket: str | None) -> dict[str, Any]:
    """Parses the parameters of a job. A value is JSON if it parses as JSON; otherwise it is a string."""
    import json

    params: dict[str, Any] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise VecError(Code.INVALID_REQUEST, f"--param {each!r:.60} is not NAME=VALUE")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    for name in ("path",):  # the daemon has another working folder; behind a gateway, perhaps another machine
        if isinstance(params.get(name), str) and not options.remote(socket):
            params[name] = absolute(params[name])
    if where:
        params["where"] = where
    return params


def absolute(path: str) -> str:
    """Makes a path absolute, because the daemon has another working folder. Raises VecError `invalid_request`."""
    import os

    from vecd.durable_files import printable_path

    try:
        found = os.path.abspath(os.path.expanduser(path))
    except OSError as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{path!r} is relative, and the working folder no longer exists ({error.strerror})",
            "change to another folder, or use an absolute path",
        ) from error
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"the path {printable_path(found)} is not UTF-8",
            "rename the file, or create a link to it",
        ) from error
    return found


def progress_of(job: dict[str, Any]) -> str:
    """Formats the progress of a job."""
    progress = job["progress"]
    if progress is None:
        return ""
    done, total, unit = progress["done"], progress["total"], progress["unit"]

    def amount(count: float) -> str:
        return size(int(count)) if unit == "bytes" else f"{int(count):,}"

    text = f"{100 * done / total:.0f} % of {amount(total)}" if total else amount(done)
    text += "" if unit == "bytes" else f" {unit}"
    if progress["rate"]:
        text += f", {amount(progress['rate'])}/s"
    if progress["left_s"] is not None:
        minutes, left_s = divmod(round(progress["left_s"]), 60)
        hours, minutes = divmod(minutes, 60)
        text += f", {hours}:{minutes:02}:{left_s:02} left" if hours else f", {minutes}:{left_s:02} left"
    return text


def outcome_of(job: dict[str, Any]) -> str:
    """Formats the error, the progress or the result of a job."""
    if job["error"]:
        return one_line(job["error"]["message"])
    if job["state"] in ("pending", "running"):
        return progress_of(job)
    return ", ".join(f"{key} {value}" for key, value in (job["result"] or {}).items() if not isinstance(value, list))


def counts_of(body: dict[str, Any]) -> str:
    """Formats the number of jobs in each state, the pauses and the number of workers."""
    text = ", ".join(f"{body[state]:,} {state}" for state in ("pending", "running", *ENDED) if body[state]) or "none"
    if body["paused"]:
        text += f"; paused: {'all' if '' in body['paused'] else ', '.join(body['paused'])}"
    return f"{text}; {plural(body['workers'], 'worker')}"


def executor_of(executor: Mapping[str, Any]) -> str:
    """Formats what embeds for the daemon; empty if it is the daemon itself, and has nothing to do."""
    here = plural(executor["here_waiting"], "request") + " here" if executor["here_waiting"] else ""
    if executor["executor"] == "local":
        return f"local: {here}" if here else ""
    text = f"{executor['executor']} at {executor['broker']}: "
    if executor["state"] == "silent":
        text += "no worker answers, so the daemon embeds itself, slower"
    elif executor["state"] == "waiting":
        text += "no worker has answered yet"
    else:
        text += plural(executor["workers"], "worker")
    waiting = executor["sent"] + executor["waiting"]
    text += (f", {plural(waiting, 'message')} waiting" if waiting else "") + (f", {here}" if here else "")
    return one_line(text + (f"; last error: {executor['error']}" if executor["error"] else ""))


def table(output: Output, jobs: Sequence[dict[str, Any]]) -> None:
    """Prints jobs as a table."""
    columns = ("job", "kind", "library", "state", "attempt", "submitted", "")
    rows = [
        (
            str(job["job_id"]), job["kind"], job["library"], job["state"], job["attempt"],
            job["created_at"][:19].replace("T", " "), outcome_of(job),
        )
        for job in jobs
    ]  # fmt: skip
    output.table(columns, rows)


def wait(
    connect: Callable[[], Client],
    job_ids: Sequence[int],
    *,
    any: bool = False,
    timeout_s: float | None = None,
) -> list[dict[str, Any]]:
    """Waits for jobs and returns their final states. Shows progress on stderr if that is a terminal, and reconnects
    if the daemon restarts.

    Raises VecError `timeout`, `not_found`, or an error of the connection.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    lost = 0
    with _ProgressDisplay() as display:
        while True:
            try:
                with connect() as client:
                    lost = 0
                    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                    return client.wait_for_jobs(
                        job_ids, any=any, timeout_s=left_s, every_s=_REFRESH_S if display.on else None,
                        on_change=display.update,
                    )  # fmt: skip
            except VecError as error:
                if error.code == Code.TIMEOUT:
                    raise VecError(Code.TIMEOUT, f"not done within {timeout_s:g} s", "the jobs continue") from error
                lost += 1
                again = error.code in (Code.CONNECTION_LOST, Code.SHUTTING_DOWN, Code.NO_DAEMON)
                if not again or lost > _RECONNECTS:
                    raise
                time.sleep(0.05 * 2**lost)


class _ProgressDisplay:
    """Shows the progress of jobs on stderr, if that is a terminal."""

    def __init__(self) -> None:
        self.on = sys.stderr.isatty()
        self._live: Any = None

    def __enter__(self) -> _ProgressDisplay:
        if self.on:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, jobs: Sequence[dict[str, Any]]) -> None:
        if self._live is not None:
            from rich.text import Text

            lines = [f"job {job['job_id']}  {job['kind']}  {job['state']}  {outcome_of(job)}" for job in jobs]
            self._live.update(Text("\n".join(lines)))


def status_of(jobs: Sequence[dict[str, Any]]) -> int:
    """The exit status for the outcome of jobs: that of the worst; 3 if an ingest job rejected lines."""
    worst = 0
    for job in jobs:
        status = ENDED.get(job["state"], 0)
        if job["kind"] == "ingest" and status == 0 and (job["result"] or {}).get("failed"):
            status = main.PARTLY
        if worst in (0, main.PARTLY) and status:
            worst = status if worst == 0 or status != main.PARTLY else worst
        if status == main.FAILED:
            worst = main.FAILED
    return worst


def run(socket: str | None, no_spawn: bool, kind: str, params: dict[str, Any]) -> dict[str, Any]:
    """Submits a job, waits for it and returns its result. Ctrl-C cancels the job. Raises VecError with its error."""
    with options.open_client(socket, no_spawn) as client:
        job = client.submit_job(kind, params, priority=10)
    try:
        (ended,) = wait(lambda: options.open_client(socket, no_spawn), [job["job_id"]])
    except KeyboardInterrupt:
        with options.open_client(socket, no_spawn) as client:
            client.cancel_jobs([job["job_id"]])
        raise
    if ended["error"]:
        raise VecError.from_wire(ended["error"])
    if ended["state"] != "completed":
        raise VecError(Code.CANCELLED, f"job {ended['job_id']} was {ended['state']}")
    return dict(ended["result"] or {})
