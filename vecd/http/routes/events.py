"""The log as server-sent events."""

from __future__ import annotations

from starlette.responses import Response

from ...errors import Code, VecError
from ..call import Call
from ..endpoint import EVENTS, Answer, Endpoint, Parameter
from ..fan_out import Selection, Start, Subscription
from ..parameters import WHERE
from ..schemas import BOOLEAN, CURSOR, STRING, array, enum, ref
from ..sse import HEADERS, ErrorStream, EventStream


async def stream(call: Call) -> Response:
    if call.request.method == "HEAD":
        return Response(None, 200, HEADERS, EVENTS)
    resumed = call.request.headers.get("last-event-id")
    position = resumed or call.query.get("from", "now")
    try:
        subscription = await _subscribe(call, position)
    except VecError as error:
        if error.code == Code.FOREIGN_CURSOR:
            return Response(status_code=204, headers=HEADERS)  # EventSource stops
        if error.code == Code.COMPACTED:
            return ErrorStream(error)
        raise
    return EventStream(call.gateway.fan_out, subscription)


async def _subscribe(call: Call, position: str) -> Subscription:
    query = call.query
    wanted: set[str] = set(query.get("library_id", ()))
    for library in wanted:
        call.check("read", library)
    if query.get("consumer") is not None:
        call.check("write", None)  # it is created, held, and keeps events from being trimmed
    implied = not wanted and call.restricted
    if implied:
        wanted = set(call.principal.libraries or ())
    start = Start(position, query.get("snapshot", False), query.get("on_gap", "fail"), query.get("consumer"))
    while True:
        selection = Selection(
            libraries=tuple(sorted(wanted)),
            types=tuple(sorted(set(query.get("type", ())))),
            where=tuple(query.get("where", ())),
            payload=query.get("payload", False),
            replaced=query.get("replaced", True),
            vectors=query.get("vectors", False),
        )
        try:
            return await call.gateway.fan_out.subscribe(selection, start, follow=query.get("follow", True))
        except VecError as error:
            # A key may name libraries that do not exist yet.
            if error.code != Code.NOT_FOUND or not implied or error.details.get("library") not in wanted:
                raise
            wanted.discard(error.details["library"])
            if not wanted:
                raise


_PARAMETERS = (
    Parameter("library_id", "query", array(STRING), "Only events of this library. Can be repeated."),
    Parameter(
        "type", "query", array(STRING), "Only events of this type, or a glob: `document.*`. Can be repeated."
    ),
    WHERE,
    Parameter(
        "from", "query", STRING,
        "`now` (default), `beginning`, a cursor, an RFC 3339 time, or a relative time, as `-15m`.",
    ),
    Parameter("Last-Event-ID", "header", CURSOR, "The cursor to resume from. Overrides `from`."),
    Parameter("payload", "query", BOOLEAN, "Include the documents, after and before each change."),
    Parameter("replaced", "query", BOOLEAN, "With `payload`: false omits the documents before each change."),
    Parameter("vectors", "query", BOOLEAN, "With `payload`: include vectors."),
    Parameter("snapshot", "query", BOOLEAN, "Begin with the current state, unless there is a cursor to resume from."),
    Parameter("consumer", "query", STRING, "Begin at the cursor of this consumer, and hold it."),
    Parameter(
        "on_gap", "query", enum("fail", "oldest", "snapshot"), "What to do if the position has been trimmed."
    ),
    Parameter("follow", "query", BOOLEAN, "False: end at the current head of the log."),
)  # fmt: skip

ENDPOINTS = (
    Endpoint(
        "GET", "/v1/events/stream", stream, "read", "Follow the log of all changes, as server-sent events.", "events",
        {
            200: Answer("The events, in order.", ref("Event"), EVENTS),
            204: Answer("The cursor belongs to another log: EventSource stops."),
        },
        _PARAMETERS, op="watch",
    ),
)  # fmt: skip
