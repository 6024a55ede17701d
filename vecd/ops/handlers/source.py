"""source.add, source.reset; and the ops of a source's runner, source.offsets and source.commit."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...connectors import definition, table
from ...connectors.decoding import Decoder
from ...connectors.transport import Transport
from ...engine.libraries import find_for_writing
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ..call import Call
from ..source_commits import SourceCommit
from .connectors import letter_ids, name_of
from .relay import generation_of, new_letters


async def add(call: Call) -> dict[str, Any]:
    """Fields: name, url, parameters, library, group, mapping, libraries, paused."""
    fields = call.fields
    name, url = name_of(call), fields.text("url")
    definition.check_name("source", name)
    _, parameters = await call.engine.read(table.check, "source", url, fields.mapping("parameters"))
    group = fields.optional_text("group", chars_max=limits.SOURCE_GROUP_CHARS_MAX)
    if group is not None and not (group and group.isprintable()):
        raise VecError(Code.INVALID_REQUEST, f"{group!r:.60} is not a name of a group", field="group")
    wanted = definition.SourceDefinition(
        name=name,
        url=url,
        parameters=parameters,
        paused=fields.flag("paused"),
        library=fields.text("library", DEFAULT, chars_max=limits.NAME_BYTES_MAX),
        group=group,
        mapping=fields.strings("mapping"),
        libraries=tuple(fields.optional_texts("libraries", chars_max=limits.NAME_BYTES_MAX) or ()),
    )
    if wanted.mapping and wanted.libraries:
        raise VecError(
            Code.INVALID_REQUEST,
            "with a mapping, messages are not events, so they have no library to select",
            "leave out the mapping, or the libraries",
            field="libraries",
        )
    find_for_writing(call.engine, wanted.library, ())
    Decoder(wanted.mapping)
    return await call.service.connectors.add(wanted, None)


async def reset(call: Call) -> dict[str, Any]:
    """Fields: name; `start`, earliest or latest; `offsets`, a map. Both are optional."""
    fields = call.fields
    start = fields.optional_text("start", chars_max=limits.KEY_CHARS_MAX)
    given = fields.strings("offsets")
    parameters: dict[str, Any] = {}
    found = await call.service.connectors.definition("source", name_of(call))
    if given:
        table.check_offsets(found, given)
    if start is not None:
        parameters = _start_parameter(table.transport_of(found), start)
    return await call.service.connectors.reset_source(name_of(call), parameters, given)


def _start_parameter(transport: Transport, start: str) -> dict[str, Any]:
    declared = transport.parameters.get("start")
    if declared is None:
        raise VecError(Code.INVALID_REQUEST, f"the transport {transport.name} has no parameter 'start'", field="start")
    if not declared.accepts(start):
        raise VecError(
            Code.INVALID_REQUEST, f"field 'start' must be {declared.valid}, not {start!r:.40}", field="start"
        )
    return {"start": start}


async def offsets(call: Call) -> dict[str, Any]:
    """Fields: name, generation."""
    return {"offsets": await call.service.connectors.source_offsets(name_of(call), generation_of(call))}


async def commit(call: Call) -> dict[str, Any]:
    """Fields: name, generation, offsets and expected (maps by partition), documents, dead_letters, letter_ids."""
    fields = call.fields
    found = await call.service.connectors.check_source(name_of(call), generation_of(call))
    expected = fields.mapping("expected")
    if not all(value is None or isinstance(value, str) for value in expected.values()):
        raise VecError(Code.INVALID_REQUEST, "field 'expected' must be a map of strings", field="expected")
    wanted = SourceCommit(
        name=found.name,
        generation=found.generation,
        library=found.library,
        offsets=fields.strings("offsets"),
        expected=expected,
        documents=fields.items("documents", count_max=limits.BATCH_DOCUMENTS_MAX),
        letters=new_letters(fields.raw("dead_letters")),
        resolved=letter_ids(call) or (),
    )
    return await wanted.apply(call.engine, call.slot)
