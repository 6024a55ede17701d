"""Search: by query parameters, or by a JSON body with everything that the op takes."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ... import limits
from ..call import Call, filters, json_answer, packed
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..schemas import (
    BOOLEAN,
    INTEGER,
    LIBRARY,
    MAP,
    NUMBER,
    STRING,
    VECTOR,
    WHERE,
    WHERE_PARAMETER,
    listed,
    nullable,
    obj,
)

_K = {"type": "integer", "minimum": 1, "maximum": limits.HITS_MAX, "default": 10}
_MODE = {"enum": ["auto", "vector", "text", "hybrid"], "default": "auto"}
_GROUP = {"enum": ["document", "chunk"]}
_RECALL = {"type": "number", "minimum": limits.RECALL_MIN, "maximum": 1}
_EF = {"type": "integer", "minimum": 1, "maximum": limits.EF_MAX}
_WANTED = {
    "query": STRING, "vector": VECTOR, "k": _K, "mode": _MODE, "where": WHERE, "group_by": _GROUP, "min_score": NUMBER,
    "recall": _RECALL, "ef": _EF, "exact": BOOLEAN, "explain": BOOLEAN,
}  # fmt: skip
HIT = obj(
    {
        "rank": INTEGER, "score": NUMBER, "document_id": STRING, "chunk_id": STRING, "title": nullable("string"),
        "text": nullable("string"), "metadata": MAP, "explain": MAP,
    },
    ("rank", "score", "document_id", "chunk_id"),
)  # fmt: skip
_PARAMETERS = (
    Parameter("query", "query", STRING, "A text.", required=True),
    Parameter("k", "query", _K, "The maximum number of hits."),
    Parameter("mode", "query", {"type": "string", **_MODE}, "How to search."),
    WHERE_PARAMETER,
    Parameter("group_by", "query", {"type": "string", **_GROUP}, "What a hit is."),
    Parameter("min_score", "query", NUMBER, "Omit hits with a lower score."),
    Parameter("recall", "query", _RECALL, "The target recall of an approximate search."),
    Parameter("ef", "query", _EF, "The effort of an approximate search; overrides recall."),
    Parameter("exact", "query", BOOLEAN, "Compare the query with every vector."),
    Parameter("explain", "query", BOOLEAN, "Say how each hit was found."),
)


def _fields(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """The fields of the op `search`."""
    vector, where = packed(body.pop("vector", None)), filters(body.pop("where", None))
    return {"library": call.path["library"], "vector": vector, "where": where, **body}


async def by_query(call: Call) -> Response:
    return json_answer(await call.daemon("search", **_fields(call, call.query)))


async def by_body(call: Call) -> Response:
    return json_answer(await call.daemon("search", **_fields(call, await call.json_body())))


_FOUND = {200: Answer("The hits, best first.", obj({"hits": listed(HIT), "warnings": listed(STRING), "explain": MAP}))}
_BODY = Body(obj(_WANTED, closed=True), "`query` or `vector` is required.")

ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries/{library}/search", by_query, "read", "Search a library.", "search",
        _FOUND, (LIBRARY, *_PARAMETERS), op="search",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/search", by_body, "read", "Search a library.", "search",
        _FOUND, (LIBRARY,), _BODY, op="search",
    ),
)  # fmt: skip
