"""library.create, library.list, library.show, library.delete."""

from __future__ import annotations

from typing import Any

from ... import limits
from ...engine import libraries as verbs
from ..call import Call


async def create(call: Call) -> dict[str, Any]:
    fields = call.fields
    wanted = verbs.planned(
        call.engine,
        fields.text("library"),
        dimension=fields.optional_integer("dimension", low=1, high=limits.DIMENSION_MAX),
        metric=fields.text("metric", "cosine"),
        kind=fields.text("index", "flat"),
        embedder=fields.optional_text("embedder"),
        chunk_chars=fields.optional_integer("chunk_chars", low=50, high=limits.CHUNK_CHARS_MAX),
    )
    return await verbs.create(call.engine, wanted, call.turn)


def list_(call: Call) -> dict[str, Any]:
    return {"libraries": [verbs.show(call.engine, each) for each in verbs.everything(call.engine)]}


def show(call: Call) -> dict[str, Any]:
    return verbs.show(call.engine, call.engine.database.catalogue.find(call.fields.text("library")))


async def delete(call: Call) -> dict[str, Any]:
    return await verbs.delete(call.engine, call.fields.text("library"), call.turn)
