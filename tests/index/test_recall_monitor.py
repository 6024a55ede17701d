"""The monitor of a recall promise, driven by simulated searches: how hard a query is decides what each factor finds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd.index.recall_monitor import (
    FACTOR_MAX,
    FACTOR_OF_FEW,
    MEASURED_MAX,
    QUERIES_MIN,
    WAITING_MAX,
    RecallMonitor,
    figures,
    recall_of,
)

PROMISE = 0.98


class Simulated:
    """Searches whose queries carry, as their only component, the factor from which on all of the ten nearest are found;
    below it, nine are."""

    def __init__(self, monitor: RecallMonitor, below: float = 0.9) -> None:
        self.monitor = monitor
        self.below = below
        self.flips: list[bool] = []
        self.factors: list[float] = [1.0]
        self.measurements = 0

    def ask(self, needed: float, kind: str = "all") -> None:
        self.monitor.note(np.array([needed], np.float32), 10, kind, None)

    def measure(self, count: int = 100_000, needed: Callable[[float], float] = lambda needed: needed) -> None:
        """Measures all that there is to measure, up to `count`; `needed` says what a query needs by now."""
        for _ in range(count):
            sampled = self.monitor.next()
            self._look(sampled.kind_of_filter if sampled else "all")
            if sampled is None:
                return
            wants = needed(float(sampled.query[0]))
            assert all(1 <= factor <= FACTOR_MAX for factor in sampled.factors)
            assert sampled.factors
            recalls = {factor: 1.0 if factor >= wants else self.below for factor in sampled.factors}
            self.monitor.measured(sampled, recalls)
            self.measurements += 1
            self._look(sampled.kind_of_filter)
        raise AssertionError("there is always something to measure")

    def _look(self, kind: str) -> None:
        if (flipped := self.monitor.flipped()) is not None:
            self.flips.append(flipped["met"])
        if (factor := self.monitor.factor(kind)) != self.factors[-1]:
            self.factors.append(factor)


def simulated(needs: list[float], **options: Any) -> Simulated:
    made = Simulated(RecallMonitor(PROMISE), **options)
    for needed in needs:
        made.ask(needed)
        made.measure()
    return made


# --- recall ---------------------------------------------------------------------------------------------------------


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def test_what_scores_as_well_as_the_exact_kth_is_found_whichever_of_the_equals_it_is() -> None:
    assert recall_of(floats(0.9, 0.5, 0.5), floats(0.9, 0.5, 0.5)) == 1
    assert recall_of(floats(0.9, 0.5, 0.4), floats(0.9, 0.5, 0.5)) == pytest.approx(2 / 3)
    assert recall_of(floats(0.9, 0.5 - 5e-7, 0.5), floats(0.9, 0.5, 0.5)) == 1


def test_what_was_not_found_at_all_is_missed() -> None:
    assert recall_of(floats(), floats(0.9, 0.8)) == 0
    assert recall_of(floats(0.9), floats(0.9, 0.8)) == 0.5
    assert recall_of(floats(), floats()) == 1


def test_rounding_is_relative_to_the_scores() -> None:
    assert recall_of(floats(-1e-9, -2e-9), floats(-1e-9, -1.5e-9)) == 0.5, "tiny scores are no ties"
    assert recall_of(floats(1e9, 1e9 - 100), floats(1e9, 1e9)) == 1, "the last bits of large scores are rounding"
    assert recall_of(floats(1e-8, -1e-8), floats(1e-8, 1e-8), magnitude=1) == 1, "cosines round relative to 1"


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50), st.integers(1, 20), st.randoms())
def test_an_exact_answer_has_recall_one_however_ties_are_broken(
    scores: list[float], k: int, randomly: random.Random
) -> None:
    ordered = sorted(scores, reverse=True)
    shuffled = sorted(randomly.sample(scores, len(scores)), reverse=True)
    assert recall_of(floats(*shuffled[:k]), floats(*ordered[:k])) == 1


def test_the_figures_are_mean_the_lowest_behind_one_in_twenty_and_the_worst() -> None:
    assert figures([]) == {"queries": 0, "mean": None, "p5": None, "worst": None}
    assert figures([0.5]) == {"queries": 1, "mean": 0.5, "p5": 0.5, "worst": 0.5}
    assert figures([1.0] * 19 + [0.0]) == {"queries": 20, "mean": 0.95, "p5": 1.0, "worst": 0.0}
    assert figures([1.0] * 18 + [0.0, 0.4]) == {"queries": 20, "mean": 0.92, "p5": 0.4, "worst": 0.0}
    assert figures([1.0] * 17 + [0.0, 0.4])["p5"] == 0.0, "of fewer than twenty none is left out"


# --- the factor -----------------------------------------------------------------------------------------------------


def test_easy_queries_keep_the_promise_without_more_effort() -> None:
    easy = simulated([1.0] * 200)
    assert easy.factors == [1.0]
    assert easy.flips == [True]
    assert easy.monitor.report() == {
        "promise": PROMISE, "met": True, "queries": MEASURED_MAX, "mean": 1.0, "p5": 1.0, "worst": 1.0, "effort": 1.0,
        "classes": {
            "all": {
                "promise": PROMISE, "met": True, "queries": MEASURED_MAX, "mean": 1.0, "p5": 1.0, "worst": 1.0,
                "effort": 1.0,
            }
        },
    }  # fmt: skip


def test_the_factor_rises_until_the_misses_stop_and_the_verdict_flips_twice() -> None:
    hard = simulated([1.0] * 40 + [7.0] * 40)
    assert hard.factors == [1.0, 2.0, 4.0, 8.0]
    assert hard.flips == [True, False, True]
    report = hard.monitor.report()
    assert report is not None
    assert (report["met"], report["mean"], report["worst"], report["effort"]) == (True, 1.0, 1.0, 8.0)


def test_one_query_in_twenty_may_miss_and_the_report_tells_of_it() -> None:
    few = simulated([1.0] * 57 + [1_000.0] * 3)
    report = few.monitor.report()
    assert report is not None
    assert few.factors == [1.0]
    assert (report["met"], report["p5"], report["worst"]) == (True, 1.0, 0.9)
    assert report["mean"] == pytest.approx(1 - 3 * 0.1 / 60, abs=1e-4)


def test_misses_that_ruin_the_mean_are_too_many_though_they_are_few() -> None:
    ruined = simulated([1.0] * 60 + [2.0] * 3, below=0.0)
    assert ruined.monitor.factor("all") == 2
    assert ruined.monitor.report()["met"]  # type: ignore[index]


def test_what_no_factor_finds_is_searched_exactly_and_then_the_promise_is_met() -> None:
    hopeless = simulated([1_000.0] * 100)
    assert hopeless.factors == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, math.inf]
    assert hopeless.flips == [False, True]
    report = hopeless.monitor.report()
    assert report is not None
    assert (report["effort"], report["met"], report["worst"]) == ("exact", True, 1.0)


def test_a_few_strange_queries_do_not_make_all_searches_exact() -> None:
    strange = simulated([1_000.0] * (QUERIES_MIN - 1))
    assert strange.monitor.factor("all") == FACTOR_OF_FEW
    assert strange.flips == [False], "and it is said that the promise is not met"
    strange.ask(1_000.0)
    strange.measure()
    assert strange.monitor.factor("all") == math.inf


def test_the_factor_falls_again_when_the_data_gets_easy() -> None:
    eased = simulated([1_000.0] * 100)
    eased.monitor.changed()
    eased.measure(needed=lambda _: 1.0)
    assert eased.factors[-2:] == [math.inf, 32.0], "the same queries lower it by one step"
    for _ in range(400):
        eased.ask(1_000.0)
        eased.measure(needed=lambda _: 1.0)
    assert eased.factors[-7:] == [math.inf, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0]
    assert eased.flips == [False, True], "lowering breaks no promise"
    assert eased.monitor.report()["effort"] == 1.0  # type: ignore[index]


def test_the_factor_falls_again_when_other_queries_come() -> None:
    eased = simulated([7.0] * 100)
    assert eased.monitor.factor("all") == 8
    for _ in range(1_000):
        eased.ask(1.0)
        eased.measure()
    assert eased.monitor.factor("all") == 1
    assert eased.flips == [False, True]


def test_what_gets_hard_is_noticed_when_the_index_has_changed() -> None:
    hardened = simulated([1.0] * 100)
    hardened.measure(needed=lambda _: 4.0)
    assert hardened.factors == [1.0], "nothing says that there is something to look at"
    hardened.monitor.changed()
    hardened.measure(needed=lambda _: 4.0)
    assert hardened.monitor.factor("all") == 4
    assert hardened.flips == [True, False, True]


@pytest.mark.parametrize("share", [0.03, 0.05, 0.08])
def test_the_factor_does_not_flap_where_half_of_it_is_nearly_enough(share: float) -> None:
    """Changes become rarer and rarer: each lowering that was a mistake makes the next one take twice as long."""
    randomly = random.Random(1)
    borderline = Simulated(RecallMonitor(PROMISE))
    changes = []
    for _ in range(4):
        before = len(borderline.factors)
        for _ in range(1_000):
            borderline.ask(2.0 if randomly.random() < share else 1.0)
            borderline.measure()
        changes.append(len(borderline.factors) - before)
    assert set(borderline.factors) <= {1.0, 2.0}
    assert sum(changes) <= 6
    assert changes[-1] <= 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1.0, 2.0, 5.0, 30.0, 1_000.0]), min_size=1, max_size=150), st.sampled_from([0.0, 0.9]))
def test_whatever_comes_the_promise_is_met_or_said_not_to_be(needs: list[float], below: float) -> None:
    anything = simulated(needs, below=below)
    report, factor = anything.monitor.report(), anything.monitor.factor("all")
    assert report is not None
    window = needs[-MEASURED_MAX:]
    recalls = figures(1.0 if factor >= needed else below for needed in window)
    kept = recalls["p5"] >= PROMISE and recalls["mean"] >= PROMISE
    assert report["met"] == kept
    assert kept or len(window) < QUERIES_MIN
    assert (report["queries"], report["p5"], report["worst"]) == (len(window), recalls["p5"], recalls["worst"])
    assert all(first != second for first, second in zip(anything.flips, anything.flips[1:], strict=False))
    assert anything.flips[-1] == report["met"]


# --- classes, bounds, the promise -----------------------------------------------------------------------------------


def test_each_class_of_filters_has_its_own_factor() -> None:
    both = Simulated(RecallMonitor(PROMISE))
    for _ in range(50):
        both.ask(1.0)
        both.ask(4.0, "filtered")
        both.measure()
    assert (both.monitor.factor("all"), both.monitor.factor("filtered")) == (1.0, 4.0)
    assert both.monitor.factor("never seen") == 1.0
    report = both.monitor.report()
    assert report is not None
    assert (report["met"], report["queries"], report["effort"]) == (True, 100, 4.0)
    assert {name: each["effort"] for name, each in report["classes"].items()} == {"all": 1.0, "filtered": 4.0}


def test_one_class_that_misses_is_a_promise_that_is_not_met() -> None:
    both = Simulated(RecallMonitor(PROMISE))
    both.ask(1.0)
    both.ask(1_000.0, "filtered")
    both.measure()
    report = both.monitor.report()
    assert report is not None
    assert not report["met"]
    assert {name: each["met"] for name, each in report["classes"].items()} == {"all": True, "filtered": False}


def test_a_flood_of_queries_is_held_in_bounded_memory_and_the_recent_ones_are_sampled() -> None:
    monitor = RecallMonitor(PROMISE)
    count = 20_000
    for number in range(count):
        monitor.note(np.array([number], np.float32), 10, "all", None)
    taken = []
    while (sampled := monitor.next()) is not None:
        taken.append(float(sampled.query[0]))
        monitor.measured(sampled, dict.fromkeys(sampled.factors, 1.0))
    assert len(taken) == WAITING_MAX
    assert min(taken) > count - 20 * WAITING_MAX**2
    assert len(set(taken)) == len(taken)
    for number in range(10 * MEASURED_MAX):
        monitor.note(np.array([number], np.float32), 10, "all", None)
        while (sampled := monitor.next()) is not None:
            monitor.measured(sampled, dict.fromkeys(sampled.factors, 1.0))
    assert monitor.report()["queries"] == MEASURED_MAX  # type: ignore[index]


def test_a_sampled_query_is_a_copy() -> None:
    monitor = RecallMonitor(PROMISE)
    query = np.array([1.0, 2.0], np.float32)
    monitor.note(query, 10, "all", None)
    query[:] = 0
    sampled = monitor.next()
    assert sampled is not None
    assert sampled.query.tolist() == [1.0, 2.0]
    assert sampled.factors == (1.0,)


def test_a_query_that_cannot_be_measured_any_more_is_forgotten() -> None:
    monitor = RecallMonitor(PROMISE)
    monitor.note(np.zeros(1, np.float32), 10, "filtered", None)
    sampled = monitor.next()
    assert sampled is not None
    monitor.measured(sampled, {1.0: 0.5})
    again = monitor.next()
    assert again is sampled, "it missed, so it is measured at the higher factor"
    assert again.factors == (2.0,)
    monitor.dropped(again)
    assert monitor.next() is None


def test_a_stricter_promise_is_judged_by_what_is_known_and_a_laxer_one_too() -> None:
    asked = Simulated(RecallMonitor(0.9), below=0.9)
    for _ in range(30):
        asked.ask(2.0)
        asked.measure()
    assert (asked.monitor.factor("all"), asked.flips) == (1.0, [True])
    asked.monitor.promise = 0.95
    asked.measure()
    assert (asked.monitor.factor("all"), asked.flips) == (2.0, [True, False, True])
    report = asked.monitor.report()
    assert report is not None
    assert report["promise"] == 0.95


def test_nothing_is_reported_before_anything_is_measured() -> None:
    monitor = RecallMonitor(PROMISE)
    assert (monitor.report(), monitor.flipped(), monitor.next()) == (None, None, None)
    monitor.note(np.zeros(1, np.float32), 10, "all", None)
    assert monitor.report() is None
