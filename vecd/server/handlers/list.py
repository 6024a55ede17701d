"""list: the documents of a library, or those that a filter lets through, by id, as a stream of pages."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as verbs
from ...engine import selections
from ...store.catalogue import DEFAULT
from ..call import Call, warned


async def list_(call: Call) -> dict[str, Any]:
    library = call.fields.text("library", DEFAULT)
    after: str | None = None
    where = await selections.parse(call.engine, call.fields.filters("where"))
    call.streamed = True
    if where:
        found, warnings = await verbs.matching(call.engine, library, where)
        labels = [label for label, _ in found]
        for start in range(0, len(labels), limits.PAGE_ITEMS):
            some = labels[start : start + limits.PAGE_ITEMS]
            await call.items(await call.engine.read(verbs.outlines, call.engine, some))
        return warned(warnings)
    while page := await call.engine.read(verbs.page, call.engine, library, after, limits.PAGE_ITEMS):
        after = page[-1]["id"]
        await call.items(page)
    return {}
