"""The instance as a whole: its status, its log, its backup."""

from __future__ import annotations

from starlette.responses import Response

from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint
from ..jobs import submitted
from ..schemas import ref

#: What a principal that may use some libraries only is told: nothing of the server, and no counts of others' work.
_OF_LIBRARIES = ("version", "log", "seq", "oldest", "uptime_s", "libraries")


async def status(call: Call) -> Response:
    answer = await call.unchecked("status")
    if call.restricted:
        answer = {key: answer[key] for key in _OF_LIBRARIES}
    answer["libraries"] = [each for each in answer["libraries"] if call.sees(each["name"])]
    return json_answer(answer)


async def trim(call: Call) -> Response:
    return json_answer(await call.daemon("trim", **await call.json_body()))


async def backup(call: Call) -> Response:
    body = await call.json_body()
    return submitted(await call.daemon("jobs.submit", kind="backup", params={"path": body["path"]}))


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/status", status, "read",
        "Show the daemon's process, log, libraries, jobs, relays, sources and syncs.", "instance",
        {200: Answer("The status.", ref("Status"))}, op="status",
    ),
    Endpoint(
        "POST", "/v1/trim", trim, "admin", "Delete the oldest events of the log.", "instance",
        {200: Answer("What was deleted.", ref("Trimmed"))}, (), Body(ref("Trim")), op="trim",
    ),
    Endpoint(
        "POST", "/v1/backup", backup, "admin", "Copy the store to a file on the server, as a job.", "instance",
        {202: Answer("The job is on disk.", ref("Submitted"))}, (), Body(ref("Backup")), op="jobs.submit",
    ),
)  # fmt: skip
