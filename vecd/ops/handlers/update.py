"""update: the metadata of documents, by id, or of those that match a filter."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import patch as operations
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ..call import Call


async def update(call: Call) -> dict[str, Any]:
    """Fields: library, either ids or where, set (a map of fields to values), unset (fields)."""
    fields = call.fields
    library = fields.text("library", DEFAULT)
    where = await call.engine.parse_filter(fields.filters("where"))
    if bool(where) == (fields.raw("ids") is not None):
        raise VecError(Code.INVALID_REQUEST, "update: give either 'ids' or 'where'", field="ids")
    ids = [] if where else fields.texts("ids", count_max=limits.IDS_MAX)
    removed = fields.optional_texts("unset", count_max=limits.UPDATE_FIELDS_MAX, chars_max=limits.KEY_CHARS_MAX)
    values = fields.mapping("set")
    if len(values) > limits.UPDATE_FIELDS_MAX:
        raise VecError(
            Code.INVALID_REQUEST, f"update: 'set' has more than {limits.UPDATE_FIELDS_MAX} fields", field="set"
        )
    change = operations.parse(values, removed or [])
    return await operations.update(call.engine, library, ids, where, change, call.slot)
