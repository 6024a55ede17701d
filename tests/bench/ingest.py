"""Ingest through the socket with ready vectors: 256 float32 + about 80 bytes of text a document, 512 a batch, each
acknowledged when it is on disk, searchable and logged. Wanted: 30,000 documents/s.

Beside it: one process that puts the same rows into SQLite with the same statements' cost (documents and chunks as one
INSERT … SELECT FROM json_each a batch, WAL, synchronous=FULL), without sockets, events, full text or an index.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import deque
from pathlib import Path

import apsw

from tests.bench.measure import clustered, sentences
from tests.support.instance import Instance
from vecd.client import Pending

_DOCUMENTS, _BATCH, _WINDOW = 102_400, 512, 4


def main() -> None:
    vectors, texts = clustered(_DOCUMENTS), sentences(_DOCUMENTS)
    for _ in range(3):
        bare = _bare(vectors.tobytes(), texts)
        print(f"  SQLite alone, in process: {bare:,.0f} documents/s")
        for searched in (False, True):
            rate = _through_the_socket([row.tobytes() for row in vectors], texts, searched)
            what = "its index in memory" if searched else "its index not loaded"
            print(f"  through vecd, {what}: {rate:,.0f} documents/s, {rate / bare:.2f} of it", flush=True)


def _through_the_socket(vectors: list[bytes], texts: list[str], searched: bool) -> float:
    with Instance() as instance:
        instance.start()
        with instance.connect() as client:
            client.request("library.create", library="bench", embedder="none", dimension=256)
            if searched:
                client.ingest([{"id": "first", "text": texts[0], "vector": vectors[0]}], "bench")
                list(client.search(vector=vectors[0], library="bench"))
            flying: deque[Pending] = deque()
            started = time.perf_counter()
            for start in range(0, len(texts), _BATCH):
                documents = [
                    {"id": f"doc-{row}", "text": texts[row], "vector": vectors[row]}
                    for row in range(start, start + _BATCH)
                ]
                flying.append(client.submit("ingest", library="bench", documents=documents))
                if len(flying) == _WINDOW:
                    flying.popleft().result()
            while flying:
                flying.popleft().result()
            elapsed_s = time.perf_counter() - started
            assert client.count("bench")["documents"] == len(texts) + searched
    return len(texts) / elapsed_s


def _bare(vectors: bytes, texts: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        db = apsw.Connection(str(Path(folder) / "bare.db"))
        db.execute("PRAGMA page_size=8192; PRAGMA journal_mode=wal; PRAGMA synchronous=full; PRAGMA cache_size=-65536")
        db.execute(
            "CREATE TABLE documents (label INTEGER PRIMARY KEY, id TEXT); CREATE UNIQUE INDEX i ON documents(id)"
        )
        db.execute("CREATE TABLE chunks (label INTEGER PRIMARY KEY, text TEXT, vector BLOB)")
        started = time.perf_counter()
        for start in range(0, len(texts), _BATCH):
            ids = json.dumps([f"doc-{row}" for row in range(start, start + _BATCH)])
            blob = vectors[start * 1024 : (start + _BATCH) * 1024]
            with db:
                db.execute("INSERT INTO documents SELECT ?1 + key, value FROM json_each(?2)", (start, ids))
                db.execute(
                    "INSERT INTO chunks SELECT ?1 + key, value, substr(?3, 1 + key * 1024, 1024) FROM json_each(?2)",
                    (start, json.dumps(texts[start : start + _BATCH]), blob),
                )
        elapsed_s = time.perf_counter() - started
        db.close()
    return len(texts) / elapsed_s


if __name__ == "__main__":
    main()
