"""Documents, and what was written."""

from __future__ import annotations

from typing import Final

from ... import limits
from .schema import (
    BOOLEAN,
    COUNT,
    COUNTS,
    LINE,
    MAP,
    STRING,
    VECTOR,
    WARNINGS,
    WHERE,
    Schema,
    array,
    closed,
    enum,
    nullable,
    record,
    ref,
)

_ID: Schema = {"type": "string", "minLength": 1, "maxLength": limits.ID_BYTES_MAX}
#: An id in a request: a whole number stands for its digits.
_ID_GIVEN: Schema = {
    "anyOf": [_ID, {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}],
    "description": "A string; a whole number stands for its digits.",
}
_DOCUMENT_KEYS = {"id": _ID, "title": nullable(STRING), "metadata": MAP}
_BATCH_ITEM: Schema = {
    "anyOf": [
        ref("NewDocument"),
        ref("Deletion"),
        ref("Creation"),
        {"description": "Anything else gets an error of its own."},
    ]
}

COMPONENTS: Final[dict[str, Schema]] = {
    "NewDocument": closed(
        {},
        {
            "id": _ID_GIVEN,
            "title": nullable({"type": "string", "maxLength": limits.TITLE_BYTES_MAX}),
            "text": STRING,
            "texts": array(STRING, maxItems=limits.DOCUMENT_CHUNKS_MAX),
            "lines": array(LINE, maxItems=limits.DOCUMENT_CHUNKS_MAX),
            "vector": VECTOR,
            "vectors": array(VECTOR),
            "metadata": MAP,
        },
        "A document, as in vec-ingest(1), with `text`, `texts`, `vector`, `vectors` or `title`. Without an `id`, it is "
        "a hash of the other keys.",
        examples=[
            {"id": "logs", "text": "rotate the logs every night", "metadata": {"year": 2026}},
            {"title": "Doc 1", "texts": ["chunk1", "chunk2"]},
        ],
    ),
    "Deletion": closed(
        {"op": {"const": "delete"}, "id": _ID_GIVEN},
        description="In a batch or stream: deletes the document.",
    ),
    "Creation": closed(
        {"op": {"const": "create"}},
        {"settings": MAP},
        description="As the first in a stream or batch that may create its library: the settings that it then gets, as"
        " in NewLibrary. A library that exists does not change.",
    ),
    "Document": record(
        {
            **_DOCUMENT_KEYS,
            "chunks": array(record({"chunk_id": STRING, "text": nullable(STRING)}, {"line": LINE, "vector": VECTOR})),
        },
        {"seq": COUNT},
        "A document with its chunks, in their order.",
    ),
    "DocumentSummary": record(
        {**_DOCUMENT_KEYS, "chunks": COUNT}, description="A document of a listing; `chunks` is their number."
    ),
    "ListEnd": record(
        {"status": {"const": "summary"}, "documents": COUNT, "seq": COUNT},
        {"warnings": WARNINGS},
        "The last line of a listing: the last event whose changes it includes.",
    ),
    "ListLine": {
        "description": "A line of a listing: a document, or, as the last line, the summary.",
        "anyOf": [ref("DocumentSummary"), ref("ListEnd"), ref("FailedEnd")],
    },
    "Written": record(
        {"id": STRING, "status": enum("added", "updated", "unchanged"), "seq": COUNT},
        description="What a write of one document did; `seq` is the head of the log after it.",
    ),
    "Documents": record(
        {"documents": array(nullable(ref("Document")))},
        {"seq": COUNT},
        "The documents in the order of the ids; null for a missing one.",
    ),
    "Ids": closed(
        {"ids": array(_ID_GIVEN, maxItems=limits.IDS_MAX)},
        {"vectors": BOOLEAN},
        examples=[{"ids": ["logs", "cats"]}],
    ),
    "Selection": {
        "type": "object",
        "description": "Either the ids of documents, or filters.",
        "additionalProperties": False,
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array"}}},
            {"required": ["where"], "properties": {"where": WHERE}},
        ],
        "properties": {"ids": nullable(array(_ID_GIVEN, maxItems=limits.IDS_MAX)), "where": nullable(WHERE)},
        "examples": [{"ids": ["logs"]}, {"where": "year < 2020"}],
    },
    "Update": {
        "type": "object",
        "description": "The ids of documents, or filters; and the metadata to change, by fields as in filters.",
        "additionalProperties": False,
        "oneOf": [
            {"required": ["ids"], "properties": {"ids": {"type": "array"}}},
            {"required": ["where"], "properties": {"where": WHERE}},
        ],
        "properties": {
            "ids": nullable(array(STRING, maxItems=limits.IDS_MAX)),
            "where": nullable(WHERE),
            "set": nullable(MAP),
            "unset": nullable(array(STRING, maxItems=limits.UPDATE_FIELDS_MAX)),
        },
        "examples": [
            {"ids": ["logs"], "set": {"topic": "ops", "author.name": "Ada"}},
            {"where": "year < 2020", "set": {"archived": True}, "unset": ["draft"]},
        ],
    },
    "Updated": record(
        {
            "updated": COUNT,
            "unchanged": COUNT,
            "missing": COUNT,
            "missing_ids": array(STRING),
            "failed": COUNT,
            "errors": array(record({"id": STRING, "code": STRING, "message": STRING}, {"hint": STRING})),
            "seq": COUNT,
        },
        {"warnings": WARNINGS},
        description="How many documents were changed, which did not exist, and why some could not be changed.",
    ),
    "Deleted": record(
        {"deleted": COUNT, "missing": COUNT, "missing_ids": array(STRING), "seq": COUNT},
        {"warnings": WARNINGS},
        description="How many documents were deleted, and which did not exist.",
    ),
    "Batch": closed(
        {"documents": array(_BATCH_ITEM, maxItems=limits.BATCH_DOCUMENTS_MAX)},
        {"strict": {**BOOLEAN, "description": "Write only the documents before the first rejected one."}},
        examples=[{"documents": [{"id": "logs", "text": "rotate the logs every night"}]}],
    ),
    "AsyncBatch": closed(
        {"documents": array(_BATCH_ITEM)},
        examples=[{"documents": [{"id": "logs", "text": "rotate the logs every night"}]}],
    ),
    "Ingested": record(
        {**COUNTS, "seq": COUNT, "errors": array(ref("BatchError"))},
        {
            "documents": array(
                record(
                    {
                        "index": COUNT,
                        "id": STRING,
                        "status": enum("added", "updated", "unchanged", "deleted"),
                        "seq": nullable(COUNT),
                    }
                )
            )
        },
        "The outcome of a batch: counts, the head of the log after the write, and the rejected documents.",
    ),
    "BatchError": record(
        {"index": COUNT, "code": STRING, "message": STRING},
        {"hint": STRING},
        "Why a document was rejected; `index` is its place in the batch, from 0.",
        additionalProperties=True,
    ),
    "Count": record({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}, {"warnings": WARNINGS}),
}
