"""list: the documents of a library by id, all or those that match a filter: a stream of pages of one state."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as operations
from ...store.catalogue import DEFAULT
from ..call import Call, warnings_field


async def list_(call: Call) -> dict[str, Any]:
    library = call.fields.text("library", DEFAULT)
    where = await call.engine.parse_filter(call.fields.filters("where"))
    call.streamed = True
    with call.engine.views.open() as view:
        listed, warnings = await operations.listing(call.engine, view, library, where)
        count = limits.PAGE_ITEMS
        while True:
            await call.wait_for_room()
            page = await call.engine.read(operations.next_page, call.engine, listed, count)
            if not page:
                break
            size = await call.items(page)
            if size > limits.PAGE_BYTES:  # fewer of such documents, next time
                count = max(1, count * limits.PAGE_BYTES // size)
    return {"seq": listed.seq, **warnings_field(warnings)}
