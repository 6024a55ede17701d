"""PQ: what codes cannot tell apart is found all the same, and it costs no more than a scan."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.index_source import Driven, MemorySource, spec, true_scores
from vecd.index.brute_force import normalised
from vecd.index.local import fast_scan as codes_module
from vecd.index.local.fast_scan import FastScanCodes
from vecd.index.local.pq import Pq
from vecd.index.local.rerank_misses import expected_misses
from vecd.index.policy import Tuning
from vecd.index.rows import Allowed, Floats, Labels
from vecd.index.structure import Effort, Spec

_K = 10
_EFFORT = Effort(0.98)


@pytest.fixture(autouse=True)
def _codes_always_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the sizes of these tests a scan is cheap: codes are to be asked all the same, up to half of the rows."""
    monkeypatch.setattr(Pq, "_pays", lambda self, candidates, allowed: candidates < allowed.count // 2)


def built(vectors: Floats, metric: str = "cosine", **parameters: int) -> Pq:
    made = Pq(spec("pq", metric, vectors.shape[1], **parameters))
    made.train(vectors[:4_096])
    for start in range(0, len(vectors), 1_000):
        page = vectors[start : start + 1_000]
        made.extend(np.arange(start, start + len(page), dtype=np.int64), page)
    made.finish()
    return made


def recalls(made: Pq, vectors: Floats, queries: Floats, metric: str, allowed: Allowed | None = None) -> Floats:
    """By query; a hit counts if it is as near as the k-th nearest."""
    allowed = allowed or Allowed(len(vectors), None)
    scores = true_scores(vectors, queries, metric)
    if allowed.mask is not None:
        scores[:, ~allowed.mask] = -np.inf
    least = np.sort(scores, axis=1)[:, -_K]
    _, labels = made.search(queries, _K, allowed, _EFFORT)
    found = np.take_along_axis(scores, labels, 1)
    slack = 1e-5 * np.abs(least)[:, None] + 1e-6
    shares: Floats = (found >= least[:, None] - slack).mean(axis=1).astype(np.float32)
    return shares


def unit(vectors: Floats) -> Floats:
    made: Floats = normalised(vectors)
    return made


def normal(count: int, dimension: int, seed: int) -> Floats:
    made: Floats = np.random.default_rng(seed).standard_normal((count, dimension), np.float32)
    return made


def cone(count: int, dimension: int, spread: float, seed: int) -> Floats:
    centre = normal(1, dimension, 99)
    made: Floats = np.add(centre, np.float32(spread) * normal(count, dimension, seed), dtype=np.float32)
    return made


def copies(count: int, seed: int) -> Floats:
    vectors = normal(count, 32, seed)
    vectors[: count // 4] = vectors[0]
    return np.random.default_rng(seed).permutation(vectors)


_DATA = {
    "random": (unit(normal(8_000, 32, 1)), unit(normal(100, 32, 2))),
    "foreign": (unit(cone(8_000, 64, 0.3, 1)), unit(normal(100, 64, 2))),
    "narrow cone": (unit(cone(8_000, 96, 0.01, 1)), unit(cone(100, 96, 0.01, 2))),
    "copies": (unit(copies(8_000, 1)), unit(normal(100, 32, 2))),
    "one-hot": (np.eye(64, dtype=np.float32)[np.arange(8_000) % 64], unit(normal(50, 64, 2))),
    "eight dimensions": (unit(normal(8_000, 8, 1)), unit(normal(100, 8, 2))),
}


@pytest.mark.parametrize("name", _DATA)
def test_recall_is_kept_on_data_that_codes_describe_badly(name: str) -> None:
    vectors, queries = _DATA[name]
    found = recalls(built(vectors), vectors, queries, "cosine")
    assert found.mean() >= 0.98
    assert found.min() >= 0.7


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_recall_is_kept_when_lengths_differ_a_thousandfold(metric: str) -> None:
    random = np.random.default_rng(5)
    vectors = normal(8_000, 32, 3) * np.exp(random.uniform(0, 7, (8_000, 1))).astype(np.float32)
    found = recalls(built(vectors, metric), vectors, normal(100, 32, 4), metric)
    assert found.mean() >= 0.98
    assert found.min() >= 0.7


def test_what_a_filter_masks_is_never_found_and_hides_nothing() -> None:
    """The nearest are masked: the query's own cluster."""
    random = np.random.default_rng(6)
    topic = 3 * normal(1, 32, 7)
    vectors = np.concatenate((normal(7_000, 32, 8), topic + np.float32(0.3) * normal(800, 32, 9)))
    order = random.permutation(len(vectors))
    vectors, own = unit(vectors[order]), order >= 7_000
    queries = unit(topic + np.float32(0.3) * normal(50, 32, 10))
    made = built(vectors)
    allowed = Allowed(int((~own).sum()), ~own)
    assert recalls(made, vectors, queries, "cosine", allowed).min() >= 0.9
    _, labels = made.search(queries, _K, allowed, _EFFORT)
    assert not own[labels].any()


def test_rows_that_fit_no_code_are_always_compared() -> None:
    """After a drift: vectors that are nothing like those that the codebook was trained with."""
    vectors = np.concatenate((cone(6_000, 32, 0.1, 1), 50 + 30 * normal(200, 32, 2)))
    made = Pq(Spec(32, "l2", "pq", {"bits": 4}))
    made.train(vectors[:4_000])
    made.extend(np.arange(6_000), vectors[:6_000])
    made.finish()
    assert not made.worn
    made.extend(np.arange(6_000, 6_200), vectors[6_000:])
    assert recalls(made, vectors, vectors[6_000:], "l2").min() == 1.0
    made.extend(np.arange(6_200, 7_000), 50 + 30 * normal(800, 32, 3))
    assert made.worn


@pytest.mark.parametrize("count", [1, 8, 15])
def test_fewer_rows_than_a_piece_has_centroids_make_codes(count: int) -> None:
    vectors = unit(normal(count, 32, 2))
    _, labels = built(vectors).search(vectors, 1, Allowed(count, None), _EFFORT)
    assert labels[:, 0].tolist() == list(range(count))


def test_a_drift_has_the_codes_trained_again() -> None:
    source = MemorySource(spec("pq", "l2", 16))
    driven = Driven(source, Tuning(rows_min=1_000, quiet_s=0))
    try:
        driven.write(cone(3_000, 16, 0.1, 1))
        driven.settle()
        driven.write(50 + 30 * normal(1_000, 16, 2))
        driven.settle()
        assert [report.reason for report in source.reports] == ["growth", "drift"]
    finally:
        driven.stop()


def test_a_query_costs_as_many_comparisons_as_it_needs() -> None:
    """Clear answers take the fewest candidates; a row of copies takes all there are."""
    clusters = np.repeat(normal(400, 32, 1), 20, axis=0) + np.float32(0.05) * normal(8_000, 32, 2)
    made = built(unit(clusters))
    assert _rounds(made, unit(clusters[:20] + np.float32(0.05) * normal(20, 32, 3))) == [256]
    same = built(unit(copies(8_000, 1)))
    copied = unit(copies(8_000, 1))
    values, counts = np.unique(copied, axis=0, return_counts=True)
    assert len(_rounds(same, values[counts.argmax()][None])) > 1


def _rounds(made: Pq, queries: Floats) -> list[int]:
    """How many candidates were asked for, round by round."""
    asked: list[int] = []
    search = FastScanCodes.search

    def counting(self: FastScanCodes, rows: Floats, candidates: int, allowed: Allowed) -> tuple[Floats, Labels]:
        asked.append(candidates)
        return search(self, rows, candidates, allowed)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FastScanCodes, "search", counting)
        made.search(queries, _K, Allowed(made.rows.count, None), _EFFORT)
    return asked


def test_an_effort_by_hand_is_one_round_of_as_many_candidates() -> None:
    vectors, _ = _DATA["random"]
    made = built(vectors)
    found, _ = made.search(vectors[:5], _K, Allowed(len(vectors), None), Effort(0.98, ef=2_000))
    assert found[:, 0] == pytest.approx(1, abs=1e-5)


def test_equal_scores_come_in_the_order_of_their_labels_whatever_is_asked_with_them() -> None:
    vectors = unit(copies(8_000, 3))
    made = built(vectors)
    values, counts = np.unique(vectors, axis=0, return_counts=True)
    copied = values[counts.argmax()]
    same = np.flatnonzero((vectors == copied).all(axis=1))
    _, alone = made.search(copied[None], _K, Allowed(len(vectors), None), _EFFORT)
    _, many = made.search(np.stack([copied, *vectors[:7]]), _K, Allowed(len(vectors), None), _EFFORT)
    assert sorted(alone[0].tolist()) == same[:_K].tolist()
    assert sorted(many[0].tolist()) == same[:_K].tolist()


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_several_cores_find_what_one_finds(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(normal(9_000, 32, 1)) if metric == "cosine" else normal(9_000, 32, 1)
    made = built(vectors, metric)
    masks = (None, np.arange(9_000) % 3 == 0, np.arange(9_000) < 1_200)  # of the last, one shard has few
    for mask in masks:
        allowed = Allowed(9_000 if mask is None else int(mask.sum()), mask)
        for query in normal(5, 32, 2):
            rotated = made._rotated_queries(query[None])
            monkeypatch.setattr(codes_module, "_SHARED_BYTES", 1 << 60)
            alone = made._codes.search(rotated, 500, allowed)
            monkeypatch.setattr(codes_module, "_SHARED_BYTES", 0)
            shared = made._codes.search(rotated, 500, allowed)
            assert (np.diff(alone[0]) >= 0).all()
            np.testing.assert_array_equal(alone[0], shared[0])
            np.testing.assert_array_equal(alone[1], shared[1])
            assert mask is None or mask[alone[1]].all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_code_takes_its_bits(bits: int) -> None:
    vectors, _ = _DATA["foreign"]
    made = built(vectors, bits=bits)
    own = made.memory_bytes - vectors.nbytes - made.rows.memory_bytes
    assert len(vectors) * 64 * bits // 8 <= own <= len(vectors) * 64 * bits // 8 + 64 * 1_024 * 4


def test_the_missed_are_estimated_about_right() -> None:
    """Of 20,000 rows whose estimates are off by a normal error, the mean of what is expected to be missed among those
    that were not compared is within a small factor of what is missed, and not below half of it."""
    random = np.random.default_rng(11)
    expected = lost = 0.0
    for _ in range(200):
        exact = random.normal(100, 10, 20_000).astype(np.float32)
        estimates = exact + random.normal(0, 12, 20_000).astype(np.float32)
        order = np.argsort(estimates)[:256]
        expected += expected_misses(estimates[order], exact[order], _K, 12.0)
        nearest = set(np.argsort(exact)[:_K].tolist())
        lost += len(nearest - set(order.tolist()))
    assert lost > 50
    assert lost / 2 <= expected <= 5 * lost
