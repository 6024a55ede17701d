"""Lsh: inner products of vectors of very different lengths, which codes alone say too little about."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.index_source import true_scores
from vecd.index.local.lsh import Lsh
from vecd.index.rows import Floats
from vecd.index.structure import Effort, Spec

_SPEC = Spec(16, "dot", "lsh", {"bits": 512})
_K = 5


def built(vectors: Floats) -> Lsh:
    structure = Lsh(_SPEC)
    structure.train(vectors)
    structure.extend(np.arange(len(vectors), dtype=np.int64), vectors)
    structure.finish()
    return structure


def recall(structure: Lsh, vectors: Floats, queries: Floats, effort: Effort) -> float:
    _, labels = structure.search(queries, _K, structure.rows.allowed(None), effort)
    nearest = np.argsort(-true_scores(vectors, queries, "dot"), axis=1)[:, :_K]
    return float(np.mean([len(set(own) & set(true)) / _K for own, true in zip(labels, nearest, strict=True)]))


@pytest.mark.parametrize("when", ["at the build", "later"])
def test_a_few_rows_that_are_much_longer_are_found_whatever_their_codes_say(when: str) -> None:
    """With ten candidates, codes alone find a part of them."""
    random = np.random.default_rng(5)
    vectors = random.standard_normal((3_000, 16), np.float32)
    vectors[-60:] *= 200
    queries = random.standard_normal((50, 16), np.float32)
    first = 3_000 if when == "at the build" else 2_940
    structure = built(vectors[:first])
    structure.extend(np.arange(first, 3_000, dtype=np.int64), vectors[first:])
    assert recall(structure, vectors, queries, Effort(0.98, ef=10)) == 1
    assert not structure.worn


def test_lengths_that_differ_by_orders_of_magnitude_leave_enough_of_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lsh, "_pays", lambda self, candidates, allowed: candidates < allowed.count)  # no scan
    random = np.random.default_rng(5)
    vectors = random.standard_normal((10_000, 16), np.float32) * np.exp(random.normal(0, 1.5, (10_000, 1)))
    vectors = vectors.astype(np.float32)
    queries = random.standard_normal((50, 16), np.float32)
    assert recall(built(vectors), vectors, queries, Effort(0.98)) >= 0.98


def test_a_structure_is_worn_when_many_rows_are_longer_than_those_of_the_build() -> None:
    vectors = np.random.default_rng(5).standard_normal((1_000, 16), np.float32)
    structure = built(vectors)
    assert not structure.worn
    structure.extend(np.arange(1_000, 1_200, dtype=np.int64), 100 * vectors[:200])
    assert structure.worn
