"""The fair queue: who is next, whatever others have waiting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecd.fair_queue import FairQueue


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue: FairQueue[str] = FairQueue()
    with pytest.raises(IndexError):
        queue.get()
    with pytest.raises(IndexError):
        queue.next_cost()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.001, 100), st.booleans()), max_size=60))
def test_every_work_is_given_once_and_those_of_a_flow_in_their_order(
    works: list[tuple[str, float, bool]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def take() -> None:
        flow, work = queue.get()
        assert isinstance(flow, str)
        assert work == waiting[flow].pop(0)

    for number, (flow, cost, taken) in enumerate(works):
        queue.put(flow, number, cost)
        waiting[flow].append(number)
        if taken:
            take()
    for _ in range(len(queue)):
        take()
    assert not queue
    assert not any(waiting.values())


def test_a_small_work_goes_before_the_backlog_of_many_large_flows() -> None:
    queue: FairQueue[str] = FairQueue()
    for flow in range(100):
        for _ in range(10):
            queue.put(flow, "large", 20)
    for _ in range(150):
        assert queue.get()[1] == "large"
    queue.put("line", "small", 1)
    assert queue.next_cost() == 1
    assert queue.get() == ("line", "small")


def test_flows_share_by_cost_and_not_by_count() -> None:
    queue: FairQueue[float] = FairQueue()
    for _ in range(1_000):
        queue.put("large", 10.0, 10)
        queue.put("small", 1.0, 1)
    used: Counter[object] = Counter()
    for _ in range(550):
        flow, cost = queue.get()
        used[flow] += int(cost)
    assert abs(used["large"] - used["small"]) <= 20


def test_small_flows_that_come_without_end_do_not_starve_a_large_one() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("bulk", "large", 50)
    served = []
    for number in range(150):
        queue.put(f"connection {number}", "small", 1)
        served.append(queue.get()[1])
    assert "large" in served[:110]


def test_what_a_work_really_cost_is_charged_to_its_flow() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("liar", "first", 1)
    queue.put("honest", "only", 50)
    assert queue.get() == ("liar", "first")
    queue.correct("liar", 99)
    queue.put("liar", "second", 1)
    assert [queue.get()[1] for _ in range(2)] == ["only", "second"]


def test_a_flow_that_pauses_saves_nothing_up() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("paused", "once", 1)
    queue.get()
    for _ in range(100):
        queue.put("busy", "work", 10)
        queue.get()
    for _ in range(10):
        queue.put("paused", "paused", 10)
        queue.put("busy", "busy", 10)
    order = [queue.get()[1] for _ in range(20)]
    assert abs(order[:10].count("paused") - 5) <= 1


def test_flows_that_owe_nothing_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(10_000):
        queue.put(number, number, 1)
        queue.get()
    assert len(queue._idle) <= 256
    assert len(queue._heap) == 0
