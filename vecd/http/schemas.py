"""The component schemas of the OpenAPI document: JSON Schema (2020-12) for what requests and answers contain.

A pure table: no Starlette, no I/O. Endpoints refer to an entry with `ref("Library")`. The keys are those of
vec-protocol(7). Objects in answers are open: a client ignores keys that it does not know.
"""

from __future__ import annotations

from typing import Any, Final

from .. import limits

Schema = dict[str, Any]

_PREFIX = "#/components/schemas/"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": _PREFIX + name}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    if "null" in schema.get("type", ()) or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def not_null(schema: Schema) -> Schema:
    """The schema without null: a parameter in a URL is a text, or missing."""
    if isinstance(kinds := schema.get("type"), list):
        (kind,) = [each for each in kinds if each != "null"]
        return {**schema, "type": kind}
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return choices[0] if len(choices) == 1 else schema


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def record(
    required: dict[str, Schema],
    optional: dict[str, Schema] | None = None,
    /,
    description: str = "",
    **more: Any,
) -> Schema:
    """An object with these keys. Others are allowed, unless `more` has `additionalProperties`."""
    made: Schema = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    if description:
        made["description"] = description
    return {**made, **more}


def closed(
    required: dict[str, Schema], optional: dict[str, Schema] | None = None, /, description: str = "", **more: Any
) -> Schema:
    """The body of a request: an object with these keys and no others, so that a typing error is not ignored. An
    optional key may be null, which counts as missing."""
    nulls = {name: nullable(schema) for name, schema in (optional or {}).items()}
    return record(required, nulls, description, additionalProperties=False, **more)


def extended(name: str, required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """A component with more keys."""
    return {"allOf": [ref(name), record(required, optional)]}


STRING: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "number"}
INTEGER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
MAP: Final[Schema] = {"type": "object"}
TIME: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}
VECTOR: Final[Schema] = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 1,
    "maxItems": limits.DIMENSION_MAX,
    "description": "A vector: its components, as many as the library has dimensions.",
}
#: One filter or several; in a query string the parameter is repeated.
WHERE: Final[Schema] = {
    "anyOf": [STRING, array(STRING, maxItems=limits.FILTERS_MAX)],
    "description": "One filter, or a list of filters that must all match; vec-search(1) describes the language.",
    "examples": ["year >= 2020 and tags in (ops, 'back up')"],
}
CURSOR: Final[Schema] = {
    "type": "string",
    "description": "A position in the log: the log's id, a colon, and the sequence number of the last event before it.",
    "examples": ["77d5d23b47fbedfa:42"],
}
JOB_STATUS: Final[Schema] = enum("pending", "running", "completed", "failed", "cancelled", "dead")

_UNIT_INTERVAL: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_RECALL: Schema = {"type": "number", "minimum": limits.RECALL_MIN, "maximum": 1}
_METRIC: Schema = enum("cosine", "dot", "l2")
_INDEX: Schema = enum("pq", "hnsw", "flat", "lsh", "kdtree")
_NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": limits.NAME_BYTES_MAX,
    "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
}
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": limits.ID_BYTES_MAX}
#: An id in a request: a whole number stands for its digits.
_ID_GIVEN: Schema = {
    "anyOf": [_ID, {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}],
    "description": "A string; a whole number stands for its digits.",
}
_KEY: Schema = {"type": "string", "maxLength": limits.JOB_KEY_CHARS_MAX}
_JOB_ID: Schema = {"type": "integer", "minimum": 0}
_WARNINGS: Schema = array(STRING, description="Messages for people, for example that no document has a field.")

_ERROR = record(
    {"code": STRING, "message": STRING},
    {"hint": STRING},
    "An error inside an answer: a stable code, what happened and, often, what to do.",
    additionalProperties=True,
)
_IN_MEMORY = record(
    {"state": enum("unloaded", "loading", "ready", "failed")},
    {
        "vectors": COUNT,
        "structure": COUNT,
        "tail": COUNT,
        "dead": COUNT,
        "memory_bytes": COUNT,
        "maintenance": nullable(STRING),
        "damage": MAP,
        "damaged": COUNT,
        "text": record(
            {"state": enum("unloaded", "loading", "ready", "failed")},
            {
                "chunks": COUNT,
                "segments": COUNT,
                "dead": COUNT,
                "memory_bytes": COUNT,
                "maintenance": nullable(STRING),
                "damage": MAP,
            },
            "The full-text index.",
        ),
        "second": MAP,
    },
    "The index in memory; an unloaded one has only a state.",
)
_TEXTS_BY_NAME: Schema = {"type": "object", "additionalProperties": STRING}
_RULES: Schema = {**_TEXTS_BY_NAME, "description": "Rules that make any JSON documents: vec-source(1)."}
_LIBRARY = {
    "name": _NAME,
    "dimension": nullable(COUNT),
    "metric": _METRIC,
    "index": _INDEX,
    "parameters": MAP,
    "embedder": nullable(STRING),
    "embedder_parameters": MAP,
    "first_embedder": {**nullable(STRING), "description": "Finds documents until the embedder has embedded them."},
    "chunk_chars": COUNT,
    "chunk_overlap": COUNT,
    "language": STRING,
    "mapping": _TEXTS_BY_NAME,
    "documents": COUNT,
    "chunks": COUNT,
    "created_at": TIME,
    "recall": record(
        {"promise": _UNIT_INTERVAL, "met": nullable(BOOLEAN), "own": nullable(MAP)},
        {"probe": nullable(MAP)},
        "The promised recall, whether it is met (null: not known), and what was measured.",
    ),
    "memory": _IN_MEMORY,
    "second_stage": nullable(
        record(
            {"dimension": nullable(COUNT), "embedded": COUNT, "refused": COUNT, "error": nullable(STRING)},
            description="How many chunks the embedder has embedded or refused, if there is a first one.",
        )
    ),
}
_DOCUMENT_KEYS = {"id": _ID, "title": nullable(STRING), "metadata": MAP}
_COUNTS = {"added": COUNT, "updated": COUNT, "unchanged": COUNT, "deleted": COUNT, "failed": COUNT}
_PROGRESS = record(
    {
        "done": COUNT,
        "total": nullable(COUNT),
        "rate": nullable(NUMBER),
        "left_s": nullable(NUMBER),
        "unit": STRING,
    },
    description="How far a job is; rate is in units per second.",
)
_JOB = {
    "job_id": _JOB_ID,
    "kind": STRING,
    "library": nullable(STRING),
    "status": JOB_STATUS,
    "priority": INTEGER,
    "attempt": COUNT,
    "progress": nullable(_PROGRESS),
    "created_at": TIME,
    "started_at": nullable(TIME),
    "completed_at": nullable(TIME),
    "result": nullable(MAP),
    "error": nullable(ref("Error")),
    "schedule": nullable(STRING),
}
_QUEUE = {
    **dict.fromkeys(JOB_STATUS["enum"], COUNT),
    "workers": COUNT,
    "paused": array(STRING, description="Kinds of job; the empty string means all."),
    "executor": {**MAP, "description": "What embeds outside the daemon; see vec-workers(7)."},
}
_SCHEDULED = {
    "kind": {"type": "string", "minLength": 1},
    "params": MAP,
    "library": nullable(STRING),
    "priority": {"type": "integer", "minimum": -limits.PRIORITY_MAX, "maximum": limits.PRIORITY_MAX},
    "timeout_s": nullable({"type": "number", "minimum": 0, "maximum": limits.JOB_SECONDS_MAX}),
}
_MISSED = enum("skip", "once", "all")
_FORMAT = enum("vec", "cloudevents")
_CONNECTOR = {
    "direction": enum("relay", "source"),
    "name": STRING,
    "url": STRING,
    "parameters": MAP,
    "generation": COUNT,
    "paused": BOOLEAN,
    "created_at": TIME,
    "state": enum("starting", "running", "retrying", "failing", "paused", "removed"),
    "error": nullable(ref("Error")),
    "error_at": nullable(TIME),
    "delivered": nullable(COUNT),
    "rate": nullable(NUMBER),
    "dead_letters": COUNT,
    "retrying": COUNT,
}
_BATCH_ITEM: Schema = {
    "anyOf": [
        ref("NewDocument"),
        ref("Deletion"),
        ref("Creation"),
        {"description": "Anything else gets an error of its own."},
    ]
}
#: Of a file, from 1.
_LINE: Schema = {"type": "integer", "minimum": 1, "maximum": limits.LINE_MAX}
_CRON: Schema = {"type": "string", "maxLength": 1_000, "examples": ["0 3 * * *"]}

#: The fields of a search.
_SEARCH: Final[dict[str, Schema]] = {
    "query": nullable({"type": "string", "maxLength": limits.QUERY_CHARS_MAX}),
    "vector": nullable(VECTOR),
    "like": nullable({"type": "string", "maxLength": limits.ID_BYTES_MAX}),
    "k": {"type": "integer", "minimum": 1, "maximum": limits.HITS_MAX, "default": 10},
    "offset": {"type": "integer", "minimum": 0, "maximum": limits.HITS_MAX, "default": 0},
    "mode": {**enum("auto", "vector", "text", "hybrid"), "default": "auto"},
    "where": WHERE,
    "since": nullable({"type": "string", "maxLength": limits.ID_BYTES_MAX}),
    "group_by": nullable(enum("document", "chunk")),
    "min_score": nullable(NUMBER),
    "recall": nullable(_RECALL),
    "ef": nullable({"type": "integer", "minimum": 1, "maximum": limits.EF_MAX}),
    "exact": BOOLEAN,
    "explain": BOOLEAN,
    "passage_chars": nullable(
        {"type": "integer", "minimum": limits.PASSAGE_CHARS_MIN, "maximum": limits.PASSAGE_CHARS_MAX}
    ),
}
#: What a search searches for: one of these.
_QUERIES: Final = [
    {"required": ["query"], "properties": {"query": STRING}},
    {"required": ["vector"], "properties": {"vector": {"type": "array"}}},
    {"required": ["like"], "properties": {"like": STRING}},
]
_MARKS: Final = array(array({"type": "integer", "minimum": 0}, minItems=2, maxItems=2))

COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": record(
        {
            "type": {"type": "string", "examples": ["urn:vec:error:not_found"]},
            "title": STRING,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": STRING,
            "code": {"type": "string", "examples": ["not_found"]},
        },
        {"hint": STRING, "instance": STRING, "field": STRING, "library": nullable(STRING), "oldest": CURSOR},
        "An error (RFC 9457). `code` is stable, and one of vec-protocol(7); `hint` says what to do. An error can have "
        "more keys, such as `oldest` of `compacted`.",
        additionalProperties=True,
    ),
    "Error": _ERROR,
    "Library": record(_LIBRARY, {"seq": COUNT}, "A library, its index and its recall; vec-library(1) explains them."),
    "Libraries": record({"libraries": array(ref("Library"))}, description="All libraries, by name."),
    "NewLibrary": closed(
        {"name": _NAME},
        {
            "dimension": nullable({"type": "integer", "minimum": 1, "maximum": limits.DIMENSION_MAX}),
            "metric": _METRIC,
            "index": nullable(_INDEX),
            "params": {**MAP, "description": "Parameters of the index; missing ones have their defaults."},
            "mapping": _RULES,
            "embedder": nullable(enum("wordllama", "minilm", "hash", "none")),
            "chunk_overlap": nullable({"type": "integer", "minimum": 0, "maximum": limits.CHUNK_CHARS_MAX // 2}),
            "first_embedder": nullable(STRING),
            "chunk_chars": nullable({"type": "integer", "minimum": 50, "maximum": limits.CHUNK_CHARS_MAX}),
            "recall": nullable(_RECALL),
            "language": nullable(STRING),
        },
        "What `vec library create` takes.",
        examples=[{"name": "notes"}, {"name": "points", "embedder": "none", "dimension": 2, "metric": "l2"}],
    ),
    "Rebuild": closed(
        {},
        {"index": nullable(_INDEX), "params": MAP, "recall": nullable(_RECALL)},
        "The new kind, parameters or promise. Without `index` and `params`, but with `recall`, nothing is built.",
        examples=[{"index": "hnsw", "params": {"m": 32}}],
    ),
    "Rename": closed({"to": STRING}, description="The new name.", examples=[{"to": "notes"}]),
    "Renamed": extended("Library", {"former": STRING, "seq": COUNT}),
    "Rebuilt": extended("Library", {"vectors": COUNT, "seconds": SECONDS, "seq": COUNT}),
    "DeletedLibrary": record({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}),
    "LibrarySettings": closed(
        {},
        {"mapping": _RULES},
        "What to change; what is not given stays.",
        examples=[{"mapping": {"id": "url", "text": "title,body"}}],
    ),
    "NewDocument": closed(
        {},
        {
            "id": _ID_GIVEN,
            "title": nullable({"type": "string", "maxLength": limits.TITLE_BYTES_MAX}),
            "text": STRING,
            "texts": array(STRING, maxItems=limits.DOCUMENT_CHUNKS_MAX),
            "lines": array(_LINE, maxItems=limits.DOCUMENT_CHUNKS_MAX),
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
            "chunks": array(record({"chunk_id": STRING, "text": nullable(STRING)}, {"line": _LINE, "vector": VECTOR})),
        },
        {"seq": COUNT},
        "A document with its chunks, in their order.",
    ),
    "DocumentSummary": record(
        {**_DOCUMENT_KEYS, "chunks": COUNT}, description="A document of a listing; `chunks` is their number."
    ),
    "ListEnd": record(
        {"status": {"const": "summary"}, "documents": COUNT, "seq": COUNT},
        {"warnings": _WARNINGS},
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
        {"warnings": _WARNINGS},
        description="How many documents were changed, which did not exist, and why some could not be changed.",
    ),
    "Deleted": record(
        {"deleted": COUNT, "missing": COUNT, "missing_ids": array(STRING), "seq": COUNT},
        {"warnings": _WARNINGS},
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
        {**_COUNTS, "seq": COUNT, "errors": array(ref("BatchError"))},
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
    "Count": record({"library": STRING, "documents": COUNT, "chunks": COUNT, "seq": COUNT}, {"warnings": _WARNINGS}),
    "Search": closed(
        {},
        _SEARCH,
        "What `vec search` takes: a `query`, a `vector`, or `like`, the id of a document.",
        anyOf=_QUERIES,
        examples=[{"query": "log rotation", "k": 3}, {"query": "cats", "where": "lang = en", "explain": True}],
    ),
    "SearchSeveral": closed(
        {},
        {"libraries": nullable(array(STRING, maxItems=limits.SEARCHED_LIBRARIES_MAX)), **_SEARCH},
        "As `Search`, with the `libraries` to search; by default, all.",
        anyOf=_QUERIES,
        examples=[{"libraries": ["notes", "mail"], "query": "log rotation"}],
    ),
    "Hit": record(
        {
            "rank": {"type": "integer", "minimum": 1},
            "score": NUMBER,
            "document_id": STRING,
            "chunk_id": STRING,
            "title": nullable(STRING),
            "text": nullable(STRING),
            "metadata": MAP,
        },
        {
            "library": STRING,
            "line": _LINE,
            "explain": record(
                {"vector": nullable(ref("Placing")), "text": nullable(ref("Placing"))},
                {"second": nullable(ref("Placing"))},
            ),
            "passage": ref("Passage"),
        },
        "A document with its best chunk, or a chunk. `library` is there if several were searched.",
    ),
    "Passage": record(
        {"text": STRING, "marks": _MARKS, "lines": COUNT, "title_marks": _MARKS},
        description="The part of the text that shows best why it is a hit. `marks` and `title_marks` are the places of"
        " the query's words: start, and end (exclusive), in code points. `lines` counts the line breaks before the"
        " first mark, or before the passage.",
    ),
    "Placing": record({"rank": COUNT, "score": NUMBER}, description="Where one of the two searches placed a hit."),
    "Hits": record(
        {"hits": array(ref("Hit"))},
        {
            "warnings": _WARNINGS,
            "explain": {**MAP, "description": "How reliable the answer is; see vec-search(1)."},
            "no_hits": {**STRING, "description": "Why there are no hits."},
        },
        "The hits, best first.",
    ),
    "HitLine": {
        "description": "A line of a streamed search: a hit, or, as the last line, the summary.",
        "anyOf": [ref("Hit"), ref("SearchEnd"), ref("FailedEnd")],
    },
    "SearchEnd": record(
        {"status": {"const": "summary"}, "hits": COUNT},
        {"warnings": _WARNINGS, "explain": MAP, "no_hits": STRING},
        "The last line of a streamed search.",
    ),
    "FailedEnd": record(
        {"status": {"const": "failed"}, "error": ref("Error")},
        description="The last line of a stream that could not be completed.",
    ),
    "Consumer": record(
        {
            "name": STRING,
            "cursor": CURSOR,
            "seq": COUNT,
            "lag": COUNT,
            "holder": nullable(STRING),
            "created_at": TIME,
            "acked_at": nullable(TIME),
        },
        description="A named cursor that the daemon keeps; `lag` counts the events after it.",
    ),
    "Consumers": record({"consumers": array(ref("Consumer"))}, description="All consumers, by name."),
    "Ack": closed({"cursor": CURSOR}, description="Everything up to this cursor (inclusive) has been processed."),
    "Acked": record({"consumer": STRING, "cursor": CURSOR}),
    "Reset": closed(
        {"to": STRING},
        description="A position: `beginning`, `now`, a cursor, an RFC 3339 time, or an age such as `-15m`.",
        examples=[{"to": "beginning"}],
    ),
    "Job": record(_JOB, {"existing": BOOLEAN}, "A background job; vec-jobs(1) explains the keys."),
    "JobDetails": extended(
        "Job",
        {
            "params": MAP,
            "ready_at": nullable(TIME),
            "after": array(_JOB_ID),
            "unique": nullable(STRING),
            "lock": nullable(STRING),
            "timeout_s": nullable(NUMBER),
            "cancelling": BOOLEAN,
            "failures": COUNT,
            "crashes": COUNT,
            "checkpoint": nullable(MAP),
            "attempts": array(
                record(
                    {
                        "attempt": COUNT,
                        "started_at": TIME,
                        "ended_at": nullable(TIME),
                        "outcome": nullable(STRING),
                        "error": nullable(ref("Error")),
                    },
                    {"worker": nullable(STRING)},
                )
            ),
        },
    ),
    "Jobs": record({"jobs": array(ref("Job"))}, description="Jobs, newest first."),
    "JobLog": record(
        {"lines": array(record({"line": COUNT, "time": TIME, "text": STRING}))},
        description="Up to 500 lines of a job's log.",
    ),
    "Queue": record(
        {"jobs": array(ref("Job"))},
        _QUEUE,
        description="The queue of jobs, and the running ones. A key for some libraries gets those of its libraries, and"
        " no counts.",
    ),
    "JobKinds": record(
        {
            "kinds": array(
                record(
                    {
                        "kind": STRING,
                        "what": STRING,
                        "library": enum("none", "optional", "required"),
                        "runs": enum("inside", "outside", "anywhere"),
                        "params": array(
                            record({"name": STRING, "what": STRING, "valid": STRING, "required": {"type": "boolean"}})
                        ),
                    }
                )
            )
        },
        description="The kinds of job, each with its parameters and their values in words.",
    ),
    "NewJob": closed(
        {"kind": _SCHEDULED["kind"]},
        {
            **{name: schema for name, schema in _SCHEDULED.items() if name != "kind"},
            "delay_s": nullable({"type": "number", "minimum": 0, "maximum": limits.JOB_SECONDS_MAX}),
            "after": nullable(array(_JOB_ID, maxItems=limits.JOB_IDS_MAX)),
            "unique": nullable(_KEY),
            "lock": nullable(_KEY),
        },
        "What `vec jobs submit` takes.",
        examples=[{"kind": "rebuild", "library": "notes"}, {"kind": "verify"}],
    ),
    "Submitted": record(
        {"job_id": _JOB_ID, "status": {"const": "submitted"}, "status_url": STRING},
        description="A job has been submitted, and is on disk.",
        examples=[{"job_id": 7, "status": "submitted", "status_url": "/v1/jobs/7"}],
    ),
    "Schedule": record(
        {
            "name": STRING,
            "cron": STRING,
            "zone": STRING,
            "missed": _MISSED,
            **_SCHEDULED,
            "kind": STRING,
            "priority": INTEGER,
            "next_at": nullable(TIME),
            "last_job": nullable(_JOB_ID),
            "error": nullable({}),
        },
        description="A schedule of jobs; `error` is why the last one could not be submitted.",
    ),
    "Schedules": record({"schedules": array(ref("Schedule"))}, description="All schedules, by name."),
    "NewSchedule": closed(
        {"name": {"type": "string", "minLength": 1}, "cron": _CRON, "kind": _SCHEDULED["kind"]},
        {
            "zone": STRING,
            "missed": _MISSED,
            **{name: schema for name, schema in _SCHEDULED.items() if name != "kind"},
            "replace": {**BOOLEAN, "description": "Replace a schedule with this name."},
        },
        examples=[{"name": "nightly", "cron": "0 3 * * *", "kind": "verify"}],
    ),
    "Relay": record(
        {
            **_CONNECTOR,
            "format": _FORMAT,
            "libraries": array(STRING),
            "types": array(STRING),
            "where": array(STRING),
            "payload": BOOLEAN,
            "vectors": BOOLEAN,
            "cursor": CURSOR,
            "lag": COUNT,
        },
        {"warnings": _WARNINGS},
        description="A relay of the log to a broker; `lag` counts the events after its cursor. See vec-relay(1).",
    ),
    "Relays": record({"relays": array(ref("Relay"))}, description="All relays, by name."),
    "NewRelay": closed(
        {"name": {"type": "string", "minLength": 1}, "url": {"type": "string", "minLength": 1}},
        {
            "parameters": {**MAP, "description": "Of the transport: vec-connectors(7)."},
            "format": _FORMAT,
            "libraries": array(STRING),
            "types": array(STRING),
            "where": {"description": "A filter, or a list of filters.", "type": ["string", "array"]},
            "payload": BOOLEAN,
            "vectors": BOOLEAN,
            "from": {**STRING, "description": "`beginning`, `now`, a cursor, a time, or an age such as `-15m`."},
            "paused": BOOLEAN,
        },
        "What `vec relay add` takes. Paths in the parameters are of the server.",
        examples=[{"name": "live", "url": "redis://localhost/events", "types": ["document.*"]}],
    ),
    "Source": record(
        {
            **_CONNECTOR,
            "library": STRING,
            "group": nullable(STRING),
            "mapping": MAP,
            "libraries": array(STRING),
            "offsets": MAP,
            "lag": nullable(COUNT),
        },
        description="A source; `lag` counts the messages that wait at the broker. See vec-source(1).",
    ),
    "Sources": record({"sources": array(ref("Source"))}, description="All sources, by name."),
    "NewSource": closed(
        {"name": {"type": "string", "minLength": 1}, "url": {"type": "string", "minLength": 1}},
        {
            "library": STRING,
            "group": STRING,
            "mapping": _RULES,
            "libraries": {**array(STRING), "description": "Of events of a relay, only those of these libraries."},
            "parameters": {**MAP, "description": "Of the transport: vec-connectors(7)."},
            "paused": BOOLEAN,
        },
        "What `vec source add` takes. Paths in the parameters are of the server.",
        examples=[{"name": "pages", "url": "redis://localhost/pages", "mapping": {"id": "url", "text": "title,body"}}],
    ),
    "ResetSource": closed(
        {},
        {
            "start": enum("earliest", "latest"),
            "offsets": {**_TEXTS_BY_NAME, "description": "By partition: the last message not to apply again."},
        },
        "Where a source is to begin.",
    ),
    "DeadLetters": record(
        {
            "dead_letters": array(
                record(
                    {
                        "letter_id": COUNT,
                        "position": STRING,
                        "time": TIME,
                        "code": STRING,
                        "reason": STRING,
                        "attempts": COUNT,
                        "retrying": BOOLEAN,
                        "about": MAP,
                        "bytes": COUNT,
                    },
                    {"body": STRING},
                )
            )
        },
        description="Messages that were refused, the oldest first.",
    ),
    "Letters": closed(
        {},
        {"letter_ids": nullable(array(COUNT, maxItems=limits.DEAD_LETTERS_MAX))},
        "Which dead letters; all if there are no numbers.",
    ),
    "Retrying": record({"retrying": COUNT}),
    "Dropped": record({"dropped": COUNT}),
    "Trim": closed(
        {},
        {
            "keep_age_s": nullable(SECONDS),
            "keep_count": nullable(COUNT),
            "keep_bytes": nullable(COUNT),
            "past_consumers": BOOLEAN,
            "wait": BOOLEAN,
        },
        "What to keep of the log: at least one of the three limits.",
        anyOf=[
            {"required": [name], "properties": {name: {"type": "number"}}}
            for name in ("keep_age_s", "keep_count", "keep_bytes")
        ],
        examples=[{"keep_count": 100_000}],
    ),
    "Backup": closed(
        {"path": {"type": "string", "description": "An absolute path on the server; an existing file is replaced."}},
        examples=[{"path": "/var/backups/vec.db"}],
    ),
    "Trimmed": record(
        {
            "trimmed": COUNT,
            "oldest": CURSOR,
            "held_by": nullable(STRING),
            "bytes": COUNT,
            "free_bytes": COUNT,
        },
        description="How many events were deleted, and the cursor before the oldest one.",
    ),
    "Status": record(
        {
            "version": STRING,
            "log": STRING,
            "seq": COUNT,
            "oldest": CURSOR,
            "uptime_s": SECONDS,
            "libraries": array(ref("Library")),
        },
        {
            "pid": COUNT,
            "socket": STRING,
            "data": STRING,
            "memory_bytes": COUNT,
            "watchers": COUNT,
            "http": nullable(record({"pid": nullable(COUNT), "listen": array(STRING)})),
            "connections": COUNT,
            "jobs": record(_QUEUE),
            "relays": record({"count": COUNT, "failing": array(STRING)}),
            "sources": record({"count": COUNT, "failing": array(STRING)}),
            "syncs": record({"count": COUNT, "failing": array(STRING)}),
        },
        description="The daemon's state; vec-status(1) explains the keys. A key for some libraries gets the first six.",
    ),
    "Event": record(
        {"library_id": nullable(STRING), "seq": COUNT, "at": TIME},
        {"document_id": STRING},
        "The `data` of an event, with the keys of its type; vec-events(7) describes the types. In a stream, the type "
        "stands in the field `event`, and the cursor in `id`.",
        examples=[
            {
                "library_id": "default",
                "document_id": "logs",
                "seq": 42,
                "at": "2026-11-28T09:00:00.000000Z",
                "title": None,
                "chunks": 1,
                "chunk_ids": ["logs#0"],
            }
        ],
    ),
    "IngestLine": {
        "description": "A line of a streamed ingest: the outcome of a document, or, as the last line, the summary.",
        "anyOf": [ref("IngestedLine"), ref("FailedLine"), ref("ProcessingLine"), ref("IngestSummary")],
    },
    "IngestedLine": record(
        {
            "status": {"const": "completed"},
            "line": COUNT,
            "id": STRING,
            "title": nullable(STRING),
            "result": enum("added", "updated", "unchanged", "deleted"),
            "seq": nullable(COUNT),
        },
        description="The document is on disk, searchable, and in the log.",
    ),
    "FailedLine": record(
        {"status": {"const": "failed"}, "line": COUNT, "error": ref("Error")},
        {"id": nullable(STRING)},
        description="The line was rejected; the others are not affected.",
    ),
    "ProcessingLine": record(
        {"status": {"const": "processing"}, "line": COUNT, "id": nullable(STRING)},
        description="With `progress=true`: the document has been sent to the daemon.",
    ),
    "IngestSummary": record(
        {"status": {"const": "summary"}, **_COUNTS, "seq": COUNT, "elapsed_s": SECONDS},
        {"error": ref("Error")},
        "The last line; `error` is why the body was not read to its end.",
    ),
    "Ticket": record(
        {"ticket": STRING, "expires_at": TIME},
        {"expires_in_s": SECONDS},
        "A short-lived substitute for a key in a URL: `?ticket=`.",
    ),
    "Health": record({"status": enum("ok", "unavailable")}, {"detail": STRING}),
}


def resolved(schema: Schema) -> Schema:
    """The schema itself, or the component that it refers to."""
    found = COMPONENTS[schema["$ref"].removeprefix(_PREFIX)] if "$ref" in schema else schema
    return dict(found)
