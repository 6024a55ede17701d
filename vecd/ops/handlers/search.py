"""search: one result for a page of hits, a stream for more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ... import limits
from ...engine import search as operations
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ..call import Call, warnings_field


async def search(call: Call) -> dict[str, Any]:
    fields = call.fields
    query = operations.Query(
        library=fields.text("library", DEFAULT),
        text=fields.optional_text("query"),
        vector=fields.optional_bytes("vector"),
        k=fields.integer("k", 10, low=1, high=limits.HITS_MAX),
        mode=fields.text("mode", "auto"),
        where=await call.engine.parse_filter(fields.filters("where")),
        ef=fields.optional_integer("ef", low=1, high=limits.EF_MAX),
        exact=fields.flag("exact"),
        recall=fields.optional_number("recall", low=limits.RECALL_MIN, high=1),
        explain=fields.flag("explain"),
        group=fields.optional_text("group_by"),
        min_score=fields.optional_number("min_score"),
    )
    if query.mode not in operations.MODES:
        modes = ", ".join(operations.MODES)
        raise VecError(Code.INVALID_REQUEST, f"unknown mode {query.mode!r:.40}", f"modes: {modes}", field="mode")
    if query.group is not None and query.group not in operations.GROUPS:
        raise VecError(
            Code.INVALID_REQUEST,
            f"hits cannot be grouped by {query.group!r:.40}",
            f"group_by is {' or '.join(operations.GROUPS)}",
            field="group_by",
        )
    if query.explain and query.k > limits.EXPLAINED_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"up to {limits.EXPLAINED_MAX} hits can be explained, and k is {query.k:,}",
            f"ask for {limits.EXPLAINED_MAX} or fewer, or leave out explain",
            field="explain",
        )
    with call.engine.views.open():  # what is found stays readable
        return await _answer(call, query)


async def _answer(call: Call, query: operations.Query) -> dict[str, Any]:
    found = await operations.search(call.engine, query)
    if found.explain is None and (found.hits is None or not call.is_writable):
        first = found.ranking[: limits.PAGE_ITEMS]
        found = replace(found, hits=None)  # it would be held until the peer reads
        await call.wait_for_room()
        found = replace(found, hits=await call.engine.read(call.engine.hit_cache.hits, first))
    assert found.hits is not None
    if query.k <= limits.PAGE_ITEMS:
        about = {} if found.explain is None else {"explain": found.explain}
        return {"hits": found.hits, **about, **_warned(call, query, found)}
    call.streamed = True
    await call.items(found.hits)
    for start in range(limits.PAGE_ITEMS, len(found.ranking), limits.PAGE_ITEMS):
        page = found.ranking[start : start + limits.PAGE_ITEMS]
        await call.wait_for_room()
        await call.items(await call.engine.read(call.engine.hit_cache.hits, page, start + 1))
    return _warned(call, query, found)


def _warned(call: Call, query: operations.Query, found: operations.SearchResult) -> dict[str, Any]:
    return warnings_field([*found.warnings, *operations.damage_warnings(call.engine, query)])
