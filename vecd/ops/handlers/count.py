"""count: the documents and chunks of a library, all or those that match a filter."""

from __future__ import annotations

from typing import Any

from ...engine import documents as operations
from ...store.catalogue import DEFAULT
from ..call import Call


async def count(call: Call) -> dict[str, Any]:
    where = await call.engine.parse_filter(call.fields.filters("where"))
    return await operations.count(call.engine, call.fields.text("library", DEFAULT), where)
