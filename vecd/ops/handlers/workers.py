"""jobs.claim, jobs.heartbeat, jobs.checkpoint, jobs.finish, jobs.workers, tasks.heartbeat, tasks.finish: the ops of
workers outside the daemon."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...errors import Code, VecError
from ...jobs import external_workers
from ..call import Call
from ..fields import Fields

_NUMBER_MAX = 2**63 - 1


async def claim(call: Call) -> dict[str, Any]:
    """Fields: worker, kinds, embedders, lease_s, wait_s. Answers with `job` or `task`; neither if there is none."""
    fields = call.fields
    kinds = fields.optional_texts("kinds")
    if not kinds:
        raise VecError(Code.INVALID_REQUEST, "field 'kinds' must be a list of at least one kind", field="kinds")
    lease_s = fields.optional_number("lease_s", low=limits.LEASE_S_MIN, high=limits.LEASE_S_MAX)
    return await external_workers.claim(
        call.jobs,
        fields.text("worker", chars_max=limits.WORKER_NAME_CHARS_MAX),
        kinds,
        embedders=fields.optional_texts("embedders", count_max=limits.WORKER_EMBEDDERS_MAX) or (),
        lease_s=limits.LEASE_S if lease_s is None else lease_s,
        wait_s=fields.bounded_seconds("wait_s", high=limits.CLAIM_WAIT_S) or 0.0,
    )


async def heartbeat(call: Call) -> dict[str, Any]:
    """Fields: job_id, attempt, done, total."""
    job_id, attempt = _attempt(call.fields)
    return external_workers.heartbeat(call.jobs, job_id, attempt, **_progress(call.fields))


async def checkpoint(call: Call) -> dict[str, Any]:
    """Fields: job_id, attempt, step, checkpoint, effect, done, total, lines."""
    fields = call.fields
    job_id, attempt = _attempt(fields)
    return await external_workers.checkpoint(
        call.jobs,
        job_id,
        attempt,
        step=_number(fields, "step"),
        value=fields.raw("checkpoint"),
        effect=None if fields.raw("effect") is None else fields.mapping("effect"),
        lines=fields.optional_texts("lines", count_max=limits.JOB_LINES) or (),
        **_progress(fields),
    )


async def finish(call: Call) -> dict[str, Any]:
    """Fields: job_id, attempt, and `result` or `error`, or neither: the worker gives the job back."""
    fields = call.fields
    result = fields.mapping("result") if fields.raw("result") is not None else None
    error, retryable = _error(fields)
    if result is not None and error is not None:
        raise VecError(Code.INVALID_REQUEST, "an attempt ends with 'result' or 'error', not with both", field="error")
    return await external_workers.finish(call.jobs, *_attempt(fields), result=result, error=error, retryable=retryable)


async def heartbeat_task(call: Call) -> dict[str, Any]:
    """Field: task_id."""
    return external_workers.heartbeat_task(call.jobs, call.fields.text("task_id"))


async def finish_task(call: Call) -> dict[str, Any]:
    """Fields: task_id, and `vectors` or `error`, or neither: the worker returns the task."""
    fields = call.fields
    vectors = fields.raw("vectors")
    if not isinstance(vectors, bytes | None):
        raise VecError(Code.INVALID_REQUEST, "field 'vectors' must be bytes", field="vectors")
    error, _ = _error(fields)
    if vectors is not None and error is not None:
        raise VecError(Code.INVALID_REQUEST, "a task ends with 'vectors' or 'error', not with both", field="error")
    await call.engine.read(external_workers.finish_task, call.jobs, fields.text("task_id"), vectors, error)
    return {}


def workers(call: Call) -> dict[str, Any]:
    return {"workers": external_workers.workers(call.jobs)}


def _attempt(fields: Fields) -> tuple[int, int]:
    return _number(fields, "job_id"), _number(fields, "attempt")


def _number(fields: Fields, name: str) -> int:
    found = fields.optional_integer(name, low=0, high=_NUMBER_MAX)
    if found is None:
        raise VecError(Code.INVALID_REQUEST, f"field {name!r} must be a whole number", field=name)
    return found


def _progress(fields: Fields) -> dict[str, int | None]:
    return {name: fields.optional_integer(name, low=0, high=_NUMBER_MAX) for name in ("done", "total")}


def _error(fields: Fields) -> tuple[VecError | None, bool | None]:
    """The error that an attempt ended with, and whether another attempt may help: None: as its code says."""
    if fields.raw("error") is None:
        return None, None
    body = fields.mapping("error")
    message, retryable = body.get("message"), body.get("retryable")
    if not isinstance(message, str) or not isinstance(retryable, bool | None):
        raise VecError(
            Code.INVALID_REQUEST,
            "field 'error' must be a map of 'code', 'message' and 'retryable'",
            field="error",
        )
    code, hint = body.get("code"), body.get("hint")
    return VecError(
        code[: limits.KEY_CHARS_MAX] if isinstance(code, str) and code else Code.INTERNAL,
        message[: limits.ERROR_CHARS_MAX],
        hint[: limits.ERROR_CHARS_MAX] if isinstance(hint, str) else None,
    ), retryable
