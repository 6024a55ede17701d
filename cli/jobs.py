"""What the commands about jobs share: options, tables, progress, waiting, and exit statuses."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd.errors import Code, VecError

from . import main
from .output import Output, one_line, plural, size

if TYPE_CHECKING:
    from vecd.client import Client

#: States that a job does not leave by itself -> the exit status of waiting for it.
ENDED = {"completed": 0, "failed": main.FAILED, "dead": main.FAILED, "cancelled": main.INTERRUPTED}

_RECONNECTS = 8
_SHOWN_S = 0.25

Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A param of the kind; may be repeated.", metavar="NAME=VALUE"),
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", help="Short for the param where: delete, export.", metavar="FILTER"),
]
LibraryName = Annotated[
    str | None, typer.Option("--library", "-l", help="The library that it works on.", metavar="NAME")
]
Priority = Annotated[int, typer.Option("--priority", help="From -100 to 100; higher is sooner.", metavar="N")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", help="It fails if an attempt takes longer: 90, 10m, 2h.", metavar="TIME")
]


def seconds(text: str | None) -> float | None:
    """A time as people write it: 90, 1.5s, 10m, 2h, 1d. Raises VecError `invalid_request`."""
    from vecd.units import duration_s

    if text is None:
        return None
    return float(text) if text.replace(".", "", 1).isdecimal() else duration_s(text)


def params_of(given: list[str] | None, where: list[str] | None) -> dict[str, Any]:
    """The params of a job. A value that is JSON is what it says; anything else is a string."""
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
    for name in ("path",):  # the daemon has a working folder of its own
        if isinstance(params.get(name), str):
            params[name] = absolute(params[name])
    if where:
        params["where"] = where
    return params


def absolute(path: str) -> str:
    """A path as the daemon needs it. Raises VecError `invalid_request`."""
    import os

    try:
        found = os.path.abspath(os.path.expanduser(path))
    except OSError as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{path!r} is relative, and the working folder does not exist any more ({error.strerror})",
            "change to another folder, or use an absolute path",
        ) from error
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise VecError(
            Code.INVALID_REQUEST,
            f"the path {os.fsencode(found).decode('utf-8', 'backslashreplace')} is not UTF-8",
            "rename the file, or create a link to it",
        ) from error
    return found


def progress_of(job: dict[str, Any]) -> str:
    """How far a job has come, for people."""
    progress = job["progress"]
    if progress is None:
        return ""
    done, total, unit = progress["done"], progress["total"], progress["unit"]

    def amount(count: float) -> str:
        return size(int(count)) if unit == "bytes" else f"{int(count):,}"

    told = f"{100 * done / total:.0f} % of {amount(total)}" if total else amount(done)
    told += "" if unit == "bytes" else f" {unit}"
    if progress["rate"]:
        told += f", {amount(progress['rate'])}/s"
    if progress["left_s"] is not None:
        minutes, left_s = divmod(round(progress["left_s"]), 60)
        hours, minutes = divmod(minutes, 60)
        told += f", {hours}:{minutes:02}:{left_s:02} left" if hours else f", {minutes}:{left_s:02} left"
    return told


def outcome_of(job: dict[str, Any]) -> str:
    """What a job has come to, for people: its progress, its error or its result."""
    if job["error"]:
        return one_line(job["error"]["message"])
    if job["state"] in ("pending", "running"):
        return progress_of(job)
    return ", ".join(f"{key} {value}" for key, value in (job["result"] or {}).items() if not isinstance(value, list))


def counts_of(body: dict[str, Any]) -> str:
    """How many jobs there are in which state, for people."""
    told = ", ".join(f"{body[state]:,} {state}" for state in ("pending", "running", *ENDED) if body[state]) or "none"
    if body["paused"]:
        told += f"; paused: {'all' if '' in body['paused'] else ', '.join(body['paused'])}"
    return f"{told}; {plural(body['workers'], 'worker')}"


def table(output: Output, jobs: Sequence[dict[str, Any]]) -> None:
    """Jobs for people."""
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
    """Waits for jobs, with their progress on stderr if that is a terminal; returns them as they are at the end. Also
    a daemon that goes away is waited for.

    Raises VecError `timeout`, `not_found`, or what the connection does.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    lost = 0
    with _Shown() as shown:
        while True:
            try:
                with connect() as client:
                    lost = 0
                    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                    return client.wait_for_jobs(
                        job_ids, any=any, timeout_s=left_s, every_s=_SHOWN_S if shown.on else None,
                        on_change=shown.update,
                    )  # fmt: skip
            except VecError as error:
                if error.code == Code.TIMEOUT:
                    raise VecError(Code.TIMEOUT, f"not done within {timeout_s:g} s", "the jobs go on") from error
                lost += 1
                again = error.code in (Code.CONNECTION_LOST, Code.SHUTTING_DOWN, Code.NO_DAEMON)
                if not again or lost > _RECONNECTS:
                    raise
                time.sleep(0.05 * 2**lost)


class _Shown:
    """Progress of jobs on stderr, when that is a terminal."""

    def __init__(self) -> None:
        self.on = sys.stderr.isatty()
        self._live: Any = None

    def __enter__(self) -> _Shown:
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
    """The exit status that tells how jobs have ended: the worst of them; 3 if some lines of an ingest were refused."""
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
    """Submits a job and waits for it; returns its result. Ctrl-C cancels it. Raises VecError with its error."""
    from . import options

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
