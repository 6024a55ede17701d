"""watch: a subscription to the log. cancel: the end of one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ...engine import watch as verbs
from ..call import Call


async def watch(call: Call) -> dict[str, Any]:
    """Fields: from, libraries, types, follow, limit, timeout_s. Each message carries the cursor it has read to; the
    first, which may be empty, tells that the subscription stands."""
    fields = call.fields
    libraries, types = fields.optional_texts("libraries"), fields.optional_texts("types")
    spec = verbs.Spec(
        start=fields.text("from", "now"),
        libraries=None if libraries is None else frozenset(libraries),
        types=tuple(types or ()),
        follow=fields.flag("follow", True),
        limit=fields.optional_integer("limit", low=1, high=2**62),
        timeout_s=fields.optional_seconds("timeout_s"),
    )
    log_id, seq = call.engine.database.log_id, None
    reason = "done"
    try:
        async with contextlib.aclosing(verbs.watch(call.engine, spec)) as pages:
            async for page in pages:
                if page.events or seq is None:
                    seq = page.seq  # before the wait in `items`: by then the events are on their way
                    await call.items(page.events, cursor=f"{log_id}:{seq}")
                seq = page.seq
    except TimeoutError:
        reason = "timeout"
    except asyncio.CancelledError:
        reason = "shutting_down" if call.stopping else "cancelled"
    return {"reason": reason, "cursor": None if seq is None else f"{log_id}:{seq}"}


def cancel(call: Call) -> dict[str, Any]:
    """Field: target, the id of the request whose stream is to end. Answers whether there was one."""
    return {"cancelled": call.cancel(call.fields.integer("target", 0, low=0, high=2**62))}
