"""list: all documents of a library, by id, as a stream of pages."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call


async def list_(call: Call) -> dict[str, Any]:
    call.streamed = True
    library, after = call.fields.text("library", DEFAULT), None
    while page := await call.engine.read(verbs.page, call.engine, library, after, limits.PAGE_ITEMS):
        after = page[-1]["id"]
        await call.items(page)
    return {}
