"""library.create, library.list, library.show, library.rename, library.rebuild,
library.delete."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import libraries as operations
from ...engine import synthetic_recall
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
    )
    return await operations.create(call.engine, wanted, call.slot)


async def list_(call: Call) -> dict[str, Any]:
    await call.wait_for_room()
    return {"libraries": [operations.show(call.engine, each) for each in operations.all_libraries(call.engine)]}


async def show(call: Call) -> dict[str, Any]:
    library = call.engine.database.catalogue.find(call.fields.text("library"))
    shown = operations.show(call.engine, library)
    return {**shown, "recall": {**shown["recall"], "probe": await synthetic_recall.measure(call.engine, library)}}


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


def _parameters(fields: Fields) -> dict[str, Any]:
    """The parameters of an index: `params`, and `parameters`, its earlier name."""
    return {**fields.mapping("parameters"), **fields.mapping("params")}
