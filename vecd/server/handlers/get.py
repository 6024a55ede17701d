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
    found = await call.engine.read(verbs.get, call.engine, library, ids, call.fields.flag("vectors"))
    return {"documents": found}
