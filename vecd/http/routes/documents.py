"""Documents: write a batch, update, read, list, delete. Streams and jobs that write documents are in ingest.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from ...errors import Code, VecError
from ...json_values import id_text
from ...wire.documents import pack_all
from ...wire.mapping import DocumentMapping
from ..call import Call, filters, json_answer
from ..endpoint import NDJSON, Answer, Body, Endpoint, Parameter
from ..mappings import MAPPING, mapped, saved_mapping, wants_mapping
from ..op_access import check_op
from ..parameters import LIBRARY, WHERE
from ..schemas import ref
from ..streams import begun, lines, list_answer, summary

_DOCUMENT = Parameter("document", "path", {"type": "string", "minLength": 1}, "The id of a document.", required=True)
_VECTORS = Parameter("vectors", "query", {"type": "boolean"}, "Include the vectors of the chunks.")

_SORT = Parameter("sort", "query", {"type": "string"}, "List by this field, written as in filters, instead of by id.")
_DESCENDING = Parameter("descending", "query", {"type": "boolean"}, "With `sort`: the largest values first.")
_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1}, "List this many documents at most.")


async def write(call: Call) -> Response:
    body, refused = await call.json_documents()
    given, strict = body["documents"], bool(body.get("strict"))
    if not isinstance(given, list):
        raise VecError(Code.INVALID_REQUEST, "'documents' must be a list", field="documents")
    return json_answer(await _write(call, *mapped(await _mapping(call), given, refused), strict=strict))


async def _mapping(call: Call) -> DocumentMapping | None:
    return await saved_mapping(call.unchecked, call.path["library"]) if wants_mapping(call.query) else None


async def _write(call: Call, given: list[Any], refused: Mapping[int, VecError], *, strict: bool) -> dict[str, Any]:
    """Writes documents; the answer of the op `ingest`, with the outcome of each. `refused` has errors by position."""
    batch = pack_all(given, refused=refused)
    if strict:
        batch = batch.before_refused()
    answer = await call.daemon(
        "ingest", library=call.path["library"], documents=batch.documents, strict=strict or None, detail=True
    )
    return batch.complete(answer, strict)


async def put(call: Call) -> Response:
    body = await call.json_body(exact=True)
    wanted = call.path["document"]
    if id_text(body.setdefault("id", wanted)) != wanted:
        raise VecError(
            Code.INVALID_REQUEST, "the body has another id than the path", "leave the id out of the body", field="id"
        )
    answer = await _write(call, [body], {}, strict=True)
    for told in answer["errors"]:
        told.pop("index")
        raise VecError.from_wire(told)
    (outcome,) = answer["documents"]
    body = {"id": outcome["id"], "status": outcome["status"], "seq": answer["seq"]}
    return json_answer(body, 201 if outcome["status"] == "added" else 200)


async def get(call: Call) -> Response:
    document_id = call.path["document"]
    answer = await call.daemon(
        "get", library=call.path["library"], ids=[document_id], vectors=call.query.get("vectors") or None
    )
    (document,) = answer["documents"]
    if document is None:
        raise _not_found(call, document_id)
    return json_answer({**document, "seq": answer["seq"]})


async def get_many(call: Call) -> Response:
    return await list_answer(call, "get", "documents", library=call.path["library"], **await call.json_body())


async def delete(call: Call) -> Response:
    document_id = call.path["document"]
    fields = {"library": call.path["library"], "ids": [document_id]}
    check_op(call.principal, "delete", fields)
    answer, repeated = await call.gateway.pool.request_once_or_twice("delete", **fields)
    if not answer["deleted"] and not repeated:  # else the first request may have deleted it
        raise _not_found(call, document_id)
    return json_answer(answer)


def _not_found(call: Call, document_id: str) -> VecError:
    library = call.path["library"]
    return VecError(
        Code.NOT_FOUND, f"library '{library}' has no document {document_id!r:.600}", library=library, id=document_id
    )


async def delete_many(call: Call) -> Response:
    body = await call.json_body()
    ids, where = body.get("ids"), filters(body.get("where"))
    return json_answer(await call.daemon("delete", library=call.path["library"], ids=ids, where=where))


async def update_many(call: Call) -> Response:
    body = await call.json_body()
    where = filters(body.pop("where", None))
    return json_answer(await call.daemon("update", library=call.path["library"], where=where, **body))


async def list_(call: Call) -> Response:
    async def listing() -> AsyncGenerator[bytes, None]:
        found = 0
        async with call.gateway.pool.connection() as client:
            query = {name: call.query.get(name) for name in ("where", "sort", "descending", "limit")}
            pending = client.submit("list", library=call.path["library"], **query)
            async with aclosing(pending.parts()) as parts:
                async for reply in parts:
                    if reply.kind == "items":
                        found += len(reply.body)
                        yield lines(reply.body)
                    else:
                        yield summary(documents=found, **reply.body)

    return await begun(listing())


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/libraries/{library}/documents", list_, "read", "List documents, or those that match.", "documents",
        {200: Answer("A document a line, by id; the last line is the summary.", ref("ListLine"), NDJSON)},
        (LIBRARY, WHERE, _SORT, _DESCENDING, _LIMIT), op="list",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/documents", write, "write", "Write a batch of documents.", "documents",
        {200: Answer("The outcome of each document.", ref("Ingested"))}, (LIBRARY, MAPPING), Body(ref("Batch")),
        op="ingest",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/documents/get", get_many, "read", "Read documents by id.", "documents",
        {200: Answer("The documents, in the order of the ids.", ref("Documents"))}, (LIBRARY,), Body(ref("Ids")),
        op="get",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/documents/delete", delete_many, "write",
        "Delete documents by id, or those that match a filter.", "documents",
        {200: Answer("How many were deleted.", ref("Deleted"))}, (LIBRARY,), Body(ref("Selection")), op="delete",
    ),
    Endpoint(
        "POST", "/v1/libraries/{library}/documents/update", update_many, "write",
        "Change the metadata of documents, by id, or of those that match a filter.", "documents",
        {200: Answer("How many were changed.", ref("Updated"))}, (LIBRARY,), Body(ref("Update")), op="update",
    ),
    Endpoint(
        "GET", "/v1/libraries/{library}/documents/{document}", get, "read", "Read a document.", "documents",
        {200: Answer("The document.", ref("Document"))}, (LIBRARY, _DOCUMENT, _VECTORS), op="get",
    ),
    Endpoint(
        "PUT", "/v1/libraries/{library}/documents/{document}", put, "write", "Write a document.", "documents",
        {
            200: Answer("It was updated, or had this content already.", ref("Written")),
            201: Answer("It was added.", ref("Written")),
        },
        (LIBRARY, _DOCUMENT), Body(ref("NewDocument")), op="ingest",
    ),
    Endpoint(
        "DELETE", "/v1/libraries/{library}/documents/{document}", delete, "write", "Delete a document.", "documents",
        {200: Answer("It was deleted.", ref("Deleted"))}, (LIBRARY, _DOCUMENT), op="delete",
    ),
)  # fmt: skip
