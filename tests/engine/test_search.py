"""Fusing rankings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecd.engine.search import fuse

RANKING = st.lists(st.integers(1, 40), unique=True, max_size=30)


def best_first(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda key: (-scores[key], key))


def test_what_both_rankings_have_comes_before_what_one_has() -> None:
    fused = fuse([([1, 2, 3], 1), ([4, 3, 5], 1)])
    assert best_first(fused) == [3, 1, 4, 2, 5]
    assert fused[3] == 1 / 23 + 1 / 22


@given(first=RANKING, second=RANKING)
def test_fusing_keeps_every_key_once(first: list[int], second: list[int]) -> None:
    assert sorted(fuse([(first, 1), (second, 1.5)])) == sorted({*first, *second})


@given(ranking=RANKING)
def test_fusing_one_ranking_keeps_its_order(ranking: list[int]) -> None:
    fused = fuse([(ranking, 1), ([], 1.5)])
    assert sorted(fused, key=lambda key: -fused[key]) == ranking
