"""delete: documents by id, or by a filter."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as operations
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ..call import Call


async def delete(call: Call) -> dict[str, Any]:
    """Fields: library, and either ids or where."""
    library = call.fields.text("library", DEFAULT)
    where = await call.engine.parse_filter(call.fields.filters("where"))
    if not where:
        ids = call.fields.ids("ids", count_max=limits.IDS_MAX)
        return await operations.delete(call.engine, library, ids, call.slot)
    if call.fields.raw("ids") is not None:
        raise VecError(Code.INVALID_REQUEST, "delete: give 'ids' or 'where', not both", field="where")
    return await operations.delete_where(call.engine, library, where, call.slot)
