"""Search: by query parameters, or by a JSON body with everything that the op takes."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ... import limits
from ..call import Call, filters, json_answer, packed
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..parameters import LIBRARY, WHERE
from ..schemas import COMPONENTS, Schema, ref

_WANTED = COMPONENTS["Search"]["properties"]
_RECALL: Schema = {"type": "number", "minimum": limits.RECALL_MIN, "maximum": 1}
_EF: Schema = {"type": "integer", "minimum": 1, "maximum": limits.EF_MAX}
_PARAMETERS = (
    Parameter("query", "query", {"type": "string"}, "A text.", required=True),
    Parameter("k", "query", _WANTED["k"], "The maximum number of hits."),
    Parameter("mode", "query", _WANTED["mode"], "How to search."),
    WHERE,
    Parameter("group_by", "query", {"type": "string", "enum": ["document", "chunk"]}, "What a hit is."),
    Parameter("min_score", "query", {"type": "number"}, "Omit hits with a lower score."),
    Parameter(
        "recall",
        "query",
        _RECALL,
        "The target recall of an approximate search.",
    ),
    Parameter(
        "ef",
        "query",
        _EF,
        "The effort of an approximate search; overrides recall.",
    ),
    Parameter("exact", "query", {"type": "boolean"}, "Compare the query with every vector."),
    Parameter("explain", "query", {"type": "boolean"}, "Say how each hit was found."),
)


def _fields(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
    """The fields of the op `search`."""
    vector, where = packed(wanted.pop("vector", None)), filters(wanted.pop("where", None))
    return {"library": call.path["library"], "vector": vector, "where": where, **wanted}


async def by_query(call: Call) -> Response:
    return json_answer(await call.daemon("search", **_fields(call, call.query)))


async def by_body(call: Call) -> Response:
    return json_answer(await call.daemon("search", **_fields(call, await call.json_body())))


_FOUND = {200: Answer("The hits, best first.", ref("Hits"))}

ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries/{library}/search", by_query, "read", "Search by a text.", "search",
        _FOUND, (LIBRARY, *_PARAMETERS), op="search",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/search", by_body, "read", "Search by a text or a vector.", "search",
        _FOUND, (LIBRARY,), Body(ref("Search")), op="search",
    ),
)  # fmt: skip
