"""list: the documents of a library by id, all or those that match a filter: a stream of pages of one state."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as operations
from ...store.catalogue import DEFAULT
from ..call import Call, warnings_field

#: More than any library has.
_LIMIT_MAX = 2**62


async def list_(call: Call) -> dict[str, Any]:
    library = call.fields.text("library", DEFAULT)
    where = await call.engine.parse_filter(call.fields.filters("where"))
    limit = call.fields.optional_integer("limit", low=1, high=_LIMIT_MAX)
    field = call.fields.optional_text("sort", chars_max=limits.KEY_CHARS_MAX)
    sort = None if field is None else operations.Sort.by(field, descending=call.fields.flag("descending"))
    left = _LIMIT_MAX if limit is None else limit
    call.streamed = True
    with call.engine.views.open() as view:
        listed, warnings = await operations.listing(call.engine, view, library, where, sort)
        count = limits.PAGE_ITEMS
        while left:
            await call.wait_for_room()
            page = await call.engine.read(operations.next_page, call.engine, listed, min(count, left))
            if not page:
                break
            left -= len(page)
            size = await call.items(page)
            if size > limits.PAGE_BYTES:  # fewer of such documents, next time
                count = max(1, count * limits.PAGE_BYTES // size)
    return {"seq": listed.seq, **warnings_field(warnings)}
