"""Background jobs: submit, list, wait, cancel, retry, drop, their logs; and the queue."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from ... import limits
from ...errors import Code, VecError
from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..jobs import job_body, submitted
from ..schemas import JOB_STATUS, array, ref

_JOB_ID = Parameter(
    "job_id", "path", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, "The id of a job.", required=True
)
_WAIT = Parameter(
    "wait_s", "query", {"type": "number", "minimum": 0, "maximum": limits.HTTP_WAIT_S_MAX},
    "Answer when the job has ended, or after this number of seconds.",
)  # fmt: skip
_AFTER = Parameter("after", "query", {"type": "integer", "minimum": 0}, "Only lines after the line of this number.")
_SELECTION = (
    Parameter("status", "query", array(JOB_STATUS), "Only jobs in this state. Can be repeated."),
    Parameter("kind", "query", array({"type": "string"}), "Only jobs of this kind. Can be repeated."),
    Parameter("library", "query", {"type": "string"}, "Only jobs that work on this library."),
    Parameter("since_s", "query", {"type": "number", "minimum": 0}, "Only jobs submitted within this many seconds."),
    Parameter(
        "limit", "query", {"type": "integer", "minimum": 1, "maximum": limits.HTTP_JOBS_MAX, "default": 100},
        "The maximum number of jobs.",
    ),
)  # fmt: skip
ENDED = ("completed", "failed", "cancelled", "dead")


async def list_(call: Call) -> Response:
    query = call.query
    limit = query.get("limit", 100)
    if not 1 <= limit <= limits.HTTP_JOBS_MAX:
        raise VecError(Code.INVALID_REQUEST, f"limit must be from 1 to {limits.HTTP_JOBS_MAX:,}", field="limit")
    found: list[dict[str, Any]] = []
    async with call.gateway.pool.connection() as client:
        pending = client.submit(
            "jobs.list", states=query.get("status"), kinds=query.get("kind"), library=query.get("library"),
            since_s=query.get("since_s"), limit=None if call.restricted else limit,
        )  # fmt: skip
        async with aclosing(pending.parts()) as parts:
            async for reply in parts:
                if reply.kind == "items":
                    found += [job_body(job) for job in reply.body if call.sees(job["library"])]
                if len(found) >= limit:
                    break
    return json_answer({"jobs": found[:limit]})


async def submit(call: Call) -> Response:
    body = await call.json_body()
    return submitted(await call.daemon("jobs.submit", **body))


async def queue(call: Call) -> Response:
    answer = await call.unchecked("jobs.status")
    running = [job_body(job) for job in answer["jobs"] if call.sees(job["library"])]
    if call.restricted:  # the counts are of all libraries
        return json_answer({"jobs": running})
    return json_answer({**answer, "jobs": running})


async def kinds(call: Call) -> Response:
    return json_answer(await call.unchecked("jobs.kinds"))


async def show(call: Call) -> Response:
    job = await _job(call)
    wait_s = call.query.get("wait_s", 0)
    if wait_s > 0 and job["state"] not in ENDED:
        await _wait(call, job["job_id"], min(wait_s, limits.HTTP_WAIT_S_MAX))
        job = await _job(call)
    return json_answer(job_body(job))


async def _job(call: Call) -> dict[str, Any]:
    """The job that the path names. Raises VecError `not_found`, also for a job that the principal may not see."""
    job_id = int(call.path["job_id"])
    job = await call.unchecked("jobs.show", job_id=job_id)
    if not call.sees(job["library"]):
        raise VecError(Code.NOT_FOUND, f"there is no job {job_id}")
    return job


async def _wait(call: Call, job_id: int, wait_s: float) -> None:
    """Returns when the job has ended, the time is over, or the gateway or its daemon stops."""
    async with call.gateway.pool.connection() as client:
        pending = client.submit("jobs.wait", job_ids=[job_id], timeout_s=wait_s)

        async def ended() -> None:
            async with aclosing(pending.parts()) as parts:
                async for _ in parts:
                    pass

        await call.gateway.until_stopping(ended())


async def logs(call: Call) -> Response:
    job = await _job(call)
    return json_answer(await call.unchecked("jobs.logs", job_id=job["job_id"], after=call.query.get("after")))


async def cancel(call: Call) -> Response:
    return await _change(call, "jobs.cancel")


async def retry(call: Call) -> Response:
    return await _change(call, "jobs.retry")


async def drop(call: Call) -> Response:
    return await _change(call, "jobs.drop")


async def _change(call: Call, op: str) -> Response:
    job = await _job(call)
    call.check("write", job["library"])
    answer = await call.unchecked(op, job_ids=[job["job_id"]])
    return json_answer(job_body(answer["jobs"][0]))


_JOB = {200: Answer("The job.", ref("Job"))}

ENDPOINTS = (
    Endpoint(
        "GET", "/v1/jobs", list_, "read", "List jobs, newest first.", "jobs",
        {200: Answer("The jobs.", ref("Jobs"))}, _SELECTION, op="jobs.list",
    ),
    Endpoint(
        "POST", "/v1/jobs", submit, "write", "Submit a job.", "jobs",
        {202: Answer("The job is on disk.", ref("Submitted"))}, (), Body(ref("NewJob")), op="jobs.submit",
    ),
    Endpoint(
        "GET", "/v1/jobs/status", queue, "read", "Show the queue and the running jobs.", "jobs",
        {200: Answer("The queue.", ref("Queue"))}, op="jobs.status",
    ),
    Endpoint(
        "GET", "/v1/jobs/kinds", kinds, "read", "List the kinds of job and their parameters.", "jobs",
        {200: Answer("The kinds.", ref("JobKinds"))}, op="jobs.kinds",
    ),
    Endpoint(
        "GET", "/v1/jobs/{job_id}", show, "read", "Show a job, or wait until it has ended.", "jobs",
        {200: Answer("The job.", ref("JobDetails"))}, (_JOB_ID, _WAIT), op="jobs.show",
    ),
    Endpoint(
        "GET", "/v1/jobs/{job_id}/logs", logs, "read", "Read a job's log.", "jobs",
        {200: Answer("Up to 500 lines.", ref("JobLog"))}, (_JOB_ID, _AFTER), op="jobs.logs",
    ),
    Endpoint(
        "POST", "/v1/jobs/{job_id}/cancel", cancel, "write", "Cancel a job.", "jobs", _JOB, (_JOB_ID,),
        op="jobs.cancel",
    ),
    Endpoint(
        "POST", "/v1/jobs/{job_id}/retry", retry, "write", "Resume a job that failed, died or was cancelled.", "jobs",
        _JOB, (_JOB_ID,), op="jobs.retry",
    ),
    Endpoint(
        "DELETE", "/v1/jobs/{job_id}", drop, "write", "Delete the record of a job that has ended.", "jobs", _JOB,
        (_JOB_ID,), op="jobs.drop",
    ),
)  # fmt: skip
