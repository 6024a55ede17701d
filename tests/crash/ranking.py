"""Brute-force reference for full-text and hybrid searches, over documents from `get`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.index.test_inverted_index import Model
from vecd.index.fulltext.inverted_index import Bm25Parameters, TermQuery
from vecd.text.analysis import FORM_MARK, analyzer
from vecd.text.embedders.hash import Hash

from .checker import Broken

#: How the rankings are fused: 1 / (20 + rank), words counting one and a half times.
_FUSED, _WORDS_WEIGHT = 20, 1.5
#: What a title that is similar to the query gains at most: times the square of their cosine.
_TITLE_WEIGHT = 0.3
_SLACK = 2e-5


class Ranked:
    """The chunks of a library, and their ranking."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._titles: dict[str, str | None] = {}
        self._chunks: list[str] = []
        self._model = Model(Bm25Parameters())
        for document in documents:
            for chunk in document["chunks"]:
                self.vectors[chunk["chunk_id"]] = np.frombuffer(chunk["vector"], "<f4")
                title = self._titles[chunk["chunk_id"]] = document["title"]
                words = (None if title is None else _terms(title)), _terms(chunk["text"])
                self._model.rows[len(self._chunks)] = words
                self._chunks.append(chunk["chunk_id"])

    def worded(self, query: str) -> dict[str, float]:
        """The score of each chunk that has any of the words."""
        found = self._model.search(TermQuery(tuple(_terms(query))), len(self._chunks))
        return {self._chunks[label]: score for score, label in found}

    def embedded(self, query: str) -> npt.NDArray[np.float32]:
        return np.asarray(Hash().embed([query])[0], np.float32)

    def _title_score(self, chunk: str, query: str) -> float:
        title = self._titles[chunk]
        return _TITLE_WEIGHT * max(0.0, float(self.embedded(title) @ self.embedded(query))) ** 2 if title else 0.0

    def check_hybrid(
        self,
        query: str,
        hits: Sequence[Mapping[str, Any]],
        near: Mapping[str, float],
        worded: Mapping[str, float],
        k: int,
    ) -> None:
        """Checks that each hit has the ranks of brute force in both rankings, and the score that follows from them and
        from its title."""
        if len(hits) < min(k, len(near)):
            raise Broken("search", f"hybrid: {len(hits)} hits of {min(k, len(near))}")
        for hit in hits:
            chunk, score = hit["chunk_id"], 0.0
            for what, scores, weight in (("vector", near, 1.0), ("text", worded, _WORDS_WEIGHT)):
                place = hit["explain"][what]
                if place is None:
                    continue
                if chunk not in scores or abs(scores[chunk] - place["score"]) > _SLACK * max(1, place["score"]):
                    raise Broken("search", f"hybrid: {chunk} has by {what} {place}, by brute force {scores.get(chunk)}")
                better = sum(each > scores[chunk] + _SLACK for each in scores.values())
                alike = sum(each >= scores[chunk] - _SLACK for each in scores.values())
                if not better < place["rank"] <= alike:
                    raise Broken("search", f"hybrid: {chunk} is at {place} by {what}; {better} are better")
                score += weight / (_FUSED + place["rank"])
            similar = hit["explain"].get("title_score", 0.0)
            if similar and abs(similar - self._title_score(chunk, query)) > _SLACK:
                raise Broken("search", f"hybrid: {chunk} gets {similar} for its title {self._titles[chunk]!r}")
            score += similar
            if abs(score - hit["score"]) > _SLACK:
                raise Broken("search", f"hybrid: {chunk} has the score {hit['score']}, and its places give {score}")


def _terms(text: str) -> list[str]:
    return [term for term in analyzer("english").terms(text) if not term.startswith(FORM_MARK)]
