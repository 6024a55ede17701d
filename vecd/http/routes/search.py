"""Search: by query parameters, or by a JSON body with everything that the op takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from ... import limits
from ..call import Call, filters, json_answer, packed
from ..endpoint import NDJSON, Answer, Body, Endpoint, Parameter
from ..op_access import check_op
from ..parameters import LIBRARY, WHERE
from ..schemas import Schema, enum, ref
from ..streams import begun, lines, list_answer, summary

_K: Schema = {"type": "integer", "minimum": 1, "maximum": limits.HITS_MAX, "default": 10}
_MODE: Schema = {**enum("auto", "vector", "text", "hybrid"), "default": "auto"}
_RECALL: Schema = {"type": "number", "minimum": limits.RECALL_MIN, "maximum": 1}
_EF: Schema = {"type": "integer", "minimum": 1, "maximum": limits.EF_MAX}
_PASSAGE: Schema = {
    "type": "integer", "minimum": limits.PASSAGE_CHARS_MIN, "maximum": limits.PASSAGE_CHARS_MAX,
}  # fmt: skip
_PARAMETERS = (
    Parameter("query", "query", {"type": "string"}, "A text.", required=True),
    Parameter("k", "query", _K, "The maximum number of hits."),
    Parameter("mode", "query", _MODE, "How to search."),
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
    Parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": limits.HITS_MAX}, "Hits to skip."),
    Parameter("since", "query", {"type": "string"}, "Only documents that were written after this position or time."),
    Parameter("passage_chars", "query", _PASSAGE, "Add to each hit its best passage, of about this length."),
)


def _fields(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
    """The fields of the op `search`. Without a library in the path, it is for all of them unless some are named."""
    vector, where = packed(wanted.pop("vector", None)), filters(wanted.pop("where", None))
    library = call.path.get("library")
    if library is None and wanted.get("libraries") is None:
        wanted["libraries"] = ["*"]
    return {"library": library, "vector": vector, "where": where, **wanted}


async def search(call: Call) -> Response:
    return await _search(call, call.query)


async def search_body(call: Call) -> Response:
    return await _search(call, await call.json_body())


async def search_several(call: Call) -> Response:
    return await _search(call, await call.json_body())


async def _search(call: Call, wanted: dict[str, Any]) -> Response:
    fields = _fields(call, wanted)
    k = fields.get("k", 0)
    if isinstance(k, int) and k > limits.PAGE_ITEMS:
        check_op(call.principal, "search", fields)  # which may name other libraries than the path
        return await list_answer(call, "search", "hits", **fields)
    return json_answer(await call.daemon("search", **fields))


async def stream(call: Call) -> Response:
    """The query parameters, or a body."""
    wanted = dict(call.query) or await call.json_body()
    fields = _fields(call, wanted)

    async def hits() -> AsyncGenerator[bytes, None]:
        found, about = 0, {}
        async with (
            call.gateway.pool.connection() as client,
            aclosing(client.submit("search", **fields).parts()) as replies,
        ):
            async for reply in replies:
                page = reply.body if reply.kind == "items" else reply.body.pop("hits", [])
                if page:
                    found += len(page)
                    yield lines(page)
                if reply.kind != "items":
                    about = reply.body
        yield summary(hits=found, **about)

    return await begun(hits())


_FOUND = {200: Answer("The hits, best first.", ref("Hits"))}

ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries/{library}/search", search, "read", "Search by a text.", "search",
        _FOUND, (LIBRARY, *_PARAMETERS), op="search",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/search", search_body, "read", "Search by a text or a vector.", "search",
        _FOUND, (LIBRARY,), Body(ref("Search")), op="search",
    ),
    Endpoint(
        "POST", "/v1/search", search_several, "read", "Search several libraries, or all.", "search",
        _FOUND, (), Body(ref("SearchSeveral")), op="search",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/search/stream", stream, "read", "Stream the hits of a search.", "search",
        {200: Answer("A hit a line, best first; the last line is the summary.", ref("HitLine"), NDJSON)},
        (LIBRARY, *(replace(each, required=False) for each in _PARAMETERS)),
        Body(ref("Search"), "What to search for, unless the query string says so.", required=False), op="search",
    ),
)  # fmt: skip
