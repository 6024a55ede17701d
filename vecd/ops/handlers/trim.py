"""trim: deletes the log's oldest events."""

from __future__ import annotations

from typing import Any

from ...errors import Code, VecError
from ...store.retention import Limits
from ..call import Call


async def trim(call: Call) -> dict[str, Any]:
    """Fields: keep_age_s, keep_count, keep_bytes, past_consumers, wait."""
    fields = call.fields
    keep = Limits(
        fields.optional_seconds("keep_age_s"),
        fields.optional_integer("keep_count", low=0, high=2**62),
        fields.optional_integer("keep_bytes", low=0, high=2**62),
    )
    if keep == Limits():
        raise VecError(
            Code.INVALID_REQUEST,
            "no limit was specified",
            "use keep_age_s, keep_count or keep_bytes",
            field="keep_age_s",
        )
    return await call.engine.feed.retention.trim(
        keep, past_consumers=fields.flag("past_consumers"), wait=fields.flag("wait")
    )
