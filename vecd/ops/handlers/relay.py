"""relay.add, relay.reset; and the ops of a relay's runner, relay.watch and relay.commit."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...connectors import definition, table
from ...connectors.messages import FORMATS
from ...errors import Code, VecError
from ...feed.selection import EventSelection
from ...feed.watch import WatchSpec
from ...store.connectors import NewLetter
from ..call import Call
from .connectors import letter_ids, name_of
from .watch import follow, types_of

_NUMBER_MAX = 2**62
_TEXT_CHARS_MAX = 4_000


async def add(call: Call) -> dict[str, Any]:
    """Fields: name, url, parameters, format, libraries, types, where, payload, vectors, from, paused."""
    fields = call.fields
    name, url = name_of(call), fields.text("url")
    definition.check_name("relay", name)
    format = fields.text("format", "vec", chars_max=limits.KEY_CHARS_MAX)
    if format not in FORMATS:
        raise VecError(
            Code.INVALID_REQUEST, f"unknown format {format!r:.40}", f"one of {', '.join(FORMATS)}", field="format"
        )
    _, parameters = await call.engine.read(table.check, "relay", url, fields.mapping("parameters"))
    vectors = fields.flag("vectors")
    wanted = definition.RelayDefinition(
        name=name,
        url=url,
        parameters=parameters,
        paused=fields.flag("paused"),
        format=format,
        libraries=tuple(fields.optional_texts("libraries", chars_max=limits.NAME_BYTES_MAX) or ()),
        types=tuple(fields.optional_texts("types", count_max=limits.TYPES_MAX, chars_max=limits.TYPE_CHARS_MAX) or ()),
        where=tuple(fields.filters("where")),
        payload=fields.flag("payload") or vectors,
        vectors=vectors,
    )
    for library in wanted.libraries:
        if library != "default":
            call.engine.database.catalogue.find(library)
    await _selection(call, wanted)
    return await call.service.connectors.add(wanted, fields.text("from", "now"))


async def _selection(call: Call, wanted: definition.RelayDefinition) -> EventSelection:
    """What the relay sends. Raises what a watch with this selection would."""
    return EventSelection(
        libraries=frozenset(wanted.libraries) or None,
        types=await types_of(call, wanted.types),
        where=await call.engine.parse_filter(list(wanted.where)),
        payload=wanted.payload,
        replaced=wanted.payload,
        vectors=wanted.vectors,
    )


async def reset(call: Call) -> dict[str, Any]:
    """Fields: name, and `to`, a position as `watch` has it in `from`."""
    return await call.service.connectors.reset_relay(name_of(call), call.fields.text("to"))


async def watch(call: Call) -> dict[str, Any]:
    """Fields: name, generation. A watch of what the relay's definition selects, from the relay's position on."""
    now = call.engine.database.head
    wanted = await call.service.connectors.check_relay(name_of(call), generation_of(call))
    selection = await _selection(call, wanted)
    return await follow(call, WatchSpec(selection, consumer=wanted.consumer, create=False, holder=call.peer), now)


async def commit(call: Call) -> dict[str, Any]:
    """Fields: name, generation, cursor, dead_letters (maps: position, code, reason, attempts, about, body), and
    letter_ids of dead letters that were delivered after all."""
    fields = call.fields
    await call.service.connectors.commit_relay(
        name_of(call),
        generation_of(call),
        fields.optional_text("cursor", chars_max=200),
        new_letters(fields.raw("dead_letters")),
        letter_ids(call) or (),
    )
    return {}


def new_letters(given: Any) -> list[NewLetter]:
    """The dead letters in a request. Raises VecError `invalid_request`."""
    if given is None:
        return []
    fields = {"position": str, "code": str, "reason": str, "attempts": int, "about": dict, "body": bytes}
    if not isinstance(given, list) or not all(
        isinstance(each, dict) and all(isinstance(each.get(name), kind) for name, kind in fields.items())
        for each in given
    ):
        raise VecError(
            Code.INVALID_REQUEST, "field 'dead_letters' must be a list of dead letters", field="dead_letters"
        )
    return [
        NewLetter(
            each["position"][:_TEXT_CHARS_MAX],
            each["code"][: limits.KEY_CHARS_MAX],
            each["reason"][:_TEXT_CHARS_MAX],
            each["attempts"],
            each["about"],
            each["body"],
        )
        for each in given
    ]


def generation_of(call: Call) -> int:
    """The field `generation`."""
    return call.fields.integer("generation", 0, low=0, high=_NUMBER_MAX)
