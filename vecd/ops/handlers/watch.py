"""watch: a subscription to the log. ack: its consumer has done with what came. flush: a barrier. cancel: the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from ... import limits
from ...errors import Code, VecError
from ...feed import positions
from ...feed.batches import bookmark
from ...feed.selection import EventSelection, match_types
from ...feed.watch import WatchSpec
from ...store.events import ALL_TYPES
from ..call import Call


async def watch(call: Call) -> dict[str, Any]:
    """Each message carries the cursor it has read to and the log's head; the first, which may be empty, tells that the
    subscription stands. So does the end, unless it comes before that."""
    now = call.engine.database.head  # before the filters are parsed, which may take a while
    return await follow(call, await _spec(call), now)


async def follow(call: Call, spec: WatchSpec, now: int) -> dict[str, Any]:
    """Sends what a watch brings. `now` is the log's head when the request arrived. Field: timeout_s."""
    timeout_s = call.fields.optional_seconds("timeout_s")
    subscription = call.engine.feed.watches.make(spec, call.encode_part, now, partial(call.wait_for_room, alone=True))
    database, loop = call.engine.database, asyncio.get_running_loop()
    reason, sent_at = "done", loop.time()
    try:
        async with asyncio.timeout(timeout_s), contextlib.aclosing(subscription.batches()) as them:
            with call.register_watch(subscription):
                async for batch in them:
                    if batch.body is not None:
                        await call.part(batch.body)
                        sent_at = loop.time()
                    elif loop.time() - sent_at > call.engine.settings.heartbeat_s:
                        await call.part(bookmark(database, batch.position, call.encode_part))
                        sent_at = loop.time()
                    call.release_room()  # also if there was nothing to send
    except TimeoutError:
        reason = "timeout"
    except asyncio.CancelledError:
        reason = "shutting_down" if call.stopping else "cancelled"
    if not subscription.begun:
        return {"reason": reason}
    return {"reason": reason, "cursor": positions.cursor(database, subscription.reached)}


async def _spec(call: Call) -> WatchSpec:
    fields = call.fields
    libraries = fields.optional_texts("libraries", chars_max=limits.NAME_BYTES_MAX)
    consumer = fields.optional_text("consumer")
    await call.service.connectors.check_consumer(consumer)
    payload = fields.flag("payload")
    selection = EventSelection(
        libraries=None if libraries is None else frozenset(libraries),
        types=await types_of(
            call, fields.optional_texts("types", count_max=limits.TYPES_MAX, chars_max=limits.TYPE_CHARS_MAX)
        ),
        where=await call.engine.parse_filter(fields.filters("where")),
        payload=payload,
        replaced=payload and fields.flag("replaced", True),
        vectors=payload and fields.flag("vectors"),
    )
    return WatchSpec(
        selection=selection,
        start=fields.text("from", "now"),
        follow=fields.flag("follow", True),
        until=fields.optional_text("until"),
        limit=fields.optional_integer("limit", low=1, high=2**62),
        snapshot=fields.flag("snapshot"),
        consumer=consumer,
        holder=call.peer,
        on_gap=fields.text("on_gap", "fail"),
    )


async def types_of(call: Call, wanted: Sequence[str] | None) -> frozenset[str] | None:
    """The event types that types and globs name; None: all. Globs are compiled, which takes a while: off the event
    loop. Raises VecError `invalid_request`."""
    if all(each in ALL_TYPES for each in wanted or ()):
        return frozenset(wanted or ()) or None
    return await call.engine.read(match_types, list(wanted or ()))


async def ack(call: Call) -> dict[str, Any]:
    """Fields: consumer, cursor."""
    engine, fields = call.engine, call.fields
    position = positions.parse(engine.database, fields.text("cursor"))
    await call.service.connectors.check_consumer(fields.text("consumer"))
    await engine.feed.consumers.ack(fields.text("consumer"), position)
    return {"cursor": positions.cursor(engine.database, position)}


async def flush(call: Call) -> dict[str, Any]:
    """Fields: target (a watch of this connection), or consumer, or neither (all who watch now); timeout_s."""
    fields = call.fields
    target, consumer = fields.optional_integer("target", low=0, high=2**62), fields.optional_text("consumer")
    timeout_s = fields.optional_seconds("timeout_s")
    watch = None if target is None else call.find_watch(target)
    if target is not None and watch is None:
        raise VecError(Code.NOT_FOUND, f"there is no watch {target} on this connection", field="target")
    try:
        async with asyncio.timeout(timeout_s):
            return {"cursor": await call.engine.feed.watches.flush(watch, consumer)}
    except TimeoutError:
        raise VecError(Code.TIMEOUT, f"not all events were delivered within {timeout_s:g} s", "try again") from None


def cancel(call: Call) -> dict[str, Any]:
    """Field: target, the id of the request whose stream is to end. Answers whether there was one."""
    return {"cancelled": call.cancel(call.fields.integer("target", 0, low=0, high=2**62))}
