"""vec jobs: submits background jobs, shows them, waits for them, cancels and retries them; schedules are in
schedule.py."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import jobs as common
from .. import options
from ..output import Output, one_line, printable
from . import schedule

app = options.command()
app.add_typer(schedule.app, name="schedule")

Ids = Annotated[list[int], typer.Argument(metavar="ID...", help="The jobs' numbers.")]
SomeIds = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="The jobs' numbers.")]
Kinds = Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Only jobs of these kinds.")]


class State(StrEnum):
    """What a job is up to."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


States = Annotated[
    list[State] | None, typer.Option("--state", help="Those in this state; may be repeated.", metavar="STATE")
]

_REFRESH_S = 0.5


@app.callback()
def jobs() -> None:
    """Submit background jobs, look at them, wait for them; schedules."""


@app.command(epilog="Prints the job as soon as it is safe. Exit status: 2 usage, 4 no such library or job.")
def submit(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What is to be done; see vec-jobs(1).")],
    library: common.LibraryName = None,
    param: common.Params = None,
    where: common.Where = None,
    priority: common.Priority = 0,
    delay: Annotated[str | None, typer.Option("--delay", help="Not before: 90, 10m, 2h.", metavar="TIME")] = None,
    after: Annotated[
        list[int] | None,
        typer.Option("--after", help="Not before this job has completed; may be repeated.", metavar="ID"),
    ] = None,
    unique: Annotated[
        str | None, typer.Option("--unique", help="If a job with this key is there, that one.", metavar="KEY")
    ] = None,
    lock: Annotated[
        str | None, typer.Option("--lock", help="Never beside another job with this key.", metavar="KEY")
    ] = None,
    timeout: common.Timeout = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Submit a job."""
    output = Output(json)
    params = common.params_of(param, where)
    with options.open_client(socket, no_spawn) as client:
        job = client.submit_job(
            kind, params, library=library, priority=priority, delay_s=common.seconds(delay), after=after,
            unique=unique, lock=lock, timeout_s=common.seconds(timeout),
        )  # fmt: skip
    if wait:
        _wait([job["job_id"]], output, socket, no_spawn, any=False, timeout_s=None)
    there = ", which was there already" if job["existing"] else ""
    output.one(job, f"job {job['job_id']}{there}")


@app.command(epilog="Without an id: counts by state, and what runs. Exit status: 4 no such job.")
def status(
    ids: SomeIds = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it; end with Ctrl-C.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Show how jobs do: all of them in short, or these."""
    output = Output(json)
    if watch and not output.json:
        _watch(ids or [], output, socket, no_spawn)
        return
    with options.open_client(socket, no_spawn) as client:
        while True:
            if ids:
                found = [client.job(job_id) for job_id in ids]
                output.objects(found, flush=True) if output.json else common.table(output, found)
            else:
                body = client.jobs_status()
                output.objects([body], flush=True) if output.json else _overview(output, body)
            if not watch:
                return
            time.sleep(_REFRESH_S)


def _watch(ids: list[int], output: Output, socket: str | None, no_spawn: bool) -> None:
    """A table that is drawn again and again."""
    from rich.live import Live
    from rich.text import Text

    from ..output import console

    with options.open_client(socket, no_spawn) as client, Live(console=console(), auto_refresh=False) as live:
        while True:
            if ids:
                found = [client.job(job_id) for job_id in ids]
                head = ""
            else:
                body = client.jobs_status()
                found, head = body["jobs"], common.counts_of(body)
            lines = [
                f"{job['job_id']:>8}  {job['kind']:<10}  {job['library'] or '':<16}  {job['state']:<10}"
                f"  {common.outcome_of(job)}"
                for job in found
            ]
            live.update(Text("\n".join([head, *lines] if head else lines)), refresh=True)
            if ids and all(job["state"] in common.ENDED for job in found):
                return
            time.sleep(_REFRESH_S)


def _overview(output: Output, body: dict[str, Any]) -> None:
    print(common.counts_of(body))
    if body["jobs"]:
        common.table(output, body["jobs"])


@app.command("list", epilog="The newest first. Exit status: 0 done, also if there are none.")
def list_(
    state: States = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Those of this kind; may be repeated.", metavar="KIND")
    ] = None,
    library: common.LibraryName = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Those submitted so long ago at most: 90, 10m, 2h.", metavar="TIME")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="The newest so many.", metavar="N")] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """List jobs, the newest first."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.jobs(
            states=state and [each.value for each in state], kinds=kind, library=library,
            since_s=common.seconds(since), limit=n,
        )  # fmt: skip
        if output.json:
            output.objects(found)
        else:
            common.table(output, list(found))


@app.command(epilog="Exit status: 4 no such job.")
def show(
    ids: Ids, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show all that is known of jobs, with every attempt."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        for job_id in ids:
            job = client.job(job_id)
            if output.json:
                output.objects([job], flush=True)
            else:
                _describe(job)


def _describe(job: dict[str, Any]) -> None:
    import json

    print(f"job          {job['job_id']}, {job['kind']}" + (f" on {job['library']}" if job["library"] else ""))
    print(f"state        {job['state']}{', to be cancelled' if job['cancelling'] else ''}, priority {job['priority']}")
    print(f"params       {one_line(json.dumps(job['params'], ensure_ascii=False))}")
    for name, key in (("after", "after"), ("unique", "unique"), ("lock", "lock"), ("schedule", "schedule")):
        if job[key]:
            told = ", ".join(map(str, job[key])) if isinstance(job[key], list) else job[key]
            print(f"{name:<12} {one_line(told)}")
    print(f"submitted    {job['created_at']}")
    if job["ready_at"] and job["state"] == "pending":
        print(f"not before   {job['ready_at']}")
    if job["progress"]:
        print(f"progress     {common.progress_of(job)}")
    if job["result"] is not None:
        print(f"result       {one_line(json.dumps(job['result'], ensure_ascii=False))}")
    if job["error"] is not None:
        hint = f" ({job['error']['hint']})" if job["error"].get("hint") else ""
        print(f"error        {one_line(job['error']['message'])}{one_line(hint)}")
    for each in job["attempts"]:
        why = f": {one_line(each['error']['message'])}" if each["error"] else ""
        print(f"attempt {each['attempt']:<4} {each['started_at']}  {each['outcome'] or 'running'}{why}")


@app.command(
    epilog="Exit status: 0 completed, 1 failed or dead, 3 lines refused, 4 no such job, 124 timed out, 130 cancelled."
)
def wait(
    ids: Ids,
    any: Annotated[bool, typer.Option("--any", help="Until one of them has ended.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Wait so long at most: 90, 10m.", metavar="TIME")
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Wait until jobs have ended; the exit status tells how."""
    _wait(ids, Output(json), socket, no_spawn, any=any, timeout_s=common.seconds(timeout))


def _wait(
    ids: list[int], output: Output, socket: str | None, no_spawn: bool, *, any: bool, timeout_s: float | None
) -> None:
    found = common.wait(lambda: options.open_client(socket, no_spawn), ids, any=any, timeout_s=timeout_s)
    ended = [job for job in found if job["state"] in common.ENDED]
    if output.json:
        output.objects(ended, flush=True)
    for job in ended:
        if not output.json:
            print(one_line(f"job {job['job_id']} {job['state']}: {common.outcome_of(job)}"))
        if job["error"]:
            print(
                f"vec: job {job['job_id']}: {printable(job['error']['message'])} ({job['error']['code']})",
                file=sys.stderr,
            )
    raise typer.Exit(common.status_of(ended))


@app.command(
    epilog="Running jobs end with their step. Jobs that have ended stay as they are. Exit status: 4 no such job."
)
def cancel(
    ids: Ids, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Cancel jobs."""
    with options.open_client(socket, no_spawn) as client:
        _told(client.cancel_jobs(ids), Output(json))


@app.command(
    epilog="They go on from their checkpoints; export and backup begin again."
    " Exit status: 2 a job that need not be retried, 4 no such job."
)
def retry(
    ids: SomeIds = None,
    state: States = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Let jobs that failed, died or were cancelled go on."""
    with options.open_client(socket, no_spawn) as client:
        for page in _pages(client, ids, state):
            _told(client.retry_jobs(page), Output(json))


@app.command(epilog="Exit status: 2 a job that has not ended, 4 no such job.")
def drop(
    ids: SomeIds = None,
    state: States = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Forget jobs that have ended, and what they put aside."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        for page in _pages(client, ids, state):
            for job in client.drop_jobs(page):
                output.one({"job_id": job["job_id"], "dropped": True}, f"job {job['job_id']} dropped")


def _pages(client: Any, ids: list[int] | None, states: list[State] | None) -> list[list[int]]:
    """The jobs that are meant, a request's worth at a time."""
    if bool(ids) == bool(states):
        raise VecError(Code.INVALID_REQUEST, "give ids, or --state")
    if states:
        ids = [job["job_id"] for job in client.jobs(states=[each.value for each in states])]
    in_order = sorted(set(ids or ()))  # a job that others run after is retried before them
    return [in_order[start : start + 500] for start in range(0, len(in_order), 500)]


def _told(found: list[dict[str, Any]], output: Output) -> None:
    if output.json:
        output.objects(found)
        return
    for job in found:
        print(f"job {job['job_id']} {job['state']}")


@app.command(epilog="Running jobs stop after their step and are pending again.")
def pause(
    kinds: Kinds = None, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Let no job begin, or none of these kinds."""
    with options.open_client(socket, no_spawn) as client:
        body = client.pause_jobs(kinds or ())
    Output(json).one(body, common.counts_of(body))


@app.command(epilog="Without a kind every pause ends.")
def resume(
    kinds: Kinds = None, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """End pauses."""
    with options.open_client(socket, no_spawn) as client:
        body = client.resume_jobs(kinds or ())
    Output(json).one(body, common.counts_of(body))


@app.command(epilog="Threads of the daemon have no lease. Exit status: 0 done, also if nothing runs.")
def workers(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List who works on which job, since when, and how long each lease lasts."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.workers()
    if output.json:
        output.objects(found)
        return
    rows = [
        (
            one_line(each["worker"]), each["job_id"], each["kind"], each["library"], each["attempt"],
            (each["started_at"] or "")[:19].replace("T", " "),
            "" if each["lease_left_s"] is None else f"{each['lease_left_s']:g} s",
            each["stop"] or ("" if each["job_id"] else "waits for a job"),
        )
        for each in found
    ]  # fmt: skip
    output.table(("worker", "job", "kind", "library", "attempt", "since", "lease", ""), rows)


@app.command(epilog="Exit status: 4 no such job.")
def logs(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="The job's number.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print what a job had to say, as the lines that an ingest refused."""
    output = Output(json)
    after = 0
    with options.open_client(socket, no_spawn) as client:
        while True:
            ended = client.job(job_id)["state"] in common.ENDED  # before reading: what it says last is read too
            while lines := client.job_logs(job_id, after):
                after = lines[-1]["line"]
                if output.json:
                    output.objects(lines, flush=True)
                else:
                    for line in lines:
                        print(f"{line['time']}  {printable(line['text'])}", flush=True)
            if ended or not follow:
                return
            time.sleep(_REFRESH_S)


assert set(common.ENDED) < {state.value for state in State}
