"""Fusing rankings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecd.engine.search import fuse

RANKING = st.lists(st.integers(1, 40), unique=True, max_size=30).map(
    lambda labels: [(label, 1.0 / (place + 1)) for place, label in enumerate(labels)]
)


def test_what_both_rankings_have_comes_before_what_one_has() -> None:
    fused = fuse([[(1, 0.9), (2, 0.8), (3, 0.7)], [(4, 12.0), (3, 11.0), (5, 10.0)]])
    assert [label for label, _ in fused] == [3, 1, 4, 2, 5]
    assert fused[0][1] == 1 / 63 + 1 / 62


@given(first=RANKING, second=RANKING)
def test_fusing_keeps_every_label_once_and_the_best_first(
    first: list[tuple[int, float]], second: list[tuple[int, float]]
) -> None:
    fused = fuse([first, second])
    assert sorted(label for label, _ in fused) == sorted({label for label, _ in first + second})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(ranking=RANKING)
def test_fusing_one_ranking_keeps_its_order(ranking: list[tuple[int, float]]) -> None:
    assert [label for label, _ in fuse([ranking, []])] == [label for label, _ in ranking]
