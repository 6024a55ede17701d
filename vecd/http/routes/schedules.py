"""Schedules of background jobs."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ...errors import Code, VecError
from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..jobs import check_submit, submitted
from ..schemas import STRING, ref

_NAME = Parameter("schedule", "path", STRING, "The name of a schedule.", required=True)


async def list_(call: Call) -> Response:
    answer = await call.collect_unchecked("schedule.list", "schedules")
    answer["schedules"] = [each for each in answer["schedules"] if call.sees(each["library"])]
    return json_answer(answer)


async def add(call: Call) -> Response:
    body = await call.json_body()
    check_submit(call, body["kind"], body.get("library"))
    if body.get("replace"):
        replaced = await _find(call, body["name"])
        if replaced is not None:
            check_submit(call, replaced["kind"], replaced["library"])
    return json_answer(await call.unchecked("schedule.add", **body), 201)


async def run(call: Call) -> Response:
    schedule = await _schedule(call)
    check_submit(call, schedule["kind"], schedule["library"])
    return submitted(await call.unchecked("schedule.run", name=schedule["name"]))


async def remove(call: Call) -> Response:
    schedule = await _schedule(call)
    check_submit(call, schedule["kind"], schedule["library"])
    return json_answer(await call.unchecked("schedule.remove", name=schedule["name"]))


async def _schedule(call: Call) -> dict[str, Any]:
    """The schedule that the path names. Raises VecError `not_found`, also for one that the principal may not see."""
    name = call.path["schedule"]
    found = await _find(call, name)
    if found is None or not call.sees(found["library"]):
        raise VecError(Code.NOT_FOUND, f"there is no schedule {name!r:.200}")
    return found


async def _find(call: Call, name: str) -> dict[str, Any] | None:
    """The schedule of that name, of any library."""
    schedules = (await call.collect_unchecked("schedule.list", "schedules"))["schedules"]
    return next((each for each in schedules if each["name"] == name), None)


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/schedules", list_, "read", "List all schedules.", "schedules",
        {200: Answer("The schedules, by name.", ref("Schedules"))}, op="schedule.list",
    ),
    Endpoint(
        "POST", "/v1/schedules", add, "write", "Add a schedule.", "schedules",
        {201: Answer("The schedule.", ref("Schedule"))}, (), Body(ref("NewSchedule")), op="schedule.add",
    ),
    Endpoint(
        "POST", "/v1/schedules/{schedule}/run", run, "write", "Submit the job of a schedule now.", "schedules",
        {202: Answer("The job is on disk.", ref("Submitted"))}, (_NAME,), op="schedule.run",
    ),
    Endpoint(
        "DELETE", "/v1/schedules/{schedule}", remove, "write", "Remove a schedule.", "schedules",
        {200: Answer("The removed schedule.", ref("Schedule"))}, (_NAME,), op="schedule.remove",
    ),
)  # fmt: skip
