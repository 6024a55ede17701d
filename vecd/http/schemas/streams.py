"""Lines of streams: events, and outcomes of an ingest."""

from __future__ import annotations

from typing import Final

from .schema import COUNT, COUNTS, SECONDS, STRING, TIME, Schema, enum, nullable, record, ref

COMPONENTS: Final[dict[str, Schema]] = {
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
        {"status": {"const": "summary"}, **COUNTS, "seq": COUNT, "elapsed_s": SECONDS},
        {"error": ref("Error")},
        "The last line; `error` is why the body was not read to its end.",
    ),
}
