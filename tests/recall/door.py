"""Cells through the daemon's own door: real texts and the default embedder, `--where`, deletes, `kill -9`, a rebuild.

A document is one chunk, so a hit's document is its row. Truth is decided as elsewhere, by vectors that are embedded
here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from tests.bench.library import settle
from tests.support.instance import Instance
from vecd.client import Client
from vecd.index.kinds import KINDS
from vecd.index.rows import Bools, Floats

from . import texts
from .cells import Cell, K, Plan
from .data import Numbers
from .texts import Text
from .truth import Truth

_BATCH: Final = 500
#: A hit's score is told with six decimals.
_COARSE: Final = 1e-6
#: Filters by name: what is asked for, given the query's topic, and the rows that it lets through.
_WHERES: Final[dict[str, tuple[Callable[[int], str], Callable[[Numbers, Numbers, int], Bools]]]] = {
    "50%": (lambda topic: "thousandth < 500", lambda thousandths, topics, topic: thousandths < 500),
    "10%": (lambda topic: "thousandth < 100", lambda thousandths, topics, topic: thousandths < 100),
    "1%": (lambda topic: "thousandth < 10", lambda thousandths, topics, topic: thousandths < 10),
    "0.1%": (lambda topic: "thousandth = 0", lambda thousandths, topics, topic: thousandths == 0),
    "own-group": (lambda topic: f"topic = {topic}", lambda thousandths, topics, topic: topics == topic),
    "not-own": (lambda topic: f"topic != {topic}", lambda thousandths, topics, topic: topics != topic),
}


def cells(plan: Plan, seed: int) -> Iterator[Cell]:
    """Every text source that is there × kind, through its life: written, topics deleted, killed, updated, rebuilt."""
    for source in texts.SOURCES:
        documents = texts.source(source, plan.size, seed)
        if len(documents) < 1_000 or (plan.collections and source not in plan.collections):
            continue
        other = [each for name in texts.SOURCES if name != source for each in texts.source(name, plan.asked, seed)]
        worded = texts.queries(documents, other, plan.asked, seed)
        for kind in plan.kinds or tuple(KINDS):
            yield from _Library(plan, seed, kind, source, documents).cells(worded)


class _Library:
    """A daemon with one library of texts."""

    def __init__(self, plan: Plan, seed: int, kind: str, source: str, documents: list[Text]) -> None:
        self._plan = plan
        self._documents = documents
        self._vectors: Floats = texts.embedded([each.text for each in documents])
        self._topics = texts.topics(documents)
        self._thousandths: Numbers = np.random.default_rng(seed).integers(0, 1_000, len(documents))
        self._alive: Bools = np.ones(len(documents), np.bool_)
        self._key = {
            "kind": kind, "variant": "daemon", "metric": "cosine", "collection": source,
            "dimension": self._vectors.shape[1], "size": len(documents), "seed": seed,
        }  # fmt: skip

    def cells(self, worded: dict[str, list[str]]) -> Iterator[Cell]:
        with Instance() as instance:
            daemon = instance.start()
            with instance.connect(None) as client:
                client.request("library.create", library="texts", index=self._key["kind"], embedder="wordllama")
                self._write(client, np.arange(len(self._documents)))
                settle(client, "texts")
                yield from self._asked(client, worded, "bulk")
                self._delete(client)
                settle(client, "texts")
                yield from self._asked(client, worded, "deleted")
            daemon.kill()
            daemon.wait()
            daemon = instance.start()
            with instance.connect(None) as client:
                settle(client, "texts")
                yield from self._asked(client, worded, "killed")
                self._update(client)
                settle(client, "texts")
                yield from self._asked(client, worded, "updated")
                client.request("library.rebuild", library="texts")
                settle(client, "texts")
                yield from self._asked(client, worded, "rebuilt")
            daemon.terminate()
            daemon.wait()
            instance.start()
            with instance.connect(None) as client:
                settle(client, "texts")
                yield from self._asked(client, worded, "restarted")

    def _write(self, client: Client, rows: Numbers) -> None:
        for start in range(0, len(rows), _BATCH):
            batch = [self._document(row) for row in rows[start : start + _BATCH].tolist()]
            answer = client.ingest(batch, "texts")
            assert answer["failed"] == 0, answer["errors"]

    def _document(self, row: int) -> dict[str, Any]:
        metadata = {"topic": int(self._topics[row]), "thousandth": int(self._thousandths[row])}
        return {"id": str(row), "texts": [self._documents[row].text], "metadata": metadata}

    def _delete(self, client: Client) -> None:
        """The largest topics that make up no more than an eighth: by filter and by id."""
        numbers, sizes = np.unique(self._topics, return_counts=True)
        left = len(self._topics) // 8
        for topic, size in sorted(zip(numbers.tolist(), sizes.tolist(), strict=True), key=lambda pair: -pair[1]):
            if size <= left:
                left -= size
                rows = np.flatnonzero(self._topics == topic)
                if topic % 2:
                    client.delete(where=f"topic = {topic}", library="texts")
                else:
                    client.delete([str(row) for row in rows.tolist()], "texts")
                self._alive[rows] = False

    def _update(self, client: Client) -> None:
        """A third of what is left changes places: the same texts, under other ids and in other rows."""
        rows = np.flatnonzero(self._alive)[::3]
        turned = np.roll(rows, 1)
        self._documents = list(self._documents)
        moved = [self._documents[row] for row in turned.tolist()]
        for row, text in zip(rows.tolist(), moved, strict=True):
            self._documents[row] = text
        self._vectors[rows] = self._vectors[turned]
        self._topics[rows] = self._topics[turned]
        self._write(client, rows)

    def _asked(self, client: Client, worded: dict[str, list[str]], life: str) -> Iterator[Cell]:
        truth = Truth(self._vectors, "cosine")
        for kind, lines in worded.items():
            if self._plan.queries and kind not in self._plan.queries:
                continue
            found = {name: Cell({**self._key, "queries": kind, "filter": name, "life": life})
                     for name in ("none", *_WHERES)}  # fmt: skip
            vectors = texts.embedded(lines)
            for place, (line, query, scores) in enumerate(zip(lines, vectors, truth.scores(vectors), strict=True)):
                topic = int(self._topics[int(np.where(self._alive, scores, -np.inf).argmax())])
                for name, cell in found.items():
                    if name != "none" and place >= self._plan.asked // 3:
                        continue
                    where, passes = _WHERES[name] if name != "none" else (None, None)
                    allowed = self._alive
                    if passes is not None:
                        allowed = allowed & passes(self._thousandths, self._topics, topic)
                    if not allowed.any():
                        continue
                    started = time.perf_counter()
                    hits = list(
                        client.search(line, library="texts", k=K, mode="vector", where=where(topic) if where else ())
                    )
                    ms = (time.perf_counter() - started) * 1e3
                    rows = np.array([int(hit["document_id"]) for hit in hits], np.int64)
                    told = np.array([hit["score"] for hit in hits], np.float32)
                    cell.add(truth.judge(query, scores, K, allowed, rows, told, _COARSE), ms, line[:60])
            yield from (cell for cell in found.values() if cell.recalls)
