"""The scheduler: submits the jobs of due schedules, and implements the operations on schedules.

It checks the time at least every CHECK_S seconds, because the clock may be set; due_times.py computes what is due. The
jobs of a schedule never overlap: they share a lock.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from ..store import job_transitions as transitions
from ..store import schedules as store
from ..store.jobs import CANCELLED, COMPLETED, Job, NewJob
from ..store.schedules import Schedule
from ..units import format_time
from . import due_times, operations, timezones
from .clocks import wall_us
from .jobs import Jobs
from .kinds import KINDS
from .periodic import Periodic

log = logging.getLogger("vecd.jobs")

CHECK_S: Final = 20.0
#: The schedule that prunes jobs (store/schema.py).
PRUNE: Final = "upkeep.prune"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Scheduler:
    """Lives on the event loop. `now_us` returns the wall-clock time in microseconds; tests replace it."""

    def __init__(self, jobs: Jobs, now_us: Callable[[], int] = wall_us) -> None:
        self._jobs = jobs
        self._now_us = now_us
        self._task = Periodic("schedules", self.tick, CHECK_S)
        self.start, self.stop = self._task.start, self._task.stop

    async def tick(self) -> float:
        """Submits all due jobs; returns the seconds until the next check."""
        now_us = self._now_us()
        wait_s = CHECK_S
        await self._prune_early()
        if wrong := self._jobs.dispatcher.with_wrong_due_time():
            log.warning("the clock was set", extra={"delayed_jobs": len(wrong)})
            # Some of them may free space.
            await self._write(lambda tx: transitions.postpone(tx, wrong), frees=True)
        for each in await self._jobs.engine.read(all_schedules, self._jobs):
            try:
                following_us = await self._check_or_refuse(each, now_us)
            except VecError as error:
                if error.code not in (Code.DISK_FULL, Code.BUSY):
                    raise
                # Continue with the others: their jobs may free space.
                log.error("cannot submit what is due", extra={"schedule": each.name, "error": str(error)})
                continue
            if following_us is not None:
                wait_s = min(wait_s, max(0.0, (following_us - now_us) / 1e6))
        return wait_s

    async def _check_or_refuse(self, each: Schedule, now_us: int) -> int | None:
        """As `_check`; None also if the zone, or an expression of an older vecd, cannot be read."""
        try:
            return await self._check(each, now_us)
        except VecError as error:
            if error.code != Code.INVALID_REQUEST:
                raise
            await self._refused(each, str(error), each.last_us)
            return None

    async def _check(self, each: Schedule, now_us: int) -> int | None:
        """Submits the jobs of a schedule if they are due; returns the next due time, None if never."""
        if each.last_us == 0:  # a schedule of the daemon, at its first start
            each = await self._touch(each, now_us)
        elif due_times.clock_set_back(each, now_us):
            log.warning("the clock was set back", extra={"schedule": each.name})
            each = await self._touch(each, now_us)
        following_us = due_times.following_us(each, each.last_us)
        if following_us is not None and following_us <= now_us:
            await self._submit(each, due_times.due(each, now_us))
            following_us = due_times.following_us(each, now_us)
        return following_us

    async def _prune_early(self) -> None:
        """Runs the schedule that prunes ended jobs before its time, if there are too many of them."""
        counts = self._jobs.dispatcher.counts
        if counts[COMPLETED] + counts[CANCELLED] <= 2 * limits.JOBS_KEPT:
            return
        found = [each for each in await self._jobs.engine.read(all_schedules, self._jobs) if each.name == PRUNE]
        jobs = [self._wanted(each) for each in found]
        await self._write(lambda tx: store.submit(tx, PRUNE, jobs, 0, None), frees=True)

    async def run_now(self, name: str) -> dict[str, Any]:
        """Submits the job of a schedule now; it waits until no other job of the schedule runs.

        Raises VecError `not_found`, or the error for which the job is refused.
        """
        found = await self._jobs.engine.read(find, self._jobs, name)
        job = self._wanted(found)
        pending_max = limits.SCHEDULE_MISSED_MAX
        (submitted,) = await self._write(
            lambda tx: store.submit(tx, name, [job], pending_max, None), frees=KINDS[job.kind].frees
        ) or (None,)
        if submitted is None:
            raise VecError(
                Code.BUSY, f"{pending_max} jobs of the schedule {name!r} are already pending", "try again later"
            )
        return operations.described(self._jobs, submitted)

    async def add(self, wanted: Schedule, *, replace_it: bool) -> dict[str, Any]:
        """Raises VecError `exists`, `invalid_request`, or the error for which its job would be refused."""
        if not _NAME.fullmatch(wanted.name) or len(wanted.name) > limits.NAME_BYTES_MAX:
            raise VecError(
                Code.INVALID_REQUEST,
                f"{wanted.name!r:.200} is not a valid name of a schedule",
                f"use up to {limits.NAME_BYTES_MAX} letters, digits, '.', '_' and '-', starting with a letter or digit",
                field="name",
            )
        due_times.check(wanted.cron, wanted.zone, wanted.missed)
        checked = self._wanted(wanted)
        now_us = self._now_us()
        made = replace(wanted, job={**wanted.job, "params": checked.params}, created_us=now_us, last_us=now_us)
        await self._write(lambda tx: store.add(tx, made, replace_it))
        self._task.wake()
        return described(made, now_us)

    async def remove(self, name: str) -> dict[str, Any]:
        """Raises VecError `not_found`."""
        return described(await self._write(lambda tx: store.remove(tx, name)), self._now_us())

    async def listed(self) -> list[dict[str, Any]]:
        return [described(each, self._now_us()) for each in await self._jobs.engine.read(all_schedules, self._jobs)]

    async def _submit(self, each: Schedule, due: due_times.Due) -> None:
        pending_max = {"skip": 0, "once": 1, "all": limits.SCHEDULE_MISSED_MAX}[each.missed]
        try:
            job = self._wanted(each)
            submitted: list[Job] = await self._write(
                lambda tx: store.submit(tx, each.name, [job] * due.count, pending_max, due.last_us),
                frees=KINDS[job.kind].frees,
            )
        except VecError as error:
            if error.code in (Code.STORAGE_FAILED, Code.SHUTTING_DOWN, Code.DISK_FULL, Code.BUSY):
                raise
            await self._refused(each, str(error), due.last_us)
        else:
            ids = ",".join(str(job.job_id) for job in submitted)
            log.info("schedule due", extra={"schedule": each.name, "jobs": ids or "none"})

    async def _refused(self, each: Schedule, error: str, last_us: int) -> None:
        if (error, last_us) != (each.error, each.last_us):
            log.warning("scheduled job refused", extra={"schedule": each.name, "error": error})
            await self._write(lambda tx: store.fail(tx, each.name, error, last_us))

    async def _touch(self, each: Schedule, now_us: int) -> Schedule:
        await self._write(lambda tx: store.touch(tx, each.name, now_us), frees=True)
        return replace(each, last_us=now_us)

    def _wanted(self, each: Schedule) -> NewJob:
        job = each.job
        return operations.wanted(
            self._jobs, job["kind"], job.get("params") or {}, library=job.get("library"),
            priority=job.get("priority", 0), timeout_s=job.get("timeout_s"), lock=f"schedule {each.name}",
            schedule=each.name,
        )  # fmt: skip

    async def _write(self, work: Callable[[Any], Any], *, frees: bool = False) -> Any:
        return await asyncio.wrap_future(self._jobs.engine.database.submit(work, frees=frees))


def all_schedules(jobs: Jobs) -> list[Schedule]:
    """Blocks."""
    with jobs.engine.database.read_transaction() as db:
        return store.list_all(db)


def find(jobs: Jobs, name: str) -> Schedule:
    """Blocks. Raises VecError `not_found`."""
    with jobs.engine.database.read_transaction() as db:
        return store.find(db, name)


def described(each: Schedule, now_us: int) -> dict[str, Any]:
    """A schedule, for an answer."""
    error = each.error
    try:
        following_us = due_times.following_us(each, max(each.last_us, now_us))
    except VecError as unreadable:
        following_us, error = None, str(unreadable)
    return {
        "name": each.name,
        "cron": each.cron,
        "zone": each.zone or timezones.local_name(),
        "missed": each.missed,
        "kind": each.job["kind"],
        "library": each.job.get("library"),
        "params": each.job.get("params") or {},
        "priority": each.job.get("priority", 0),
        "timeout_s": each.job.get("timeout_s"),
        "next_at": None if following_us is None else format_time(following_us),
        "last_job": each.last_job,
        "error": error,
    }
