"""The recall of queries that come is measured, and the effort follows it; nobody waits for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.index_source import WAIT_S, Driven, MemorySource, NeverCeasing, spec
from vecd.index.local.lsh import Lsh
from vecd.index.local.pq import Pq
from vecd.index.policy import Tuning
from vecd.index.rows import Floats

_TUNING = Tuning(rows_min=500, quiet_s=0)


def normal(count: int, seed: int, dimension: int = 16) -> Floats:
    made: Floats = np.random.default_rng(seed).standard_normal((count, dimension), np.float32)
    return made


@pytest.fixture
def driven() -> Iterator[Driven]:
    made = Driven(MemorySource(spec("pq", "cosine", 16)), _TUNING)
    made.write(normal(2_000, 1))
    made.settle()
    yield made
    made.stop()


def asked(driven: Driven, queries: Floats) -> dict[str, Any]:
    for query in queries:
        driven.search(query, 10)
    driven.settle()
    report = driven.live.recall_report()
    assert report is not None
    return report


def test_queries_that_come_are_measured_when_nothing_else_is_to_be_done(driven: Driven) -> None:
    assert driven.live.recall_report() is None
    report = asked(driven, normal(30, 2))
    assert report["queries"] >= 10
    assert (report["met"], report["mean"]) == (True, 1.0)  # so few rows are scanned
    assert [each["met"] for each in driven.source.recalls] == [True]


def test_an_index_that_misses_the_promise_is_given_more_effort_until_it_keeps_it(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A structure that is wrong at a low factor; only the factor helps."""
    right = Pq.search

    def wrong(self: Pq, queries: Floats, k: int, allowed: Any, effort: Any) -> Any:
        scores, labels = right(self, queries, k, allowed, effort)
        if not effort.exact and effort.factor < 4:
            scores, labels = scores - 1, np.roll(labels, 1)
        return scores, labels

    monkeypatch.setattr(Pq, "search", wrong)
    for seed in range(3):
        report = asked(driven, normal(40, seed))
    assert report["met"]
    assert report["effort"] == 4
    met = [each["met"] for each in driven.source.recalls]
    assert met in ([False, True], [True])  # it may be noticed before it is told


def test_a_promise_that_no_effort_keeps_is_kept_by_exact_searches(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Pq.search

    def wrong(self: Pq, queries: Floats, k: int, allowed: Any, effort: Any) -> Any:
        scores, labels = right(self, queries, k, allowed, effort)
        return (scores, labels) if effort.exact else (scores - 1, labels)

    monkeypatch.setattr(Pq, "search", wrong)
    for seed in range(4):
        report = asked(driven, normal(40, seed))
    assert (report["met"], report["effort"]) == (True, "exact")
    assert driven.search(normal(1, 9)[0], 10)[0].max() > -0.5


def test_measuring_goes_on_under_searches_that_never_cease(driven: Driven) -> None:
    for query in normal(20, 3):
        driven.search(query, 10)
    with NeverCeasing(driven):
        pass
    driven.settle()
    assert driven.live.recall_report() is not None


def test_writes_do_not_disturb_a_measurement(driven: Driven) -> None:
    for seed in range(5):
        for query in normal(10, seed):
            driven.search(query, 10)
        labels = driven.write(normal(50, 100 + seed))
        driven.write(removed=labels[:25])
    driven.settle()
    report = driven.live.recall_report()
    assert report is not None
    assert report["worst"] == 1.0


def test_the_searches_of_a_probe_and_exact_ones_are_not_sampled(driven: Driven) -> None:
    from vecd.index.requests import SearchOptions

    for query in normal(20, 4):
        driven.live.search(query, SearchOptions(10, sampled=False)).result(WAIT_S)
        driven.live.search(query, SearchOptions(10, exact=True)).result(WAIT_S)
        driven.live.search(query, SearchOptions(10, ef=50)).result(WAIT_S)
    driven.settle()
    assert driven.live.recall_report() is None


def test_a_promise_of_one_makes_every_search_exact(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pq, "_compare", None)  # it would be called for an approximate one
    driven.source.promise = 1.0
    assert len(driven.search(normal(1, 5)[0], 10)[0]) == 10


def test_codes_of_a_narrow_cone_do_not_cost_lsh_its_answers() -> None:
    """All codes are alike there; each query is compared with as many vectors as it takes."""
    source = MemorySource(spec("lsh", "cosine", 16))
    driven = Driven(source, _TUNING)
    try:
        vectors = np.float32(10) + np.float32(0.05) * normal(3_000, 1)
        driven.write(vectors)
        driven.settle()
        assert isinstance(driven.live._vectors.structure, Lsh)
        for row in range(0, 3_000, 100):
            _, labels = driven.search(vectors[row], 1)
            assert labels.tolist() == [row + 1]
    finally:
        driven.stop()


def test_what_was_measured_of_one_index_is_not_said_of_another(driven: Driven) -> None:
    asked(driven, normal(30, 2))
    for query in normal(100, 3):  # some of them are being measured when the index changes
        driven.search(query, 10)
    driven.live.rebuild(spec("pq 1 bit", "cosine", 16)).result(WAIT_S)
    driven.settle()
    driven.live.rebuild(spec("flat", "cosine", 16)).result(WAIT_S)
    assert driven.live.recall_report() is None
