"""delete: documents by id."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call


async def delete(call: Call) -> dict[str, Any]:
    ids = call.fields.texts("ids", count_max=limits.IDS_MAX)
    return await verbs.delete(call.engine, call.fields.text("library", DEFAULT), ids, call.turn)
