"""Searches and their hits."""

from __future__ import annotations

from typing import Final

from ... import limits
from .schema import (
    BOOLEAN,
    COUNT,
    LINE,
    MAP,
    NUMBER,
    RECALL,
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
    "recall": nullable(RECALL),
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
            "line": LINE,
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
            "warnings": WARNINGS,
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
        {"warnings": WARNINGS, "explain": MAP, "no_hits": STRING},
        "The last line of a streamed search.",
    ),
    "FailedEnd": record(
        {"status": {"const": "failed"}, "error": ref("Error")},
        description="The last line of a stream that could not be completed.",
    ),
}
