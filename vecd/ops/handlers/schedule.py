"""schedule.add, schedule.list, schedule.run, schedule.remove."""

from __future__ import annotations

from typing import Any

from ...store.schedules import Schedule
from ..call import Call
from .jobs import common


async def add(call: Call) -> dict[str, Any]:
    """Fields: name, cron, zone, missed, replace, kind, params, library, priority, timeout_s."""
    fields = call.fields
    job = {"kind": fields.text("kind"), "params": fields.mapping("params"), **common(fields)}
    wanted = Schedule(
        name=fields.text("name"),
        cron=fields.text("cron", chars_max=1_000),
        zone=fields.text("zone", ""),
        missed=fields.text("missed", "once"),
        job=job,
        created_us=0,
        last_us=0,
    )
    return await call.scheduler.add(wanted, replace_it=fields.flag("replace"))


async def list_(call: Call) -> dict[str, Any]:
    await call.wait_for_room()
    return {"schedules": await call.scheduler.listed()}


async def run(call: Call) -> dict[str, Any]:
    """Field: name. Answers with the job."""
    return await call.scheduler.run_now(call.fields.text("name"))


async def remove(call: Call) -> dict[str, Any]:
    """Field: name."""
    return await call.scheduler.remove(call.fields.text("name"))
