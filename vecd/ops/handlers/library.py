"""library.create, list, show, settings, set, rename, rebuild, delete."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import libraries as operations
from ...engine import synthetic_recall
from ...errors import Code, VecError
from ...wire.mapping import DocumentMapping
from ..call import Call
from ..fields import Fields


async def create(call: Call) -> dict[str, Any]:
    fields = call.fields
    wanted = operations.planned(
        call.engine,
        fields.text("library"),
        dimension=fields.optional_integer("dimension", low=1, high=limits.DIMENSION_MAX),
        metric=fields.text("metric", "cosine"),
        kind=fields.optional_text("index"),
        parameters=_parameters(fields),
        embedder=fields.optional_text("embedder"),
        embedder_parameters=fields.mapping("embedder_parameters"),
        first_embedder=fields.optional_text("first_embedder"),
        chunk_chars=fields.optional_integer("chunk_chars", low=50, high=limits.CHUNK_CHARS_MAX),
        chunk_overlap=fields.optional_integer("chunk_overlap", low=0, high=limits.CHUNK_CHARS_MAX),
        recall=fields.optional_number("recall", low=limits.RECALL_MIN, high=1),
        language=fields.optional_text("language"),
        mapping=_mapping(fields),
    )
    created = await operations.create(call.engine, wanted, call.slot)
    if wanted.mapping:
        await call.service.connectors.reload()
    return created


async def list_(call: Call) -> dict[str, Any]:
    await call.wait_for_room()
    return {"libraries": [operations.show(call.engine, each) for each in operations.all_libraries(call.engine)]}


async def show(call: Call) -> dict[str, Any]:
    library = call.engine.database.catalogue.find(call.fields.text("library"), to="manage")
    shown = operations.show(call.engine, library)
    return {**shown, "recall": {**shown["recall"], "probe": await synthetic_recall.measure(call.engine, library)}}


async def settings(call: Call) -> dict[str, Any]:
    """What is set for a library, without measuring anything."""
    return operations.find(call.engine, call.fields.text("library")).described()


async def set_(call: Call) -> dict[str, Any]:
    """Fields: library, mapping."""
    name, mapping = call.fields.text("library"), _mapping(call.fields)
    if mapping is None:
        raise VecError(Code.INVALID_REQUEST, "library.set: nothing is set", "give a mapping", field="mapping")
    body = await operations.set_mapping(call.engine, name, mapping, call.slot)
    await call.service.connectors.reload()
    return body


async def rebuild(call: Call) -> dict[str, Any]:
    """Fields: library, index, params, parameters, recall."""
    fields = call.fields
    return await operations.rebuild(
        call.engine,
        fields.text("library"),
        fields.optional_text("index"),
        _parameters(fields),
        fields.optional_number("recall", low=limits.RECALL_MIN, high=1),
    )


async def rename(call: Call) -> dict[str, Any]:
    """Fields: library, to."""
    answer = await operations.rename(call.engine, call.fields.text("library"), call.fields.text("to"), call.slot)
    await call.service.connectors.reload()
    return answer


async def delete(call: Call) -> dict[str, Any]:
    return await operations.delete(call.engine, call.fields.text("library"), call.slot)


def _mapping(fields: Fields) -> dict[str, str] | None:
    """The rules of a mapping, checked; None if there is no such field."""
    if fields.raw("mapping") is None:
        return None
    rules = fields.strings("mapping")
    if rules:
        DocumentMapping.parse(rules)
    return rules


def _parameters(fields: Fields) -> dict[str, Any]:
    """The parameters of an index: `params`, and `parameters`, its earlier name."""
    return {**fields.mapping("parameters"), **fields.mapping("params")}
