"""A cache of search hits: rows of chunks in the form that clients get.

The rows never change, whether their documents live or not, so no commit invalidates them; reading ten rows takes a
third as long as a search of a graph does. The cache has a bound and two generations: when the young one is full it
becomes the old one, whose chunks are dropped unless they are used again. Damaged chunks are no hits (damage.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from .. import limits
from ..store import documents as store
from ..store.database import Database
from ..store.documents import ChunkRow
from ..store.events import chunk_id
from .damage import TEXT, Damage

#: Chunk label and score, best first.
Ranking = list[tuple[int, float]]

#: By chunk label: the hit's rank and score in each ranking that it comes from.
Explained = dict[int, dict[str, Any]]

#: By chunk label: fields of a hit.
About = Mapping[int, dict[str, Any]]

#: Digits of a score behind the point.
SCORE_DIGITS = 6

#: The size of a cached chunk beside its texts, in characters; metadata as objects take several times their JSON.
_OWN_CHARS = 600


class HitCache:
    """Reads hits, from any thread. Blocks."""

    def __init__(self, database: Database, damage: Damage) -> None:
        self._database = database
        self._damage = damage
        self._lock = threading.Lock()  # guards what follows
        self._young: dict[int, _Chunk] = {}
        self._old: dict[int, _Chunk] = {}
        self._young_chars = 0

    def hits(
        self, ranking: Ranking, first_rank: int = 1, *, before: About | None = None, after: About | None = None
    ) -> list[dict[str, Any]]:
        """The hits of a ranking, `first_rank` being the rank of its first. `before` and `after` have fields by label,
        to be added before and after those of the chunk."""
        chunks = self._chunks({label for label, _ in ranking})
        hits = _hits(ranking, chunks, first_rank, before or {}, after or {})
        assert hits is not None
        return hits

    def texts(self, labels: list[int]) -> dict[int, tuple[str | None, str | None]]:
        """Title and text of these chunks; deleted and damaged ones are left out."""
        there = self._chunks(set(labels)).items()
        return {label: (chunk["title"], chunk["text"]) for label, chunk in there if chunk is not None}

    def hits_of_each(
        self, rankings: list[Ranking], first_ranks: Iterable[int] | None = None
    ) -> list[list[dict[str, Any]] | None]:
        """The hits of several rankings, read together; None for those beyond limits.HITS_AT_ONCE_CHARS. `first_ranks`
        are the ranks of the first hit of each; None: 1."""
        short_first = sorted(rankings, key=len)
        labels = dict.fromkeys(label for ranking in short_first for label, _ in ranking)
        chunks = self._chunks(labels, limits.HITS_AT_ONCE_CHARS)
        firsts = [1] * len(rankings) if first_ranks is None else first_ranks
        return [_hits(ranking, chunks, first) for ranking, first in zip(rankings, firsts, strict=True)]

    def _chunks(self, labels: Iterable[int], chars_max: int | None = None) -> dict[int, dict[str, Any] | None]:
        """What hits show of these chunks, which are distinct; None for deleted and damaged ones. With
        `chars_max`, chunks beyond that number of characters are left out, the last ones first."""
        chunks: dict[int, dict[str, Any] | None] = {}
        with self._lock:
            for label in labels:
                if (kept := self._young.get(label)) is None and (kept := self._old.pop(label, None)) is not None:
                    self._keep(label, kept)
                if kept is not None:
                    chunks[label] = kept.shown
        missing = [label for label in labels if label not in chunks]
        chars = 0
        for start in range(0, len(missing), limits.PAGE_ITEMS):
            if chars_max is not None and chars > chars_max:
                break
            page = sorted(missing[start : start + limits.PAGE_ITEMS])
            with self._damage.collecting(TEXT) as left_out, self._database.read_transaction() as db:
                rows = store.chunk_rows(db, page, left_out)
            chunks.update(dict.fromkeys(page))
            with self._lock:
                for label, row in rows.items():
                    read = _chunk(row)
                    chunks[label] = read.shown
                    chars += read.chars
                    self._keep(label, read)
        return chunks

    def _keep(self, label: int, chunk: _Chunk) -> None:
        """With the lock held."""
        if chunk.chars > limits.HIT_CHARS_MAX:
            return
        if self._young_chars > limits.HITS_KEPT_CHARS // 2:
            self._young, self._old, self._young_chars = {}, self._young, 0
        self._young[label] = chunk
        self._young_chars += chunk.chars


def _hits(
    ranking: Ranking,
    chunks: dict[int, dict[str, Any] | None],
    first_rank: int,
    before: About = MappingProxyType({}),
    after: About = MappingProxyType({}),
) -> list[dict[str, Any]] | None:
    """None if not all of the chunks have been read."""
    if any(label not in chunks for label, _ in ranking):
        return None
    return [
        {"rank": rank, "score": round(score, SCORE_DIGITS), **before.get(label, {}), **chunk, **after.get(label, {})}
        for rank, (label, score) in enumerate(ranking, first_rank)
        if (chunk := chunks[label]) is not None  # it may be damaged, or the vacuum has deleted it since
    ]


class _Chunk(NamedTuple):
    shown: dict[str, Any]  # the part of a hit that depends on the chunk only
    chars: int


def _chunk(row: ChunkRow) -> _Chunk:
    document_id, title, text, metadata = row.document_id, row.title, row.text, row.metadata
    shown = {
        "document_id": document_id,
        "chunk_id": chunk_id(document_id, row.position),
        "title": title,
        "text": text,
        "metadata": orjson.loads(metadata),
    }
    if row.line is not None:
        shown["line"] = row.line
    return _Chunk(shown, _OWN_CHARS + 2 * len(document_id) + len(title or "") + len(text or "") + 4 * len(metadata))
