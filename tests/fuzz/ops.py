"""The fields of every op, with values of the right types: what messages are made of. Some are replaced by others."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vecd.jobs.kinds import KINDS

Values = st.SearchStrategy[Any]

#: Names, ids and numbers that requests have in common, so that many refer to something that is there.
LIBRARIES = st.sampled_from(["default", "some", "other", "no such library", "", "a/b", "x" * 200])
IDS = st.sampled_from(["a", "b", "c", "a document", "", "x" * 600, "\0", "é\u0301", "\n"])
TEXTS = st.one_of(
    st.sampled_from(["a", "some words", "", "\0", '“quoted phrase” "two words"', "wor*"]), st.text(max_size=40)
)
CURSORS = st.one_of(
    st.sampled_from(["beginning", "now", "-1s", "-99999999999w", "0:0", "00:1@2", "2020-01-01", "9999-12-31T23:59:59Z",
                     "0001-01-01T00:00:00+14:00", "2020-13-01", ":", "now@1", "@", "f" * 16 + ":1"]),
    st.text("0123456789abcdef:@-.TZ+smhdw", max_size=30),
)  # fmt: skip
FILTERS = st.one_of(
    st.sampled_from(
        [
            "n = 1",
            "t ~ 'a+'",
            "t contains a",
            "n > 2026-01-01",
            "n > 0 and not (t exists)",
            "t ^= 'a'",
            "document_id = a",
            "a.b in (1, 'x', true)",
            "(((",
        ]
    ),
    st.text("abn.()'\"<>=!^, 0123456789\\or", max_size=40),
)
FIELD_NAMES = st.one_of(st.sampled_from(["n", "a.b", "a.b.c", "'x y'.z", "title", "metadata.title", "", "a="]), TEXTS)
FLAGS = st.booleans()
COUNTS = st.one_of(st.integers(0, 5), st.sampled_from([100, 1_000, 2**31, 2**62, 2**63 - 1, -1]))
SECONDS = st.one_of(st.sampled_from([0, 0.01, 1e-300, 1e308, float("inf"), float("nan"), -1, -0.0]), st.floats(0, 0.05))
SHARES = st.floats(allow_nan=True, allow_infinity=True)
VECTORS = st.one_of(
    st.binary(max_size=1_100), st.sampled_from([bytes(1024), b"\x00\x00\x80\x3f" * 256, b"\xff" * 1024])
)
JSON = st.recursive(
    st.one_of(
        st.none(), FLAGS, st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=10), st.binary(max_size=9)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)  # fmt: skip
ANYTHING = st.one_of(
    JSON,
    st.just("x" * 100_001),
    st.just(["x"] * 10_001),
    st.just([[[[[[[[]]]]]]]]),
    st.dictionaries(st.one_of(st.text(max_size=300), st.binary(max_size=3)), JSON, max_size=3),
)
METADATA = st.dictionaries(st.text(max_size=5), JSON, max_size=4)
DOCUMENTS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.one_of(IDS, COUNTS), "title": TEXTS, "text": TEXTS,
                "texts": st.lists(TEXTS, max_size=3), "vector": VECTORS,
                "vectors": st.lists(VECTORS, max_size=3), "metadata": METADATA,
                "op": st.sampled_from(["delete", "update", ""]), "txt": TEXTS,
            },
        ),
        ANYTHING,
    ),
    max_size=5,
)  # fmt: skip
JOBS = st.lists(st.integers(0, 30), max_size=4)
KIND = st.sampled_from([*KINDS, "no such kind", ""])
#: Jobs write and read files wherever they are told to, as the daemon's user may: here they are told nowhere.
_PATHS = {"path", "files", "names"}
PARAMS = st.dictionaries(
    st.sampled_from(sorted({name for kind in KINDS.values() for name in kind.params} - _PATHS)),
    st.one_of(FLAGS, COUNTS, SECONDS, FILTERS, st.lists(FILTERS, max_size=2), JSON),
    max_size=4,
)
NAMES = st.sampled_from(["one", "two", "", "x" * 300, "a\nb", "é"])
WHERE = st.lists(FILTERS, max_size=3)
TYPES = st.sampled_from(
    [
        "document.*",
        "!chunk.*",
        "!*",
        "!",
        "document.added",
        "library.*",
        "job*",
        "*",
        "[",
        "documnet.added",
        "",
        "x" * 65,
    ]
)
PARAMETERS = st.dictionaries(st.sampled_from(["m", "ef_construction", "store", "no such"]), JSON, max_size=2)
MAPPINGS = st.dictionaries(
    st.sampled_from(["id", "text", "metadata", "delete", "metadata.a", "no such"]),
    st.sampled_from(["id", "text", "a.b[0],c", "rest", "", "@key", "$", "]"]),
    max_size=3,
)
STATES = st.sampled_from(["queued", "running", "completed", "failed", "no such state"])
RECALL = {"recall": SHARES, "parameters": PARAMETERS, "params": PARAMETERS}
JOB = {
    "kind": KIND, "params": PARAMS, "library": LIBRARIES, "priority": COUNTS, "timeout_s": SECONDS,
}  # fmt: skip
EFFECTS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["documents", "delete", "no such"])},
        optional={"documents": DOCUMENTS, "ids": st.lists(IDS, max_size=2)},
    ),
    JSON,
)
ERRORS = st.one_of(
    st.fixed_dictionaries({"message": TEXTS}, optional={"code": NAMES, "retryable": st.one_of(FLAGS, COUNTS)}), JSON
)
#: A relay writes where it is told to: here, to what is no regular file.
URLS = st.sampled_from(["file:///dev/null", "file:///dev/null/x", "file://host/x", "redis://me:secret@host/x", "x", ""])
LETTERS = st.one_of(
    st.fixed_dictionaries(
        {"position": CURSORS, "code": NAMES, "reason": TEXTS, "attempts": COUNTS, "about": METADATA,
         "body": st.binary(max_size=20)}
    ),
    JSON,
)  # fmt: skip
RULES = st.one_of(
    st.dictionaries(st.sampled_from(["id", "text", "metadata", "metadata.x", "delete", "x"]), TEXTS, max_size=3), JSON
)
OFFSETS = st.one_of(st.dictionaries(st.sampled_from(["", "0"]), st.sampled_from(["1", "2"]), max_size=2), JSON)
#: A sync reads the folder that it is told to: here, none.
FOLDERS = st.sampled_from(["file:///dev/null/none", "file:///%00", "file:///a%FFb/none", "/x", "file://host", ""])
SYNC_FILES = st.one_of(
    st.tuples(
        st.binary(max_size=9), st.binary(max_size=300), st.binary(max_size=16), st.lists(IDS, max_size=2),
        st.one_of(st.none(), NAMES),
    ).map(list),
    JSON,
)  # fmt: skip
REPORTS = st.fixed_dictionaries(
    {"direction": st.sampled_from(["relay", "source", "x"]), "name": NAMES, "generation": COUNTS, "state": TEXTS},
    optional={"error": JSON, "rate": JSON, "lag": JSON},
)

#: Of each op: its fields.
FIELDS: dict[str, dict[str, Values]] = {
    "ping": {},
    "status": {},
    "cancel": {"target": COUNTS},
    "library.create": {
        "library": LIBRARIES, "dimension": COUNTS, "metric": st.sampled_from(["cosine", "l2", "dot", "none"]),
        "index": st.sampled_from(["auto", "flat", "hnsw", "pq", "lsh", "kdtree", "no such"]),
        "embedder": st.sampled_from(["hash", "none", "no such", "openai", "command"]),
        "embedder_parameters": st.sampled_from([
            {}, {"url": "http://127.0.0.1:9/v1", "model": "x"}, {"url": 1}, {"command": "true"}, {"command": ""},
        ]),
        "chunk_chars": COUNTS,
        "first_embedder": st.sampled_from(["hash", "wordllama", "none", "no such"]),
        "language": st.sampled_from(["english", "none", "klingon"]), "mapping": MAPPINGS, **RECALL,
    },
    "library.list": {},
    "library.show": {"library": LIBRARIES},
    "library.settings": {"library": LIBRARIES},
    "library.set": {"library": LIBRARIES, "mapping": MAPPINGS},
    "library.rebuild": {"library": LIBRARIES, "index": st.sampled_from(["flat", "hnsw", "no such"]), **RECALL},
    "library.rename": {"library": LIBRARIES, "to": LIBRARIES},
    "library.delete": {"library": LIBRARIES},
    "ingest": {"library": LIBRARIES, "documents": DOCUMENTS, "strict": FLAGS, "detail": FLAGS},
    "delete": {"library": LIBRARIES, "ids": st.lists(st.one_of(IDS, COUNTS), max_size=3), "where": WHERE},
    "update": {
        "library": LIBRARIES, "ids": st.lists(IDS, max_size=3), "where": WHERE,
        "set": st.one_of(st.dictionaries(FIELD_NAMES, JSON, max_size=3), JSON),
        "unset": st.lists(FIELD_NAMES, max_size=2),
    },
    "get": {"library": LIBRARIES, "ids": st.lists(IDS, max_size=20), "vectors": FLAGS},
    "list": {"library": LIBRARIES, "where": WHERE, "sort": FIELD_NAMES, "descending": FLAGS, "limit": COUNTS},
    "count": {"library": LIBRARIES, "where": WHERE},
    "search": {
        "library": LIBRARIES, "query": TEXTS, "vector": VECTORS, "k": COUNTS, "ef": COUNTS, "exact": FLAGS,
        "mode": st.sampled_from(["auto", "hybrid", "vector", "text", "no such"]), "where": WHERE, "recall": SHARES,
        "explain": FLAGS, "group_by": st.sampled_from(["document", "chunk", ""]), "min_score": SHARES,
        "libraries": st.lists(st.one_of(LIBRARIES, st.just("*")), max_size=3), "like": IDS, "offset": COUNTS,
        "since": CURSORS, "passage_chars": COUNTS,
    },
    "watch": {
        "libraries": st.lists(LIBRARIES, max_size=2), "types": st.lists(TYPES, max_size=2), "where": WHERE,
        "payload": FLAGS, "replaced": FLAGS, "vectors": FLAGS, "from": CURSORS, "follow": FLAGS, "until": CURSORS,
        "limit": COUNTS, "snapshot": FLAGS, "consumer": NAMES, "timeout_s": SECONDS,
        "on_gap": st.sampled_from(["fail", "oldest", "snapshot", "no such"]),
    },
    "ack": {"consumer": NAMES, "cursor": CURSORS},
    "flush": {"target": COUNTS, "consumer": NAMES, "timeout_s": SECONDS},
    "trim": {
        "keep_age_s": SECONDS, "keep_count": COUNTS, "keep_bytes": COUNTS, "past_consumers": FLAGS, "wait": FLAGS,
    },
    "consumers.list": {},
    "consumers.reset": {"consumer": NAMES, "to": CURSORS},
    "consumers.delete": {"consumer": NAMES},
    "jobs.spool": {},
    "jobs.submit": {
        **JOB, "delay_s": SECONDS, "after": JOBS, "unique": NAMES, "lock": NAMES,
    },
    "jobs.status": {},
    "jobs.kinds": {},
    "jobs.list": {
        "states": st.lists(STATES, max_size=2), "kinds": st.lists(KIND, max_size=2), "library": LIBRARIES,
        "since_s": SECONDS, "limit": COUNTS,
    },
    "jobs.show": {"job_id": COUNTS},
    "jobs.logs": {"job_id": COUNTS, "after": COUNTS},
    "jobs.wait": {"job_ids": JOBS, "any": FLAGS, "timeout_s": SECONDS, "every_s": SECONDS},
    "jobs.cancel": {"job_ids": JOBS},
    "jobs.retry": {"job_ids": JOBS},
    "jobs.drop": {"job_ids": JOBS},
    "jobs.claim": {
        "worker": NAMES, "kinds": st.lists(KIND | st.just("embed"), max_size=2), "lease_s": SECONDS,
        "embedders": st.lists(NAMES, max_size=2),
        "wait_s": st.sampled_from([0, -1, 0.01, float("nan"), "soon"]),
    },
    "jobs.heartbeat": {"job_id": COUNTS, "attempt": COUNTS, "done": COUNTS, "total": COUNTS},
    "jobs.checkpoint": {
        "job_id": COUNTS, "attempt": COUNTS, "step": COUNTS, "checkpoint": JSON, "effect": EFFECTS, "done": COUNTS,
        "total": COUNTS, "lines": st.lists(NAMES, max_size=2),
    },
    "jobs.finish": {"job_id": COUNTS, "attempt": COUNTS, "result": JSON, "error": ERRORS},
    "jobs.workers": {},
    "tasks.heartbeat": {"task_id": NAMES},
    "tasks.finish": {"task_id": NAMES, "vectors": st.binary(max_size=16), "error": ERRORS},
    "jobs.pause": {"kinds": st.lists(KIND, max_size=2)},
    "jobs.resume": {"kinds": st.lists(KIND, max_size=2)},
    "schedule.add": {
        **JOB, "name": NAMES,
        "cron": st.sampled_from(["* * * * *", "0 0 30 2 *", "@daily", "*/0 * * * *", "x", "1 2 3"]),
        "zone": st.sampled_from(["", "UTC", "Europe/Berlin", "No/Such", "../etc/passwd", "\0"]),
        "missed": st.sampled_from(["once", "all", "skip", "no such"]), "replace": FLAGS,
    },
    "schedule.list": {},
    "schedule.run": {"name": NAMES},
    "schedule.remove": {"name": NAMES},
    "relay.add": {
        "name": NAMES, "url": URLS, "parameters": PARAMETERS, "format": st.sampled_from(["vec", "cloudevents", "xml"]),
        "libraries": st.lists(LIBRARIES, max_size=2), "types": st.lists(TYPES, max_size=2), "where": WHERE,
        "payload": FLAGS, "vectors": FLAGS, "from": CURSORS, "paused": FLAGS,
    },
    "relay.list": {},
    "relay.show": {"name": NAMES},
    "relay.pause": {"name": NAMES},
    "relay.resume": {"name": NAMES},
    "relay.reset": {"name": NAMES, "to": CURSORS},
    "relay.remove": {"name": NAMES},
    "relay.dead": {"name": NAMES, "after": COUNTS, "bodies": FLAGS, "retrying": FLAGS},
    "relay.retry": {"name": NAMES, "letter_ids": JOBS},
    "relay.drop": {"name": NAMES, "letter_ids": JOBS},
    "relay.watch": {"name": NAMES, "generation": COUNTS, "timeout_s": SECONDS},
    "relay.commit": {
        "name": NAMES, "generation": COUNTS, "cursor": CURSORS, "dead_letters": st.lists(LETTERS, max_size=2),
        "letter_ids": JOBS,
    },
    "source.add": {
        "name": NAMES, "url": URLS, "parameters": PARAMETERS, "library": LIBRARIES, "group": NAMES, "mapping": RULES,
        "libraries": st.lists(LIBRARIES, max_size=2), "paused": FLAGS,
    },
    "source.list": {},
    "source.show": {"name": NAMES},
    "source.pause": {"name": NAMES},
    "source.resume": {"name": NAMES},
    "source.reset": {"name": NAMES, "start": st.sampled_from(["earliest", "latest", "x"]), "offsets": OFFSETS},
    "source.remove": {"name": NAMES},
    "source.dead": {"name": NAMES, "after": COUNTS, "bodies": FLAGS, "retrying": FLAGS},
    "source.retry": {"name": NAMES, "letter_ids": JOBS},
    "source.drop": {"name": NAMES, "letter_ids": JOBS},
    "source.offsets": {"name": NAMES, "generation": COUNTS},
    "source.commit": {
        "name": NAMES, "generation": COUNTS, "offsets": OFFSETS, "expected": OFFSETS,
        "documents": DOCUMENTS, "dead_letters": st.lists(LETTERS, max_size=2),
        "letter_ids": JOBS,
    },
    "sync.add": {
        "name": NAMES, "url": FOLDERS, "library": LIBRARIES, "prefix": TEXTS, "parameters": PARAMETERS,
        "follow": FLAGS, "paused": FLAGS,
    },
    "sync.list": {},
    "sync.show": {"name": NAMES},
    "sync.pause": {"name": NAMES},
    "sync.resume": {"name": NAMES},
    "sync.remove": {"name": NAMES},
    "sync.hold": {"name": NAMES},
    "sync.files": {"name": NAMES, "after": st.binary(max_size=9)},
    "sync.commit": {
        "name": NAMES, "generation": COUNTS, "library_id": COUNTS, "documents": DOCUMENTS,
        "files": st.lists(SYNC_FILES, max_size=2),
        "gone": st.lists(st.binary(max_size=9), max_size=2), "run": METADATA,
    },
    "connectors.watch": {"directions": st.lists(st.sampled_from(["relay", "source", "sync", "x"]), max_size=2)},
    "connectors.report": {"reports": st.lists(st.one_of(REPORTS, JSON), max_size=2)},
}  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request without its id: mostly fields of the right types, sometimes anything."""
    op = draw(st.sampled_from(sorted(FIELDS)))
    fields = {}
    for name, values in FIELDS[op].items():
        chance = draw(st.integers(0, 9))
        if chance < 6:
            fields[name] = draw(values)
        elif chance == 9:
            fields[name] = draw(ANYTHING)
    return {**fields, "op": op}
