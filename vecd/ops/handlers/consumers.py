"""consumers.list, consumers.reset, consumers.delete."""

from __future__ import annotations

from typing import Any

from ...feed import positions
from ..call import Call


async def list_(call: Call) -> dict[str, Any]:
    await call.wait_for_room()
    return {"consumers": await call.engine.feed.consumers.all()}


async def reset(call: Call) -> dict[str, Any]:
    """Fields: consumer, and `to`, a position as `watch` has it in `from`."""
    engine = call.engine
    await call.service.connectors.check_consumer(call.fields.text("consumer"))
    position = await engine.read(positions.resolve, engine.database, call.fields.text("to"))
    return await engine.feed.consumers.reset(call.fields.text("consumer"), position)


async def delete(call: Call) -> dict[str, Any]:
    await call.service.connectors.check_consumer(call.fields.text("consumer"))
    return await call.engine.feed.consumers.delete(call.fields.text("consumer"))
