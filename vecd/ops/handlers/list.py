"""list: the documents of a library, all or those that match a filter, by id: a stream of pages of one snapshot."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call, warned


async def list_(call: Call) -> dict[str, Any]:
    library = call.fields.text("library", DEFAULT)
    where = await call.engine.parse_filter(call.fields.filters("where"))
    call.streamed = True
    with call.engine.views.open() as view:
        listed, warnings = await verbs.listing(call.engine, view, library, where)
        count = limits.PAGE_ITEMS
        while True:
            await call.room()
            page = await call.engine.read(verbs.outlines, call.engine, listed, count)
            if not page:
                break
            size = await call.items(page)
            if size > limits.PAGE_BYTES:  # fewer of such documents, next time
                count = max(1, count * limits.PAGE_BYTES // size)
    return {"seq": listed.seq, **warned(warnings)}
