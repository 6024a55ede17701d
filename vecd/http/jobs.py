"""What the endpoints for jobs and schedules share: the form of a job, and what a submitter must be allowed to."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from .call import Call, json_answer
from .op_access import PATH_KINDS


def job_body(job: dict[str, Any]) -> dict[str, Any]:
    """A job as it is over HTTP: its `state` is called `status`."""
    return {("status" if key == "state" else key): value for key, value in job.items()}


def submitted(job: dict[str, Any]) -> Response:
    """202, with the address at which the job is found."""
    url = f"/v1/jobs/{job['job_id']}"
    return json_answer({"job_id": job["job_id"], "status": "submitted", "status_url": url}, 202, {"location": url})


def check_submit(call: Call, kind: Any, library: Any) -> None:
    """Raises VecError `forbidden` if the principal may not submit such a job: one that names files needs admin, and one
    that works on no library, or on the default one, the right to all."""
    call.check("admin" if kind in PATH_KINDS else "write", library)
