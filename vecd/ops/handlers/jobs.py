"""jobs.spool, jobs.submit, jobs.status, jobs.list, jobs.show, jobs.logs, jobs.wait, jobs.cancel, jobs.retry, jobs.drop,
jobs.pause, jobs.resume, jobs.kinds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ... import limits
from ...engine.ingest import earlier_writes
from ...errors import Code, VecError
from ...jobs import operations
from ...jobs.kinds.ingest import spool_file
from ..call import Call
from ..fields import Fields

_ID_MAX = 2**63 - 1


async def spool(call: Call) -> dict[str, Any]:
    """Answers with a path, at which the client may put the input of an ingest job that it then submits, and with the
    bounds of that: `{"path","bytes_max","free_bytes_min"}`."""
    return await call.engine.read(spool_file, call.engine)


async def submit(call: Call) -> dict[str, Any]:
    """Fields: kind, params, library, priority, delay_s, after, unique, lock, timeout_s."""
    fields = call.fields
    if (library := fields.optional_text("library")) is not None:
        # An earlier write of the connection may be making it.
        await earlier_writes(call.engine, library, call.slot)
    job = operations.wanted(
        call.jobs,
        fields.text("kind"),
        fields.mapping("params"),
        delay_s=fields.bounded_seconds("delay_s", high=limits.JOB_SECONDS_MAX),
        after=fields.integers("after", count_max=limits.JOB_IDS_MAX) if fields.raw("after") is not None else (),
        unique=_key(fields, "unique"),
        lock=_key(fields, "lock"),
        **common(fields),
    )
    return await operations.submit(call.jobs, job, call.slot)


def common(fields: Fields) -> dict[str, Any]:
    """What a job and a schedule of jobs have in common, but for kind and params."""
    return {
        "library": fields.optional_text("library"),
        "priority": fields.integer("priority", 0, low=-limits.PRIORITY_MAX, high=limits.PRIORITY_MAX),
        "timeout_s": fields.bounded_seconds("timeout_s", high=limits.JOB_SECONDS_MAX),
    }


def _key(fields: Fields, name: str) -> str | None:
    return fields.optional_text(name, chars_max=limits.JOB_KEY_CHARS_MAX) or None


async def status(call: Call) -> dict[str, Any]:
    return await operations.status(call.jobs)


def kinds(call: Call) -> dict[str, Any]:
    return {"kinds": operations.all_kinds()}


async def list_(call: Call) -> dict[str, Any]:
    """Fields: states, kinds, library, since_s, limit."""
    call.streamed = True
    listing = _listing(call.fields)
    left = call.fields.integer("limit", _ID_MAX, low=1, high=_ID_MAX)
    before: int | None = None
    while left:
        count = min(left, limits.JOBS_PAGE)
        await call.wait_for_room()
        found = await call.engine.read(operations.page, call.jobs, listing, before, count)
        await call.items([operations.described(call.jobs, job) for job in found])
        if len(found) < count:
            break
        before, left = found[-1].job_id, left - count
    return {}


def _listing(fields: Fields) -> operations.JobFilter:
    return operations.JobFilter(
        fields.optional_texts("states"),
        fields.optional_texts("kinds"),
        fields.optional_text("library"),
        fields.bounded_seconds("since_s", high=limits.JOB_SECONDS_MAX),
    )


async def show(call: Call) -> dict[str, Any]:
    """Field: job_id."""
    return await call.engine.read(operations.show, call.jobs, _id(call.fields))


async def logs(call: Call) -> dict[str, Any]:
    """Fields: job_id, after (a line's number, exclusive)."""
    after = call.fields.integer("after", 0, low=0, high=_ID_MAX)
    await call.wait_for_room()
    return {"lines": await call.engine.read(operations.lines, call.jobs, _id(call.fields), after)}


def _id(fields: Fields) -> int:
    found = fields.optional_integer("job_id", low=0, high=_ID_MAX)
    if found is None:
        raise VecError(Code.INVALID_REQUEST, "field 'job_id' must be a whole number", field="job_id")
    return found


async def wait(call: Call) -> dict[str, Any]:
    """Fields: job_ids, any, timeout_s, every_s. Each message carries all the jobs as they are."""
    fields = call.fields
    every_s = fields.optional_seconds("every_s")
    waiting = operations.wait(
        call.jobs,
        fields.integers("job_ids", count_max=limits.JOB_IDS_MAX),
        one=fields.flag("any"),
        timeout_s=fields.optional_seconds("timeout_s"),
        every_s=None if every_s is None else max(every_s, limits.JOBS_EVERY_S),
        before_read=call.wait_for_room,
    )
    reason = "done"
    try:
        async with contextlib.aclosing(waiting) as pictures:
            async for jobs in pictures:
                await call.items(jobs)
    except TimeoutError:
        reason = "timeout"
    except asyncio.CancelledError:
        reason = "shutting_down" if call.stopping else "cancelled"
    return {"reason": reason}


async def cancel(call: Call) -> dict[str, Any]:
    """Field: job_ids."""
    return {"jobs": await operations.cancel(call.jobs, _ids(call.fields))}


async def retry(call: Call) -> dict[str, Any]:
    """Field: job_ids."""
    return {"jobs": await operations.retry(call.jobs, _ids(call.fields))}


async def drop(call: Call) -> dict[str, Any]:
    """Field: job_ids."""
    return {"jobs": await operations.drop(call.jobs, _ids(call.fields))}


def _ids(fields: Fields) -> list[int]:
    return fields.integers("job_ids", count_max=limits.JOB_IDS_MAX)


async def pause(call: Call) -> dict[str, Any]:
    """Field: kinds; none: all."""
    return await operations.pause(call.jobs, call.fields.optional_texts("kinds") or [])


async def resume(call: Call) -> dict[str, Any]:
    """Field: kinds; none: all."""
    return await operations.resume(call.jobs, call.fields.optional_texts("kinds") or [])
