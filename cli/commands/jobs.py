"""vec jobs: submit, inspect, wait for, cancel and retry background jobs; manage schedules."""

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

Ids = Annotated[
    list[int], typer.Argument(metavar="ID...", help="The jobs' numbers.", autocompletion=options.names("job"))
]
SomeIds = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="The jobs' numbers.", autocompletion=options.names("job"))
]
Kinds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KIND]...", help="Only jobs of these kinds.", autocompletion=options.names("kind")),
]


class State(StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


States = Annotated[
    list[State] | None, typer.Option("--state", help="Jobs in this state. Can be repeated.", metavar="STATE")
]

_REFRESH_S = 0.5


@app.callback()
def jobs() -> None:
    """Manage background jobs and schedules."""


@app.command(epilog="Prints the job when it is durable. Exit status: 2 usage, 4 no such library or job.")
def submit(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="The kind of job; see `vec jobs kinds`.", autocompletion=options.names("kind")
        ),
    ],
    library: common.LibraryName = None,
    param: common.Params = None,
    where: common.Where = None,
    priority: common.Priority = 0,
    delay: Annotated[
        str | None, typer.Option("--delay", help="Start after this time: 90, 10m, 2h.", metavar="TIME")
    ] = None,
    after: Annotated[
        list[int] | None,
        typer.Option(
            "--after",
            help="Start after this job has completed. Can be repeated.",
            metavar="ID",
            autocompletion=options.names("job"),
        ),
    ] = None,
    unique: Annotated[
        str | None,
        typer.Option("--unique", help="Return the active job with this key, if there is one.", metavar="KEY"),
    ] = None,
    lock: Annotated[
        str | None,
        typer.Option("--lock", help="Do not run at the same time as another job with this key.", metavar="KEY"),
    ] = None,
    timeout: common.Timeout = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Submit a job."""
    output = Output(json)
    params = common.params_of(param, where, socket)
    with options.open_client(socket, no_spawn) as client:
        job = client.submit_job(
            kind, params, library=library, priority=priority, delay_s=common.seconds(delay), after=after,
            unique=unique, lock=lock, timeout_s=common.seconds(timeout),
        )  # fmt: skip
    if wait:
        _wait([job["job_id"]], output, socket, no_spawn, any=False, timeout_s=None)
    existing = " (already exists)" if job["existing"] else ""
    output.one(job, f"job {job['job_id']}{existing}")


@app.command(
    epilog="Without an ID: the number of jobs in each state, and the running jobs. Exit status: 4 no such job."
)
def status(
    ids: SomeIds = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh the output until Ctrl-C.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Show a summary of all jobs, or the state of these jobs."""
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
    """Draws the table twice per second."""
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
                found, head = body["jobs"], _summary(body)
            lines = [
                f"{job['job_id']:>8}  {job['kind']:<10}  {job['library'] or '':<16}  {job['state']:<10}"
                f"  {common.outcome_of(job)}"
                for job in found
            ]
            live.update(Text("\n".join([head, *lines] if head else lines)), refresh=True)
            if ids and all(job["state"] in common.ENDED for job in found):
                return
            time.sleep(_REFRESH_S)


def _summary(body: dict[str, Any]) -> str:
    executor = common.executor_of(body["executor"])
    return common.counts_of(body) + (f"\nembedding: {executor}" if executor else "")


def _overview(output: Output, body: dict[str, Any]) -> None:
    print(_summary(body))
    if body["jobs"]:
        common.table(output, body["jobs"])


@app.command("list", epilog="Exit status: 0 success, even if no job matches.")
def list_(
    state: States = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="Jobs of this kind. Can be repeated.", metavar="KIND", autocompletion=options.names("kind")
        ),
    ] = None,
    library: common.LibraryName = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Jobs submitted within this time: 90, 10m, 2h.", metavar="TIME")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="The newest N jobs.", metavar="N")] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """List jobs, newest first."""
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
    """Show the details of jobs, including every attempt."""
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
    print(f"state        {job['state']}{', being cancelled' if job['cancelling'] else ''}, priority {job['priority']}")
    print(f"params       {one_line(json.dumps(job['params'], ensure_ascii=False))}")
    for name, key in (("after", "after"), ("unique", "unique"), ("lock", "lock"), ("schedule", "schedule")):
        if job[key]:
            value = ", ".join(map(str, job[key])) if isinstance(job[key], list) else job[key]
            print(f"{name:<12} {one_line(value)}")
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
    epilog="Exit status: 0 completed, 1 failed or dead, 3 lines rejected, 4 no such job, 124 timed out, 130 cancelled."
)
def wait(
    ids: Ids,
    any: Annotated[bool, typer.Option("--any", help="Wait until one of the jobs has ended.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="The maximum time to wait: 90, 10m.", metavar="TIME")
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Wait until jobs have ended; the exit status is their outcome."""
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
    epilog="Running jobs stop after their current step. Jobs that have ended do not change. Exit status: 4 no such job."
)
def cancel(
    ids: Ids, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Cancel jobs."""
    with options.open_client(socket, no_spawn) as client:
        _print_states(client.cancel_jobs(ids), Output(json))


@app.command(
    epilog="Jobs resume from their checkpoints; export and backup start over."
    " Exit status: 2 a job that cannot be retried, 4 no such job."
)
def retry(
    ids: SomeIds = None,
    state: States = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Retry failed, dead or cancelled jobs."""
    with options.open_client(socket, no_spawn) as client:
        for page in _pages(client, ids, state):
            _print_states(client.retry_jobs(page), Output(json))


@app.command(epilog="Exit status: 2 a job that has not ended, 4 no such job.")
def drop(
    ids: SomeIds = None,
    state: States = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete the records of jobs that have ended, and their files."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        for page in _pages(client, ids, state):
            for job in client.drop_jobs(page):
                output.one({"job_id": job["job_id"], "dropped": True}, f"job {job['job_id']} dropped")


def _pages(client: Any, ids: list[int] | None, states: list[State] | None) -> list[list[int]]:
    """The ids of the selected jobs, ascending, in pages of one request each."""
    if bool(ids) == bool(states):
        raise VecError(Code.INVALID_REQUEST, "use either ids or --state")
    if states:
        ids = [job["job_id"] for job in client.jobs(states=[each.value for each in states])]
    in_order = sorted(set(ids or ()))  # a job is retried before the jobs that run after it
    return [in_order[start : start + 500] for start in range(0, len(in_order), 500)]


def _print_states(found: list[dict[str, Any]], output: Output) -> None:
    if output.json:
        output.objects(found)
        return
    for job in found:
        print(f"job {job['job_id']} {job['state']}")


@app.command(epilog="Running jobs stop after their current step and become pending. A pause survives restarts.")
def pause(
    kinds: Kinds = None, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Start no new jobs, or none of these kinds."""
    with options.open_client(socket, no_spawn) as client:
        body = client.pause_jobs(kinds or ())
    Output(json).one(body, common.counts_of(body))


@app.command(epilog="Without a kind: ends all pauses.")
def resume(
    kinds: Kinds = None, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """End pauses."""
    with options.open_client(socket, no_spawn) as client:
        body = client.resume_jobs(kinds or ())
    Output(json).one(body, common.counts_of(body))


@app.command(epilog="Threads of the daemon have no lease. Exit status: 0 success, even if nothing runs.")
def workers(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the workers, with the job and the remaining lease of each."""
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
            each["stop"] or ("" if each["kind"] else "waiting for work"),
        )
        for each in found
    ]  # fmt: skip
    output.table(("worker", "job", "kind", "library", "attempt", "since", "lease", ""), rows)


@app.command(epilog="Parameters that a job needs are marked with an asterisk. See vec-jobs(1).")
def kinds(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the kinds of job with their parameters."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        found = client.job_kinds()
    if output.json:
        output.objects(found)
        return
    for each in found:
        library = {"none": "", "optional": " [-l LIBRARY]", "required": " -l LIBRARY"}[each["library"]]
        print(one_line(f"{each['kind']}{library}  {each['what']}"))
        for param in each["params"]:
            mark = "*" if param["required"] else ""
            print(one_line(f"    -p {param['name']}{mark}=…  {param['what']} ({param['valid']})"))


@app.command(epilog="Exit status: 4 no such job.")
def logs(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="The job's number.", autocompletion=options.names("job"))],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job has ended.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print the log of a job. For ingest: the rejected lines."""
    output = Output(json)
    after = 0
    with options.open_client(socket, no_spawn) as client:
        while True:
            ended = client.job(job_id)["state"] in common.ENDED  # before reading: its last lines are read too
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
