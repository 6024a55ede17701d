"""LiveIndex, from outside: a search sees every write left before it, and whoever waits is told, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from tests.support.index_source import COMBINATIONS, KINDS, WAIT_S, Driven, Filter, Gate, MemorySource, check, spec
from vecd import limits
from vecd.errors import VecError
from vecd.index.policy import Tuning
from vecd.index.pools import Pools, make_pools
from vecd.index.requests import SearchOptions, Write
from vecd.index.rows import Floats, Selection

_SMALL = Tuning(rows_min=16, slice_s=0.001, quiet_slice_s=0.001, quiet_s=0, retry_s=0)


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = make_pools()
    yield made
    made.close()


def driven_by(pools: Pools, name: str = "hnsw float32", metric: str = "l2", tuning: Tuning | None = None) -> Driven:
    return Driven(MemorySource(spec(name, metric, 2)), tuning, pools)


def vector(number: float) -> Floats:
    return np.array([number, 1.0], np.float32)


def vectors(*numbers: float) -> Floats:
    return np.array([vector(number) for number in numbers], np.float32).reshape(len(numbers), 2)


# --- writes and searches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "metric"), COMBINATIONS)
def test_a_search_sees_every_write_that_was_left_before_it(pools: Pools, name: str, metric: str) -> None:
    driven = driven_by(pools, name, metric, _SMALL)
    for number in range(1, 300):
        driven.write(vectors(number), [number - 40] if number > 40 else [])
        assert driven.labels(here=number % 2 == 0) == set(range(max(1, number - 39), number + 1))
    assert not driven.failed


def test_writes_that_the_load_saw_already_are_passed_over_and_later_ones_are_not(pools: Pools) -> None:
    driven = driven_by(pools)
    live, source = driven.live, driven.source
    source.before_page = gate = Gate()
    first, second = source.commit(vectors(1, 2)), source.commit(removed=[1])
    found = live.search(vector(0), SearchOptions(10))
    gate.wait()  # the load has read the state with both
    assert live.describe()["state"] == "loading"
    assert not live.ready
    live.write(first)
    live.write(second)
    live.write(source.commit(vectors(3, 4), [2]))
    late = live.search(vector(0), SearchOptions(10))
    gate.open.set()
    assert found.result(WAIT_S)[1].tolist() == late.result(WAIT_S)[1].tolist() == [3, 4]
    assert live.ready


def test_a_write_that_only_removes_and_one_that_does_nothing_are_applied(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(vectors(1, 2, 3))
    driven.write(removed=[2])
    driven.write()
    assert driven.labels() == {1, 3}


@pytest.mark.parametrize("here", [True, False])
def test_an_index_is_loaded_by_whoever_asks_first(pools: Pools, here: bool) -> None:
    driven = driven_by(pools)
    driven.source.commit(vectors(1, 2))
    assert not driven.live.ready
    assert driven.labels(here=here) == {1, 2}
    assert driven.live.ready
    assert driven.live.loaded().done()
    other = driven_by(pools)
    other.live.loaded().result(WAIT_S)
    assert other.live.ready


@pytest.mark.parametrize("here", [True, False])
def test_searches_from_many_threads_are_each_answered_with_their_own_k(pools: Pools, here: bool) -> None:
    driven = driven_by(pools, tuning=_SMALL)
    driven.write(vectors(*range(1, 101)))
    answers: dict[int, list[int]] = {}

    def ask(k: int) -> None:
        answers[k] = driven.search(vector(50), k, here=here, ef=200)[1].tolist()

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(1, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(answers) == len(threads)
    for k, found in answers.items():
        assert len(found) == k
        assert found[0] == 50
        assert [abs(n - 50) for n in found] == sorted(abs(n - 50) for n in range(1, 101))[:k]


def test_searches_that_are_left_without_waking_anybody_are_answered_by_the_turn_of_who_left_them(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(vectors(1, 2, 3))
    driven.settle()
    here: list[bool] = []

    def select() -> Selection:
        here.append(threading.current_thread() is threading.main_thread())
        return Filter(object(), {2: 0}, np.array([True]), 3)

    for _ in range(1_000):  # the strand may have a turn left
        options = (SearchOptions(1), SearchOptions(2), SearchOptions(1, select=select))
        left = [driven.live.search(vector(3), each, wake=False) for each in options]
        driven.live.turn()
        assert [future.result(WAIT_S)[1].tolist() for future in left] == [[3], [3, 2], [2]]
        if here[-1]:
            break
    assert here[-1]


def test_more_searches_than_one_turn_takes_are_all_answered(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(vectors(*range(1, 11)))
    count = 3 * limits.SEARCHES_A_TURN + 1
    answers = driven.together([(vector(number % 10 + 1), SearchOptions(1)) for number in range(count)])
    assert [answer[1].tolist() for answer in answers] == [[number % 10 + 1] for number in range(count)]


@pytest.mark.parametrize(("name", "metric"), COMBINATIONS)
def test_an_empty_index_finds_nothing_also_after_it_was_built(pools: Pools, name: str, metric: str) -> None:
    driven = driven_by(pools, name, metric, Tuning(rows_min=1))
    assert driven.labels() == set()
    assert driven.live.rebuild().result(WAIT_S).vectors == 0
    assert driven.labels() == set()
    driven.settle()
    labels = driven.write(vectors(1, 2))
    assert driven.labels() == set(labels)
    driven.write(removed=labels)
    assert driven.labels() == set()
    driven.settle()
    assert driven.labels() == set()
    assert driven.live.describe()["memory_bytes"] >= 0


@pytest.mark.parametrize("name", sorted(KINDS))
def test_vectors_as_long_and_as_short_as_they_may_be_have_a_cosine(pools: Pools, name: str) -> None:
    driven = driven_by(pools, name, "cosine", _SMALL)
    lengths = np.array([[9e18], [1.0], [1e-30], [0.0]], np.float32)
    angles = np.linspace(0, 3, 20)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for length in lengths:
        driven.write(circle * length)
    driven.settle()
    query = vector(0.3)
    for each in (query, query * np.float32(1e18), query * np.float32(1e-30), query * np.float32(0)):
        answer = driven.search(each, 80, ef=200)
        true = {label: row.astype(np.float64) for label, row in driven.source.vectors.items()}
        scaled = {label: (row / (np.abs(row).max() or 1)).astype(np.float32) for label, row in true.items()}
        check(answer, each / (np.abs(each).max() or 1), 80, scaled, "cosine", exact=True, half=True)


# --- options --------------------------------------------------------------------------------------------------------


def test_a_select_that_raises_fails_only_its_own_search(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(vectors(1, 2, 3))
    called: list[threading.Thread] = []

    def refuse() -> Selection:
        called.append(threading.current_thread())
        raise VecError("not_found", "there is no such library")

    hold = Gate()

    def wait() -> Selection:
        hold()
        raise VecError("held", "only to hold up the strand")

    driven.live.search(vector(0), SearchOptions(1, select=wait))
    hold.wait()
    good, bad = (
        driven.live.search(vector(3), SearchOptions(1)),
        driven.live.search(vector(3), SearchOptions(1, select=refuse)),
    )
    more = driven.live.search(vector(1), SearchOptions(1))
    hold.open.set()
    with pytest.raises(VecError, match="no such library"):
        bad.result(WAIT_S)
    assert good.result(WAIT_S)[1].tolist() == [3]
    assert more.result(WAIT_S)[1].tolist() == [1]
    assert called != [threading.current_thread()], "it is called on the strand, where nothing changes meanwhile"
    assert not driven.failed


def test_labels_that_the_selection_does_not_know_yet_are_not_found(pools: Pools) -> None:
    driven = driven_by(pools, tuning=_SMALL)
    driven.write(vectors(*range(1, 41)))
    driven.settle()
    selection = Filter(object(), dict.fromkeys(range(1, 41), 0), np.array([True]), last_label=40)
    driven.write(vectors(41, 42))
    assert set(driven.search(vector(0), 100, select=lambda: selection)[1].tolist()) == set(range(1, 41))
    later = Filter(
        selection.basis, {label: label % 2 for label in range(1, 43)}, np.array([False, True]), last_label=42
    )
    # Numbers that it was told of once stand: 1 to 40 are document 0.
    assert set(driven.search(vector(0), 100, select=lambda: later)[1].tolist()) == {41}


def test_a_search_that_is_given_up_does_not_disturb_the_others(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(vectors(1, 2, 3))
    hold = Gate()

    def wait() -> Selection:
        hold()
        raise VecError("held", "only to hold up the strand")

    driven.live.search(vector(0), SearchOptions(1, select=wait))
    hold.wait()
    given_up, other = driven.live.search(vector(3), SearchOptions(1)), driven.live.search(vector(3), SearchOptions(1))
    assert given_up.cancel()
    hold.open.set()
    assert other.result(WAIT_S)[1].tolist() == [3]
    assert not driven.failed


def test_a_sample_is_of_the_living_vectors_of_the_structure(pools: Pools) -> None:
    driven = driven_by(pools, tuning=_SMALL)
    assert driven.live.sample(5).result(WAIT_S).shape == (0, 2)
    driven.write(vectors(*range(1, 51)))
    driven.settle()
    driven.write(removed=range(1, 10))
    sample = driven.live.sample(20, seed=3).result(WAIT_S)
    assert 0 < len(sample) <= 20
    assert {float(row[0]) for row in sample} <= {float(number) for number in range(10, 51)}


# --- who waits is told ----------------------------------------------------------------------------------------------


def test_a_load_that_fails_is_told_to_everybody_who_waits(pools: Pools) -> None:
    driven = driven_by(pools)
    gate = Gate()

    def broken() -> None:
        gate()
        raise ValueError("a page of vectors is too short")

    driven.source.before_page = broken
    driven.write(vectors(1))
    live = driven.live
    waiting: list[Future[Any]] = [live.search(vector(0), SearchOptions(1)), live.search(vector(1), SearchOptions(2))]
    waiting += [live.settle(), live.rebuild(), live.loaded()]
    gate.wait()
    gate.open.set()
    for future in waiting:
        with pytest.raises(VecError, match="too short") as failure:
            future.result(WAIT_S)
        assert failure.value.code == "index_failed"
    assert driven.failed == [live]
    assert live.describe()["state"] == "failed"
    assert not live.ready
    live.write(Write(2, np.array([2]), vectors(2), []))
    late: list[Future[Any]] = [live.search(vector(0), SearchOptions(1)), live.settle(), live.rebuild(), live.sample(1)]
    late += [live.loaded(), live.search(vector(0), SearchOptions(1), wake=False)]
    live.turn()
    for later in late:
        with pytest.raises(VecError, match="too short"):
            later.result(WAIT_S)
    with pytest.raises(VecError, match="too short"):
        live.search(vector(0), SearchOptions(1)).result(WAIT_S)
    assert driven.failed == [live], "who owns it is told once"


def test_a_write_that_cannot_be_applied_is_told_to_everybody_who_waits(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.source.before_page = gate = Gate()
    driven.write(vectors(1))
    live = driven.live
    gate.wait()
    live.write(Write(2, np.array([2]), np.ones((1, 3), np.float32), []))  # three components of two
    waiting: list[Future[Any]] = [
        live.search(vector(0), SearchOptions(1)),
        live.settle(),
        live.rebuild(),
        live.sample(1),
    ]
    gate.open.set()
    for future in waiting:
        with pytest.raises(VecError) as failure:
            future.result(WAIT_S)
        assert failure.value.code == "index_failed"
    assert driven.failed == [live]


def test_who_gives_up_waiting_for_maintenance_does_not_disturb_the_index(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.source.before_page = gate = Gate()
    driven.write(vectors(1))
    gate.wait()
    given_up, other = driven.live.settle(), driven.live.settle()
    given_up.cancel()
    gate.open.set()
    other.result(WAIT_S)
    assert driven.labels() == {1}
    assert not driven.failed


@pytest.mark.parametrize("stop", [False, True])
def test_who_gives_up_waiting_for_a_rebuild_does_not_disturb_the_index(pools: Pools, stop: bool) -> None:
    driven = driven_by(pools)
    driven.write(vectors(1, 2))
    driven.settle()
    driven.source.before_page = gate = Gate()
    begun, queued = driven.live.rebuild(), driven.live.rebuild()
    gate.wait()
    assert driven.labels() == {1, 2}, "both are asked for"
    begun.cancel()
    assert queued.cancel()
    if stop:
        driven.live.stop_building()
    gate.open.set()
    driven.settle()
    assert driven.labels() == {1, 2}
    assert not driven.failed
    assert len(driven.source.reports) == (0 if stop else 1), "who is waited for by nobody is not built"


# --- how things stand -----------------------------------------------------------------------------------------------


def test_a_description_says_how_things_stand(pools: Pools) -> None:
    driven = driven_by(pools, tuning=_SMALL)
    assert driven.live.describe() == {
        "state": "loading", "vectors": 0, "structure": 0, "tail": 0, "dead": 0, "memory_bytes": 0, "maintenance": None,
        "text": {"state": "unloaded"},
    }  # fmt: skip
    driven.write(vectors(*range(1, 11)))
    described = driven.settle()
    assert described == {
        "state": "ready", "vectors": 10, "structure": 0, "tail": 10, "dead": 0, "memory_bytes": 10 * (2 * 4 + 9),
        "maintenance": None, "text": {"state": "unloaded"},
    }  # fmt: skip
    assert driven.live.exact, "there is a tail only"
    driven.write(vectors(*range(11, 31)))
    driven.settle()
    driven.write(removed=[1])
    driven.labels()
    described = driven.live.describe()
    assert {**described, "memory_bytes": 0} == {
        "state": "ready", "vectors": 29, "structure": 29, "tail": 0, "dead": 1, "memory_bytes": 0, "maintenance": None,
        "text": {"state": "unloaded"},
    }  # fmt: skip
    assert described["memory_bytes"] > 30 * (2 * 4 + 9)
    assert not driven.live.exact


def test_a_write_that_comes_after_the_threads_have_ended_is_not_in_the_way_of_a_stop() -> None:
    pools = make_pools()
    driven = driven_by(pools)
    driven.write(vectors(1))
    assert driven.labels() == {1}
    pools.close()
    driven.write(vectors(2))
    assert not driven.failed
