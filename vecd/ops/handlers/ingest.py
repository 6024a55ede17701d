"""ingest: a batch of documents."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ... import limits
from ...engine import ingest as operations
from ...errors import nearest
from ...store.catalogue import DEFAULT
from ..call import Call


async def ingest(call: Call) -> dict[str, Any]:
    """Fields: library, documents, strict, create (a library that does not exist; the reply then describes it), detail
    (adds the outcome of each document to the reply)."""
    fields = call.fields
    documents = fields.items("documents", count_max=limits.BATCH_DOCUMENTS_MAX)
    strict, create, detail = fields.flag("strict"), fields.flag("create"), fields.flag("detail")
    result = await operations.ingest(
        call.engine, fields.text("library", DEFAULT), documents, call.slot, strict=strict, create=create
    )
    counts = Counter(outcome.status for outcome in result.outcomes)
    body: dict[str, Any] = {status: counts[status] for status in ("added", "updated", "unchanged", "deleted")}
    body["failed"] = len(result.refused)
    body["seq"] = result.seq
    few = len(result.refused) <= limits.BATCH_ERRORS_WHOLE
    chars_max = limits.ERROR_CHARS_MAX if few else limits.BATCH_ERROR_CHARS_MAX
    body["errors"] = [{"index": index, **error.to_wire(chars_max)} for index, error in result.refused]
    if result.created is not None:
        others = call.engine.database.catalogue.by_name.keys() - {result.created.name}
        body["created"] = {**result.created.described(), "similar": nearest(result.created.name, sorted(others))}
    if detail:
        body["documents"] = [
            {"index": each.index, "id": each.id, "status": each.status, "seq": each.seq} for each in result.outcomes
        ]
    return body
