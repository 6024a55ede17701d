"""get: documents by id, as they were at one moment."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as operations
from ...store.catalogue import DEFAULT
from ..call import Call


async def get(call: Call) -> dict[str, Any]:
    ids = call.fields.ids("ids", count_max=limits.IDS_MAX)
    library = call.fields.text("library", DEFAULT)
    vectors = call.fields.flag("vectors")
    if len(ids) <= limits.PAGE_DOCUMENTS:
        await call.wait_for_room()
        documents, seq = await call.engine.read(operations.get, call.engine, library, ids, vectors)
        if documents is not None:
            return {"documents": documents, "seq": seq}
    call.streamed = True
    with call.engine.views.open() as view:
        labels, seq = await call.engine.read(operations.locate, call.engine, view, library, ids)
        start = 0
        while start < len(labels):
            await call.wait_for_room()
            page = labels[start : start + limits.PAGE_DOCUMENTS]
            found = await call.engine.read(operations.read_located, call.engine, view, page, vectors)
            start += len(found)
            await call.items(found)
    return {"seq": seq}
