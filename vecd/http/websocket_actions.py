"""The actions of a WebSocket: what a message may contain, the request to the daemon that it becomes, and the body of
its answer. No I/O; websocket.py sends and receives, and handles `subscribe` and `unsubscribe` itself.

Rules: an unknown key is refused, because a typing error must not be ignored; what a value means, the daemon checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..errors import Code, VecError, nearest
from ..wire.documents import Packed, pack_all
from .call import check_keys, filters, packed
from .jobs import job_body

Body = dict[str, Any]

#: Keys that every message may have.
_COMMON: Final = ("action", "id")


class Request(NamedTuple):
    """A request to the daemon, and what makes the answer's body of its answer."""

    op: str
    fields: Body
    shape: Callable[[Body], Body]


@dataclass(frozen=True, slots=True)
class Action:
    """One action."""

    keys: tuple[str, ...]  # besides those of every message
    request: Callable[[Body], Request]  # of a checked message, whose library is filled in
    required: tuple[str, ...] = ()
    library: bool = False  # whether it has a `library`
    items: str = ""  # the key of the list in the answer that may come in parts


def read(message: Any, table: dict[str, Action], path_library: str | None, others: dict[str, tuple[str, ...]]) -> str:
    """The action of a message, whose keys are checked and whose library is filled in. `others` are actions that are
    not in the table, with their keys. Raises VecError `invalid_request`."""
    name = message.get("action")
    action = table.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or (action is None and name not in others):
        known = [*table, *others]
        close = nearest(name, known) if isinstance(name, str) else None
        what = "the message has no 'action'" if name is None else f"there is no action {name!r:.80}"
        raise VecError(
            Code.INVALID_REQUEST, what, f"did you mean {close!r}?" if close else f"actions: {', '.join(known)}"
        )
    keys = others[name] if action is None else action.keys
    has_library = action is None or action.library
    known_keys: dict[str, Body] = {key: {} for key in (*_COMMON, *keys, *(("library",) if has_library else ()))}
    check_keys(message, known_keys, () if action is None else action.required)
    library = message.get("library")
    if library is not None and not isinstance(library, str):
        raise VecError(Code.INVALID_REQUEST, "'library' must be a string", field="library")
    if path_library is not None and library not in (None, path_library):
        raise VecError(
            Code.INVALID_REQUEST,
            f"this WebSocket is for the library {path_library!r}, and the message names {library!r:.140}",
            "connect to /v1/ws for more than one library",
            field="library",
        )
    if path_library is not None and message.get("libraries") is not None:
        raise VecError(
            Code.INVALID_REQUEST,
            f"this WebSocket is for the library {path_library!r}",
            "connect to /v1/ws for more than one library",
            field="libraries",
        )
    if has_library and library is None:
        message["library"] = path_library
    return name


def _plain(op: str, *names: str, shape: Callable[[Body], Body] = lambda answer: answer) -> Callable[[Body], Request]:
    """A request whose fields are those of the message."""

    def request(message: Body) -> Request:
        return Request(op, {name: message.get(name) for name in names}, shape)

    return request


def _filtered(op: str, *names: str) -> Callable[[Body], Request]:
    def request(message: Body) -> Request:
        fields = {name: message.get(name) for name in ("library", *names)}
        return Request(op, {**fields, "where": filters(message.get("where"))}, lambda answer: answer)

    return request


_SEARCH = (
    "query", "vector", "like", "libraries", "k", "offset", "mode", "where", "since", "group_by", "min_score", "recall",
    "ef", "exact", "explain", "passage_chars",
)  # fmt: skip


def _search(message: Body) -> Request:
    fields = {name: message.get(name) for name in ("library", *_SEARCH)}
    fields["vector"], fields["where"] = packed(fields["vector"]), filters(fields["where"])
    return Request("search", fields, lambda answer: answer)


def _add_document(message: Body) -> Request:
    document = message["data"]
    batch = pack_all([document])

    def shape(answer: Body) -> Body:
        for refused in batch.complete(answer, True)["errors"]:
            raise VecError.from_wire({key: value for key, value in refused.items() if key != "index"})
        (outcome,) = answer["documents"]
        document_id = outcome["id"]
        # `id` is the id of the message; a message without one gets the document's.
        return {"id": document_id, "document_id": document_id, "result": outcome["status"], "seq": answer["seq"]}

    return Request("ingest", _ingest(message, batch, True), shape)


def _add_documents(message: Body) -> Request:
    given, strict = message["documents"], bool(message.get("strict"))
    if not isinstance(given, list):
        raise VecError(Code.INVALID_REQUEST, "'documents' must be a list", field="documents")
    batch = pack_all(given)
    if strict:
        batch = batch.before_refused()
    return Request("ingest", _ingest(message, batch, strict), lambda answer: batch.complete(answer, strict))


def _ingest(message: Body, batch: Packed, strict: bool) -> Body:
    return {"library": message["library"], "documents": batch.documents, "strict": strict or None, "detail": True}


def _job(answer: Body) -> Body:
    return {"job": job_body(answer)}


def _job_list(answer: Body) -> Body:
    return {**answer, "jobs": [job_body(job) for job in answer["jobs"]]}


def _submitted(answer: Body) -> Body:
    return {"job_id": answer["job_id"], "existing": answer["existing"], "status_url": f"/v1/jobs/{answer['job_id']}"}


def _one_job(op: str) -> Callable[[Body], Request]:
    def request(message: Body) -> Request:
        return Request(op, {"job_ids": [message["job_id"]]}, lambda answer: _job(answer["jobs"][0]))

    return request


_SUBMIT = ("kind", "params", "priority", "delay_s", "after", "unique", "lock", "timeout_s")

ACTIONS: Final[dict[str, Action]] = {
    "ping": Action((), _plain("ping")),
    "add_document": Action(("data",), _add_document, ("data",), library=True),
    "add_documents": Action(("documents", "strict"), _add_documents, ("documents",), library=True),
    "delete": Action(("ids", "where"), _filtered("delete", "ids"), library=True),
    "update": Action(("ids", "where", "set", "unset"), _filtered("update", "ids", "set", "unset"), library=True),
    "search": Action(_SEARCH, _search, library=True, items="hits"),
    "get": Action(
        ("ids", "vectors"), _plain("get", "library", "ids", "vectors"), ("ids",), library=True, items="documents"
    ),
    "count": Action(("where",), _filtered("count"), library=True),
    "libraries": Action((), _plain("library.list")),
    "ack": Action(("consumer", "cursor"), _plain("ack", "consumer", "cursor"), ("consumer", "cursor")),
    "submit_job": Action(
        _SUBMIT, _plain("jobs.submit", "library", *_SUBMIT, shape=_submitted), ("kind",), library=True
    ),
    "job": Action(("job_id",), _plain("jobs.show", "job_id", shape=_job), ("job_id",)),
    "cancel_job": Action(("job_id",), _one_job("jobs.cancel"), ("job_id",)),
    "retry_job": Action(("job_id",), _one_job("jobs.retry"), ("job_id",)),
    "queue": Action((), _plain("jobs.status", shape=_job_list)),
}
