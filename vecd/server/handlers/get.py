"""get: documents by id."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call


async def get(call: Call) -> dict[str, Any]:
    ids = call.fields.texts("ids", count_max=limits.IDS_MAX)
    library = call.fields.text("library", DEFAULT)
    vectors = call.fields.flag("vectors")
    if len(ids) <= limits.PAGE_DOCUMENTS:
        return {"documents": await call.engine.read(verbs.get, call.engine, library, ids, vectors)}
    call.streamed = True
    for start in range(0, len(ids), limits.PAGE_DOCUMENTS):
        page = ids[start : start + limits.PAGE_DOCUMENTS]
        await call.items(await call.engine.read(verbs.get, call.engine, library, page, vectors))
    return {}
