"""Errors over HTTP: problem details (RFC 9457), with the stable codes of errors.py.

{"type": "urn:vec:error:not_found", "title": "not found", "status": 404, "detail": "there is no library 'x'",
 "code": "not_found", "hint": "…"} and the error's details.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from .. import limits
from ..errors import RETRYABLE, Code, VecError
from .endpoint import PROBLEM

#: Error code -> HTTP status; any other code is 500.
STATUS: Final[dict[str, int]] = {
    Code.INVALID_REQUEST: 400,
    Code.PROTOCOL_ERROR: 400,
    Code.INVALID_DOCUMENT: 422,
    Code.INVALID_FILTER: 422,
    Code.INVALID_CURSOR: 422,
    Code.DIMENSION_MISMATCH: 422,
    Code.UNSUPPORTED: 422,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.EXISTS: 409,
    Code.CONSUMER_HELD: 409,
    Code.LEASE_LOST: 409,
    Code.CANCELLED: 409,
    Code.COMPACTED: 410,
    Code.FOREIGN_CURSOR: 410,
    Code.TOO_LARGE: 413,
    Code.FRAME_TOO_LARGE: 413,
    Code.BUSY: 429,
    Code.SHUTTING_DOWN: 503,
    Code.NO_DAEMON: 503,
    Code.DAEMON_FAILED: 503,
    Code.CONNECTION_LOST: 503,
    Code.STALLED: 503,
    Code.VERSION_MISMATCH: 503,
    Code.INDEX_FAILED: 503,
    Code.EMBEDDER_FAILED: 503,
    Code.TIMEOUT: 504,
    Code.DISK_FULL: 507,
}


class Refusal(VecError):
    """An error that has a status of its own, instead of the one of its code."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None, /, **details: Any) -> None:
        super().__init__(code, message, hint, **details)
        self.status = status


def status_of(code: str) -> int:
    """The HTTP status of an error code."""
    return STATUS.get(code, 500)


def problem(error: VecError, status: int | None = None) -> dict[str, Any]:
    """The members of a problem."""
    wire = error.to_wire()
    code, message = wire.pop("code"), wire.pop("message")
    return {
        "type": f"urn:vec:error:{code}",
        "title": code.replace("_", " "),
        "status": status or (error.status if isinstance(error, Refusal) else status_of(code)),
        "detail": message,
        "code": code,
        **{key: value for key, value in wire.items() if key not in ("type", "title", "status", "detail")},
    }


def problem_answer(error: VecError, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """The response for an error."""
    body = problem(error, status)
    headers = dict(headers or {})
    if body["status"] == 401:
        headers.setdefault("www-authenticate", "Bearer")
    if body["status"] in (429, 503) and error.code in RETRYABLE:
        headers.setdefault("retry-after", str(limits.RETRY_AFTER_S))
    return Response(orjson.dumps(body), body["status"], headers, PROBLEM)
