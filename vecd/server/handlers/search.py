"""search: one result for a page of hits, a stream for more."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import search as verbs
from ...engine import selections
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ..call import Call, warned


async def search(call: Call) -> dict[str, Any]:
    fields = call.fields
    query = verbs.Query(
        library=fields.text("library", DEFAULT),
        text=fields.optional_text("query"),
        vector=fields.optional_bytes("vector"),
        k=fields.integer("k", 10, low=1, high=limits.HITS_MAX),
        mode=fields.text("mode", "auto"),
        where=await selections.parse(call.engine, fields.filters("where")),
        ef=fields.optional_integer("ef", low=1, high=limits.EF_MAX),
        exact=fields.flag("exact"),
    )
    if query.mode not in verbs.MODES:
        modes = ", ".join(verbs.MODES)
        raise VecError(Code.INVALID_REQUEST, f"there is no mode {query.mode!r:.40}", f"modes: {modes}", field="mode")
    found = await verbs.search(call.engine, query)
    if query.k <= limits.PAGE_ITEMS:
        return {"hits": found.hits, **warned(found.warnings)}
    call.streamed = True
    await call.items(found.hits)
    for start in range(limits.PAGE_ITEMS, len(found.ranking), limits.PAGE_ITEMS):
        page = found.ranking[start : start + limits.PAGE_ITEMS]
        await call.items(await call.engine.read(call.engine.hits.of, page, start + 1))
    return warned(found.warnings)
