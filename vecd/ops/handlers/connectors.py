"""The ops that relays, sources and syncs share: relay.list, source.list, …; and those of the processes that run them,
connectors.watch and connectors.report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ... import limits
from ...connectors.definition import Direction
from ...errors import Code, VecError
from ..call import Call

Body = dict[str, Any]
Handler = Callable[[Call], Awaitable[Body]]
_NUMBER_MAX = 2**62


def name_of(call: Call) -> str:
    """The field `name`."""
    return call.fields.text("name", chars_max=limits.CONSUMER_NAME_BYTES_MAX)


def list_(direction: Direction) -> Handler:
    async def handle(call: Call) -> Body:
        await call.wait_for_room()
        return {f"{direction}s": await call.service.connectors.all(direction)}

    return handle


def show(direction: Direction) -> Handler:
    """Field: name."""

    async def handle(call: Call) -> Body:
        return await call.service.connectors.show(direction, name_of(call))

    return handle


def pause(direction: Direction, paused: bool) -> Handler:
    """Field: name."""

    async def handle(call: Call) -> Body:
        return await call.service.connectors.pause(direction, name_of(call), paused)

    return handle


def remove(direction: Direction) -> Handler:
    """Field: name. Answers with the connector as it was."""

    async def handle(call: Call) -> Body:
        return await call.service.connectors.remove(direction, name_of(call))

    return handle


def dead(direction: Direction) -> Handler:
    """Fields: name, after (a letter's id, exclusive), bodies, retrying (only those). Answers with a page."""

    async def handle(call: Call) -> Body:
        fields = call.fields
        await call.wait_for_room()
        letters = await call.service.connectors.letters(
            direction,
            name_of(call),
            after=fields.integer("after", 0, low=0, high=_NUMBER_MAX),
            bodies=fields.flag("bodies"),
            retrying=fields.flag("retrying"),
        )
        return {"dead_letters": letters}

    return handle


def retry(direction: Direction) -> Handler:
    """Fields: name; letter_ids, missing: all."""

    async def handle(call: Call) -> Body:
        return {"retrying": await call.service.connectors.retry(direction, name_of(call), letter_ids(call))}

    return handle


def drop(direction: Direction) -> Handler:
    """Fields: name; letter_ids, missing: all."""

    async def handle(call: Call) -> Body:
        return {"dropped": await call.service.connectors.drop(direction, name_of(call), letter_ids(call))}

    return handle


def letter_ids(call: Call) -> list[int] | None:
    if call.fields.raw("letter_ids") is None:
        return None
    return call.fields.integers("letter_ids", count_max=limits.DEAD_LETTERS_MAX)


async def watch(call: Call) -> Body:
    """A stream for a process of connectors: all definitions, and again after each change. Field: directions, whose
    definitions (default: relay and source)."""
    connectors = call.service.connectors
    directions = call.fields.optional_texts("directions", chars_max=limits.KEY_CHARS_MAX) or ("relay", "source")
    while True:
        generation = connectors.changed.generation
        await call.items(await connectors.to_process(directions), log=call.engine.database.log_id)
        await connectors.changed.wait(generation)


async def report(call: Call) -> Body:
    """Field: reports, a list of maps: direction, name, generation, state, and what the connector says of itself."""
    for each in call.fields.items("reports", count_max=3 * limits.CONNECTORS_MAX):
        if not isinstance(each, dict) or not isinstance(each.get("generation"), int):
            raise VecError(Code.INVALID_REQUEST, "field 'reports' must be a list of maps", field="reports")
        call.service.connectors.report(str(each.get("direction")), str(each.get("name")), each["generation"], each)
    return {}
