"""count: how much a library holds, or of it a filter lets through."""

from __future__ import annotations

from typing import Any

from ...engine import attribute_cache
from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call


async def count(call: Call) -> dict[str, Any]:
    where = await attribute_cache.parse(call.engine, call.fields.filters("where"))
    return await verbs.count(call.engine, call.fields.text("library", DEFAULT), where)
