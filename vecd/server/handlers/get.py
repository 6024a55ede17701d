"""get: documents by id, as they were at one moment."""

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
        documents, seq = await call.engine.read(verbs.get, call.engine, library, ids, vectors)
        return {"documents": documents, "seq": seq}
    call.streamed = True
    with call.engine.views.open() as view:
        labels, seq = await call.engine.read(verbs.locate, call.engine, view, library, ids)
        for start in range(0, len(labels), limits.PAGE_DOCUMENTS):
            page = labels[start : start + limits.PAGE_DOCUMENTS]
            await call.items(await call.engine.read(verbs.at, call.engine, view, page, vectors))
    return {"seq": seq}
